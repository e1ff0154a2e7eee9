//! A request that is refused while its body is still on its way: the client can read why, and the
//! node does not read for ever.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::raw::{parse_answer, read_answer};
use crate::harness::{Answer, Backend, Node, Stream, within};

/// Of a body that nobody wants: eight times the limit.
const LARGE_BYTES: usize = 8 << 20;

/// Requests that are refused by their head, or answered without their body: request line, headers,
/// status, type of the problem.
const REFUSED: [(&str, &str, u16, &str); 10] = [
    ("POST /topics/t/events", "Content-Type: application/json", 413, "body-too-large"),
    ("POST /topics/t/events", "Content-Type: text/plain", 415, "not-json"),
    (
        "POST /topics/t/events",
        "Content-Type: application/json\r\nContent-Encoding: gzip",
        415,
        "content-encoding",
    ),
    ("POST /nowhere", "X: y", 404, "not-found"),
    ("PUT /tasks", "X: y", 405, "method-not-allowed"),
    ("POST /tasks?x=1", "Content-Type: application/json", 400, "bad-request"),
    ("POST /topics/../events", "Content-Type: application/json", 400, "bad-request"),
    ("POST /tasks", "Host: twice", 400, "bad-request"),
    ("DELETE /tasks/task-9", "X: y", 404, "no-such-task"),
    ("POST /tasks", "Origin: https://evil.example", 403, "foreign-page"),
];

/// The head of a request with so many bytes of body; in one piece, or chunked without a length.
fn head(request: &str, headers: &str, length: Option<usize>) -> String {
    let length = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_owned(),
    };
    format!("{request} HTTP/1.1\r\nHost: a\r\n{headers}\r\n{length}\r\n\r\n")
}

/// Sends everything before it reads anything, as many clients do.
async fn send_then_read(address: SocketAddr, head: &str, parts: &[&[u8]]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    within("everything to be sent", async {
        socket.write_all(head.as_bytes()).await.unwrap();
        for part in parts {
            // Long enough for the answer, and for a socket that would be closed after it.
            tokio::time::sleep(Duration::from_millis(30)).await;
            socket.write_all(part).await.unwrap_or_else(|error| panic!("{head}: {error}"));
        }
    })
    .await;
    let answer = read_answer(&mut socket).await;
    within("an end", async { while socket.read(&mut [0; 64]).await.unwrap() > 0 {} }).await;
    answer
}

#[tokio::test]
async fn the_answer_can_be_read_after_everything_was_sent() {
    let node = Backend::Embedded.start(&[]).await;
    let body = vec![b'x'; LARGE_BYTES];
    let quarters: Vec<&[u8]> = body.chunks(LARGE_BYTES / 4).collect();
    let chunk = [format!("{:x}\r\n", LARGE_BYTES).as_bytes(), &body, b"\r\n"].concat();
    for (request, headers, status, kind) in REFUSED {
        let whole = head(request, headers, Some(LARGE_BYTES));
        for parts in [&[&body[..]][..], &quarters] {
            let answer = send_then_read(node.address, &whole, parts).await;
            assert_eq!(answer.problem(status), kind, "{request}");
            // Whoever looks while sending need not go on.
            assert_eq!(answer.header("connection"), "close", "{request}");
        }
        let chunked = head(request, headers, None);
        let answer = send_then_read(node.address, &chunked, &[&chunk, b"0\r\n\r\n"]).await;
        assert_eq!(answer.problem(status), kind, "{request}");
    }
    // An answer that needs no body is read as well.
    let healthy = head("GET /healthz", "X: y", Some(LARGE_BYTES));
    assert_eq!(send_then_read(node.address, &healthy, &quarters).await.status, 200);
    // A head that is too large is no better.
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(4 << 20));
    let answer = send_then_read(node.address, &head, &[b"y", b"\r\n\r\n"]).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn a_small_body_that_is_not_wanted_costs_no_connection() {
    let node = Backend::Embedded.start(&[]).await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    for _ in 0..3 {
        let head = head("POST /nowhere", "X: y", Some(7));
        socket.write_all(format!("{head}{{\"a\":1}}").as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut socket).await.problem(404), "not-found");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_answer_unless_the_answer_says_that_it_does_not() {
    let node = Backend::Embedded.start(&[]).await;
    for (request, headers, status) in [
        ("POST /nowhere", "X: y", 404),
        ("PUT /tasks", "X: y", 405),
        ("DELETE /tasks/task-9", "X: y", 404),
        ("POST /topics/t/events", "Content-Type: text/plain", 415),
        ("POST /tasks?x=1", "Content-Type: application/json", 400),
        ("GET /healthz", "X: y", 200),
        ("GET /boards", "X: y", 200),
        ("OPTIONS /topics/t/events", "Origin: a\r\nAccess-Control-Request-Method: POST", 200),
    ] {
        for (length, body) in [(Some(10), "0123456789"), (None, "a\r\n0123456789\r\n0\r\n\r\n")] {
            let head = head(request, headers, length);
            // It comes a little later than its head, as many clients send it.
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            for _ in 0..2 {
                socket.write_all(head.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                socket.write_all(body.as_bytes()).await.unwrap();
                let answer = read_answer(&mut socket).await;
                assert_eq!(answer.status, status, "{request}");
                assert_eq!(answer.header("connection"), "", "{request}");
            }
            // It comes when nobody waits for it any more.
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            let answer = read_answer(&mut socket).await;
            assert_eq!(answer.status, status, "{request}");
            assert_eq!(answer.header("connection"), "close", "{request}");
            socket.write_all(body.as_bytes()).await.unwrap();
            within("an end", async { while socket.read(&mut [0; 64]).await.unwrap() > 0 {} }).await;
        }
    }
}

#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_is_refused_instead() {
    let node = Backend::Embedded.start(&[]).await;
    for (request, headers, status, kind) in REFUSED {
        for length in [Some(LARGE_BYTES), Some(7), None] {
            if status == 413 && length != Some(LARGE_BYTES) {
                continue;
            }
            let head = head(request, &format!("{headers}\r\nExpect: 100-continue"), length);
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            // Anything before the refusal would be taken for the answer here.
            let answer = read_answer(&mut socket).await;
            assert_eq!(answer.problem(status), kind, "{request} {length:?}");
            assert_eq!(answer.header("connection"), "close", "{request} {length:?}");
            within("an end", async { while socket.read(&mut [0; 64]).await.unwrap() > 0 {} }).await;
        }
    }
    let head = head(
        "POST /topics/t/events",
        "Content-Type: application/json\r\nExpect: 100-continue",
        Some(10),
    );
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut socket).await.status, 100);
    socket.write_all(br#"{"data":1}"#).await.unwrap();
    assert_eq!(read_answer(&mut socket).await.status, 201);
}

