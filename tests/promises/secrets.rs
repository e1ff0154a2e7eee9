//! Tokens, cookies and tickets are in nothing that a node says of itself.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Answer, Node, Redis, Stream, until};

/// A claim that nobody may find anywhere either: it says who somebody is.
const SUBJECT: &str = "subject-of-a-secret-test";

fn token(seconds: i64) -> String {
    let claims = json!({
        "sub": SUBJECT, "jti": "id-of-a-secret-test", "exp": in_seconds(seconds),
        "fantail": { "subscribe": ["news"], "publish": ["news"], "admin": true },
    });
    Signer::with_secret("HS256", SECRET).token(&claims)
}

/// Everything that the node answered, as one text.
#[derive(Default)]
struct Said(String);

impl Said {
    fn note(&mut self, answer: &Answer) {
        self.0.push_str(&format!("{:?}\n{}\n", answer.headers, answer.body));
    }
}

/// A request of HTTP/2 whose path no server can read, and whatever comes back.
async fn ask_over_http_2(node: &Node, path: &str, token: &str) {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let mut block = vec![0x82, 0x86]; // :method GET, :scheme http
    for (name, value) in [(":path", path), (":authority", "localhost"), ("authorization", token)] {
        // Literals without indexing, names and values as they are (RFC 7541 §6.2.2).
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128);
            match text.len() {
                length @ ..127 => block.push(length as u8),
                length => block.extend([127, (length - 127) as u8]),
            }
            block.extend(text.as_bytes());
        }
    }
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    said.extend(&(block.len() as u32).to_be_bytes()[1..]);
    // HEADERS, END_HEADERS and END_STREAM, stream 1.
    said.extend([1, 5, 0, 0, 0, 1]);
    said.extend(&block);
    socket.write_all(&said).await.unwrap();
    let mut answer = [0; 1024];
    let _ = socket.read(&mut answer).await.unwrap();
    let _ =
        tokio::time::timeout(std::time::Duration::from_millis(300), socket.read(&mut answer)).await;
}

#[tokio::test]
async fn no_token_cookie_or_ticket_is_in_any_log_line_metric_or_error() {
    let redis = Redis::start().await;
    let settings =
        [("FANTAIL_JWT_SECRET", SECRET), ("FANTAIL_LOG", "trace"), ("FANTAIL_TICKET_TTL", "2s")];
    let mut node = Node::start("node-1", Some(&redis), &settings).await;
    let (good, short, expired) = (token(600), token(2), token(-600));
    let unsigned = format!("{}x", &good[..good.len() - 1]);
    let mut said = Said::default();
    let mut secrets = vec![good.clone(), short.clone(), expired.clone(), unsigned.clone()];

    // Every way to show each of them, where it is right and where it is wrong.
    let mut tickets = Vec::new();
    for token in [&good, &short] {
        for _ in 0..3 {
            let answer = node.with_token(token).send("POST", "/tickets", None).await;
            let ticket = answer.body["ticket"].as_str().unwrap().to_owned();
            secrets.push(ticket.clone());
            tickets.push(ticket);
        }
    }
    let paths = [
        "/topics/news/events",
        "/topics/news/history",
        "/admin/connections",
        "/boards",
        "/nothing",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
    ];
    let mut streams = Vec::new();
    for token in [&good, &expired, &unsigned] {
        let (bearer, cookie) = (format!("Bearer {token}"), format!("fantail={token}"));
        for headers in [
            &[("authorization", &*bearer)][..],
            &[("cookie", &*cookie)],
            &[("cookie", &*cookie), ("origin", "https://evil.example")],
            &[("authorization", &*cookie)],
            &[("cookie", &*bearer)],
        ] {
            for path in &paths[1..] {
                said.note(&node.send_with("GET", path, headers, None).await);
            }
            let event = Some(json!({ "data": "x" }));
            said.note(&node.send_with("POST", "/topics/news/events", headers, event).await);
            let whom = Some(json!({ "tokenId": "somebody-else" }));
            said.note(&node.send_with("POST", "/admin/revoke", headers, whom).await);
            let lines: Vec<String> =
                headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let stream = Stream::request_with(node.address, paths[0], &lines).await;
            said.0.push_str(&stream.head);
            streams.push(stream);
        }
        // Where no token belongs.
        for query in [format!("?access_token={token}"), format!("?ticket={token}")] {
            for path in paths {
                if path == paths[0] {
                    let path = format!("{path}{query}");
                    let stream = Stream::request_with(node.address, &path, &[]).await;
                    said.0.push_str(&stream.head);
                } else {
                    said.note(&node.send("GET", &format!("{path}{query}"), None).await);
                }
            }
        }
    }
    for ticket in &tickets {
        for (path, headers) in [
            ("/topics/news/history", &[][..]),
            ("/topics/news/events", &[]),
            ("/topics/news/events", &[]),
            ("/topics/news/events", &["Last-Event-ID: 1-k3f9"]),
            ("//topics/news/events/", &["Last-Event-ID: 1-k3f9"]),
        ] {
            let path = format!("{path}?ticket={ticket}");
            let stream = Stream::request_with(node.address, &path, headers).await;
            said.0.push_str(&stream.head);
            streams.push(stream);
        }
    }
    // What the HTTP server itself cannot read.
    let ticket = &tickets[0];
    for path in [
        format!("/topics/news/events?ticket={ticket}"),
        format!("/topics/news/events?x=a b&ticket={ticket}"),
        format!("/topics/news/events?x=\u{1}&ticket={ticket}"),
        format!("topics/news/events?ticket={ticket}"),
    ] {
        ask_over_http_2(&node, &path, &format!("Bearer {}", "x".repeat(100))).await;
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {good}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let count = socket.read(&mut answer).await.unwrap();
        said.0.push_str(&String::from_utf8_lossy(&answer[..count]));
    }
    // Streams end, of a token that is over and of one that is revoked.
    let revoke = Some(json!({ "subject": SUBJECT }));
    let revoked = node.with_token(&good).send("POST", "/admin/revoke", revoke).await;
    assert_eq!(revoked.status, 204);
    for stream in streams.iter_mut().filter(|stream| stream.status == 200) {
        stream.end().await;
    }
    said.note(&node.with_token(&good).send("GET", "/topics/news/history", None).await);
    let administrator = Signer::with_secret("HS256", SECRET).everything();
    secrets.push(administrator.clone());
    said.note(&node.with_token(&administrator).send("GET", "/metrics", None).await);
    said.note(&node.with_token(&administrator).send("GET", "/admin/connections", None).await);
    node.terminate();
    node.process.ended().await;

    let log = until("the last line was read", async || {
        let log = node.log();
        log.iter().any(|line| line.contains("drained")).then_some(log)
    })
    .await;
    assert!(log.len() > 100, "it logged at trace: {} lines", log.len());
    assert!(log.iter().any(|line| line.contains("TRACE")));
    secrets.push(SECRET.to_owned());
    secrets.push(SUBJECT.to_owned());
    // A part of a token is enough to be known by.
    let parts = secrets.iter().flat_map(|secret| secret.split('.'));
    let parts = parts.map(|part| &part[part.len().saturating_sub(24)..]);
    for part in parts {
        if let Some(line) = log.iter().find(|line| line.contains(part)) {
            panic!("a secret is in a log line: {line}");
        }
        if let Some(at) = said.0.find(part) {
            panic!("a secret is in an answer: {}", &said.0[at.saturating_sub(200)..at]);
        }
    }
}