#[tokio::test]
async fn a_body_that_is_thrown_away_has_bounds() {
    let node = Backend::Embedded.start(&[]).await;
    // One that never comes is not waited for, nor one that never ends.
    let head = head("POST /nowhere", "X: y", Some(1 << 40));
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    silent.write_all(head.as_bytes()).await.unwrap();
    let mut endless = TcpStream::connect(node.address).await.unwrap();
    endless.write_all(head.as_bytes()).await.unwrap();
    let sent = within("an end of what never ends", async {
        let piece = vec![0; 1 << 20];
        let mut sent = 0_usize;
        while endless.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    let sent = sent.await;
    assert!((LARGE_BYTES..256 << 20).contains(&sent), "{sent} bytes were taken");
    let mut received = Vec::new();
    within("an end", silent.read_to_end(&mut received)).await.unwrap();
    assert_eq!(parse_answer(&received, true).unwrap().problem(404), "not-found");
    let waited = Instant::now();
    node.create("goes on", "list-todo").await;
    assert!(waited.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn over_http_2_a_refusal_is_read_and_its_neighbours_go_on() {
    let node = Backend::Embedded.start(&[]).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let mut neighbour = client.get(format!("{}/topics/n/events", node.base)).send().await.unwrap();
    neighbour.chunk().await.unwrap();
    for round in 0..3 {
        for (request, headers, status, _) in REFUSED {
            let (method, path) = request.split_once(' ').unwrap();
            if headers.starts_with("Host") || path.contains("..") {
                continue;
            }
            let mut request = client
                .request(method.parse().unwrap(), format!("{}{path}", node.base))
                .body(vec![b'x'; LARGE_BYTES]);
            for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
                request = request.header(name, value);
            }
            let answer = within("an answer", request.send()).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path} {round}");
            let body = answer.text().await.unwrap();
            assert!(body.contains("urn:fantail:problem:"), "{body}");
        }
        node.publish("n", round).await;
        let mut heard = String::new();
        while !heard.contains(&format!("data: {round}")) {
            let chunk = within("the neighbour's event", neighbour.chunk()).await.unwrap();
            heard.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
        }
    }
}

/// What curl prints of the answer to this body: status, and the body of the answer.
async fn curl(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "-w", "\n%{http_code}"]).args(arguments);
    command.arg(format!("{}/topics/t/events", node.base));
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().expect("curl is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{}{error}", String::from_utf8_lossy(&output.stdout))
}

#[tokio::test]
async fn curl_reads_why_its_upload_was_refused() {
    let node = Backend::Embedded.start(&[]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let dir = crate::harness::process::TempDir::new();
    let file = dir.0.join("body");
    std::fs::write(&file, vec![b'x'; LARGE_BYTES]).unwrap();
    let data = format!("@{}", file.display());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for expect in ["Expect:", "Expect: 100-continue"] {
            for (content_type, status) in [("application/json", 413), ("text/plain", 415)] {
                let content_type = format!("Content-Type: {content_type}");
                let arguments =
                    [version, "-H", expect, "-H", &content_type, "--data-binary", &data];
                let told = curl(&node, &arguments).await;
                let is_told =
                    told.contains("urn:fantail:problem") && told.ends_with(&status.to_string());
                assert!(is_told, "{arguments:?}: {told}");
            }
        }
    }
    let id = node.publish("t", 1).await;
    assert_eq!(stream.event().await.id, id);
}
