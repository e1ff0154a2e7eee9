//! Bad input: the right problem, and the node goes on.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::raw::{parse_answer, say};
use crate::harness::{Answer, Backend, Stream, epoch, on_both_logs};

on_both_logs! {
    async fn every_wrong_request_gets_its_problem(backend: Backend) {
        let node = backend.start(&[("FANTAIL_MAX_BODY", "4KiB")]).await;
        node.create("exists", "list-todo").await;
        let json = "application/json";
        let long = format!(r#"{{"title":"{}","listId":"list-todo"}}"#, "x".repeat(1_001));
        let huge = format!(r#"{{"title":"{}","listId":"list-todo"}}"#, "x".repeat(5_000));
        let name = "n".repeat(201);
        for (method, path, content_type, body, status, word) in [
            // Bodies
            ("POST", "/tasks", json, "{", 400, "bad-request"),
            ("POST", "/tasks", json, "", 400, "bad-request"),
            ("POST", "/tasks", json, "[]", 400, "bad-request"),
            ("POST", "/tasks", json, "null", 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":"x"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":7,"listId":"list-todo"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":null,"listId":"list-todo"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":"x","listId":"list-todo","x":1}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":"x","title":"y","listId":"list-todo"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":"  ","listId":"list-todo"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, r#"{"title":"a\nb","listId":"list-todo"}"#, 400, "bad-request"),
            ("POST", "/tasks", json, &long, 400, "bad-request"),
            ("POST", "/tasks", json, &huge, 413, "body-too-large"),
            ("POST", "/tasks", json, r#"{"title":"x","listId":"nope"}"#, 404, "no-such-list"),
            ("POST", "/tasks", json, r#"{"title":"x","listId":"a b"}"#, 404, "no-such-list"),
            ("POST", "/tasks", "text/plain", r#"{"title":"x","listId":"list-todo"}"#, 415, "not-json"),
            ("POST", "/tasks", "", r#"{"title":"x","listId":"list-todo"}"#, 415, "not-json"),
            ("PATCH", "/tasks/task-1/move", json, r#"{"listId":"list-done","index":-1}"#, 400, "bad-request"),
            ("PATCH", "/tasks/task-1/move", json, r#"{"listId":"list-done","index":1.5}"#, 400, "bad-request"),
            ("PATCH", "/tasks/task-1/move", json, r#"{"index":1}"#, 400, "bad-request"),
            ("PATCH", "/tasks/task-1", json, r#"{}"#, 400, "bad-request"),
            ("POST", "/boards", json, r#"{"name":"x","id":"a b"}"#, 400, "bad-request"),
            ("POST", "/boards", json, r#"{"name":"x","lists":[{"title":"L","id":"a,b"}]}"#, 400, "bad-request"),
            ("POST", "/boards", json, r#"{"name":"x","id":"n","lists":[{"title":"L","id":"a"},{"title":"L","id":"a"}]}"#, 409, "list-exists"),
            ("POST", "/boards", json, r#"{"name":""}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"id":"7"}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":""}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":"a\nid: 9"}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":"a\u2028id: 9"}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":"\ufeffconnected"}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":"Connected"}"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":7}"#, 400, "bad-request"),
            // A list is no object, whatever is in it.
            ("POST", "/tasks", json, r#"["t","list-todo"]"#, 400, "bad-request"),
            ("PATCH", "/tasks/task-1", json, r#"["x"]"#, 400, "bad-request"),
            ("PATCH", "/tasks/task-1/move", json, r#"["list-done",0]"#, 400, "bad-request"),
            ("POST", "/boards", json, r#"["b","B",[]]"#, 400, "bad-request"),
            ("POST", "/boards", json, r#"{"name":"x","lists":[["l","L"]]}"#, 400, "bad-request"),
            ("POST", "/boards/board-1/lists", json, r#"["l","L"]"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"[["e",1]]"#, 400, "bad-request"),
            ("POST", "/topics/t/events", json, r#"{"data":"\ud800"}"#, 400, "bad-request"),
            // Names and ids
            ("GET", "/topics/a,b/events", "", "", 400, "bad-request"),
            ("GET", "/topics/a%7Bb/events", "", "", 400, "bad-request"),
            ("GET", "/topics/a%20b/events", "", "", 400, "bad-request"),
            ("GET", "/topics/a%0Ab/history", "", "", 400, "bad-request"),
            ("GET", "/topics/%FF/events", "", "", 400, "bad-request"),
            ("GET", &format!("/topics/{name}/events"), "", "", 400, "bad-request"),
            ("GET", "/boards/nope/events", "", "", 404, "no-such-board"),
            ("GET", "/boards/nope", "", "", 404, "no-such-board"),
            ("GET", "/boards/a%20b/events", "", "", 404, "not-found"),
            ("GET", "/events?boards=board-1,nope", "", "", 404, "no-such-board"),
            ("GET", "/events", "", "", 400, "bad-request"),
            ("GET", "/events?topics=a,b%20c", "", "", 400, "bad-request"),
            ("GET", "/boards/board-1/events?from=latest", "", "", 400, "bad-request"),
            ("GET", "/boards/board-1/events?snapshot=maybe", "", "", 400, "bad-request"),
            ("DELETE", "/tasks/task-99", "", "", 404, "no-such-task"),
            ("DELETE", "/tasks/a%20b", "", "", 404, "not-found"),
            // Methods and paths
            ("PUT", "/tasks", json, "{}", 405, "method-not-allowed"),
            ("DELETE", "/boards/board-1", "", "", 405, "method-not-allowed"),
            ("POST", "/boards/board-1/events", json, "{}", 405, "method-not-allowed"),
            ("GET", "/nowhere", "", "", 404, "not-found"),
        ] {
            let answer = node.raw(method, path, content_type, body.as_bytes().to_vec()).await;
            assert_eq!(answer.problem(status), word, "{method} {path} {body}");
        }
        let invalid = b"{\"title\":\"\xff\",\"listId\":\"list-todo\"}".to_vec();
        assert_eq!(node.raw("POST", "/tasks", json, invalid).await.problem(400), "bad-request");
        let topics: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
        let path = format!("/events?topics={}", topics.join(","));
        assert_eq!(node.send("GET", &path, None).await.problem(400), "bad-request");
        let names: Vec<String> = (0..40).map(|n| format!("{n:0>190}")).collect();
        let path = format!("/events?topics={}", names.join(","));
        assert_eq!(node.send("GET", &path, None).await.problem(400), "bad-request");

        // Nothing of all this was written, and the node goes on.
        let board = node.get("/boards/board-1").await;
        assert_eq!(board["lists"][0]["tasks"].as_array().unwrap().len(), 1);
        assert_eq!(node.get("/boards").await.as_array().unwrap().len(), 1);
        node.create("goes on", "list-todo").await;
    }
}

#[tokio::test]
async fn asking_for_boards_that_are_none_leaves_nothing_in_redis() {
    let node = Backend::Redis.start(&[]).await;
    let redis = node.redis.as_ref().unwrap();
    let before: u64 = redis.ask(&["DBSIZE"]).await;
    for n in 0..20 {
        let path = format!("/boards/nope-{n}/events");
        assert_eq!(node.send("GET", &path, None).await.problem(404), "no-such-board");
    }
    let after: u64 = redis.ask(&["DBSIZE"]).await;
    // The report of this node may have come in between.
    assert!(after <= before + 1, "{before} keys, then {after}");
}

#[tokio::test]
async fn a_hundred_topics_are_not_too_many() {
    let node = Backend::Embedded.start(&[]).await;
    let topics: Vec<String> = (0..100).map(|n| format!("topic-{n}")).collect();
    let path = format!("/events?topics={}", topics.join(","));
    let mut stream = Stream::open(node.address, &path).await;
    let id = node.publish("topic-77", json!({ "n": 77 })).await;
    let event = stream.event().await;
    assert!(event.id.contains(&format!("topic-77:{id}")));
    let mut resumed = Stream::open_from(node.address, &path, stream.last_event_id()).await;
    assert_eq!(resumed.last_event_id(), event.id);
    let id = node.publish("topic-0", 0).await;
    assert!(resumed.event().await.id.starts_with(&format!("topic-0:{id},")));
}

#[tokio::test]
async fn what_is_no_http_ends_that_connection_and_nothing_else() {
    let node = Backend::Embedded.start(&[]).await;
    let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense nonsense",
    ] {
        let answer = say(node.address, bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let answer = say(node.address, head.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    assert!(say(node.address, head.as_bytes()).await.starts_with("HTTP/1.1 431"));
    node.create("goes on", "list-todo").await;
    assert_eq!(stream.event().await.kind, "task_created");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let node = Backend::Embedded.start(&[]).await;
    let head = "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\nconnection: close\r\n\r\n{\"title\":";
    let answer = say(node.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:fantail:problem:body-too-slow"), "{answer}");
}

#[tokio::test]
async fn what_a_client_says_is_not_told_back_in_full() {
    let node = Backend::Embedded.start(&[]).await;
    let name = "x".repeat(1_000_000);
    for (path, body) in [
        ("/tasks", format!(r#"{{"{name}":1}}"#)),
        ("/tasks", format!(r#"{{"title":"t","listId":["{name}"]}}"#)),
        ("/topics/t/events", format!(r#"{{"data":1,"{name}":1}}"#)),
        ("/topics/t/events", format!(r#"[{{"data":1,"event":{{"{name}":1}}}}]"#)),
        ("/boards", format!(r#"{{"name":"b","lists":"{name}"}}"#)),
    ] {
        let answer = node.raw("POST", path, "application/json", body.into_bytes()).await;
        assert_eq!(answer.problem(400), "bad-request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.len() < 400, "{path}: {} bytes", detail.len());
    }
}

#[tokio::test]
async fn hosts_that_are_none_and_codings_that_are_not_undone_are_refused() {
    let node = Backend::Embedded.start(&[]).await;
    for host in [".", "..", "*", "%"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = say(node.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{host}: {answer}");
    }
    let body = r#"{"data":1}"#;
    let request = format!(
        "POST /topics/t/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = say(node.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    assert!(answer.contains("Transfer-Encoding: gzip is not understood here"), "{answer}");
}

#[tokio::test]
async fn a_last_event_id_of_commas_alone_is_unreadable() {
    let node = Backend::Embedded.start(&[]).await;
    node.publish("t", 1).await;
    for id in [",", ",,,", ", ,"] {
        let mut stream = Stream::open_from(node.address, "/topics/t/events", id).await;
        let event = stream.event().await;
        assert_eq!(event.kind, "reset", "{id:?}");
        assert!(event.data.contains("unreadable"), "{}", event.data);
    }
}

/// Requests at random: each part may be right, odd, or no HTTP at all.
struct Odd(fastrand::Rng);

impl Odd {
    fn one<'a>(&mut self, of: &[&'a [u8]]) -> &'a [u8] {
        of[self.0.usize(..of.len())]
    }

    /// A part of a path or a query.
    fn piece(&mut self) -> Vec<u8> {
        let pieces: [&[u8]; 36] = [
            b"t",
            b"board-1",
            b"list-todo",
            b"task-1",
            b"42-k3f9",
            b"42",
            b"true",
            b"earliest",
            b"event",
            b"",
            b".",
            b"..",
            b"%2e%2e",
            b"%2E",
            b"a%2Fb",
            b"%2F",
            b"%",
            b"%f",
            b"%zz",
            b"%00",
            b"%ff%fe",
            b"%0d%0aX:%20y",
            b"%20",
            b"+",
            b"a,b",
            b"a;b",
            b"{t}",
            b"%7Bt%7D",
            b"%E2%80%A8",
            b"%C3%A9",
            b"\xc3\xa9",
            b"\xff",
            b"\"<>|^`\\",
            b"\x7f",
            b"a:log",
            b"*",
        ];
        match self.0.u8(..20) {
            0 => vec![b'n'; self.0.usize(190..210)],
            1 => vec![b'n'; self.0.usize(2_000..9_000)],
            2 => (0..self.0.usize(1..8)).map(|_| self.0.u8(b'!'..=b'~')).collect(),
            _ => self.one(&pieces).to_vec(),
        }
    }

    fn target(&mut self) -> Vec<u8> {
        let shapes: [&[u8]; 20] = [
            b"/boards/{}/events",
            b"/events",
            b"/topics/{}/events",
            b"/topics/{}/history",
            b"/tasks",
            b"/tasks/{}",
            b"/tasks/{}/move",
            b"/boards",
            b"/boards/{}",
            b"/boards/{}/lists",
            b"/admin/connections",
            b"/metrics",
            b"/healthz",
            b"/readyz",
            b"/",
            b"/app.js",
            b"/{}",
            b"//{}//{}/",
            b"/topics/{}/{}/events",
            b"http://a/topics/{}/events",
        ];
        let shape = self.one(&shapes);
        let mut target = Vec::new();
        let mut rest = shape;
        while let Some(at) = rest.windows(2).position(|two| two == b"{}") {
            target.extend_from_slice(&rest[..at]);
            target.extend(self.piece());
            rest = &rest[at + 2..];
        }
        target.extend_from_slice(rest);
        if self.0.u8(..8) == 0 {
            target.extend_from_slice(self.one(&[b"/", b"//", b"/.", b"/%2e"]));
        }
        for n in 0..self.0.usize(..6).saturating_sub(2) {
            target.push(if n == 0 { b'?' } else { b'&' });
            let names: [&[u8]; 14] = [
                b"topics",
                b"boards",
                b"lastEventId",
                b"last_event_id",
                b"from",
                b"snapshot",
                b"connected",
                b"heartbeat",
                b"after",
                b"limit",
                b"limt",
                b"board",
                b"",
                b"%ff",
            ];
            target.extend_from_slice(self.one(&names));
            if self.0.u8(..10) > 0 {
                target.push(b'=');
                target.extend(self.piece());
            }
        }
        target
    }

    fn headers(&mut self) -> Vec<u8> {
        let lines: [&[u8]; 40] = [
            b"content-type: application/json",
            b"content-type: application/json",
            b"content-type: application/json",
            b"content-type: application/x+json; charset=utf-8",
            b"content-type: text/plain",
            b"content-type: \xff",
            b"content-type:",
            b"content-encoding: gzip",
            b"content-encoding: identity",
            b"content-encoding: \xff",
            b"last-event-id: 1-k3f9",
            b"last-event-id:",
            b"last-event-id: \xe9\xff",
            b"last-event-id: t:1-k3f9,u:2-k3f9~aaaaaa",
            b"last-event-id: ,,,:::~~~",
            b"if-match: \"1-k3f9\"",
            b"if-match: *",
            b"if-match: \xff",
            b"if-match: \"",
            b"idempotency-key: k",
            b"idempotency-key: a b",
            b"idempotency-key: \xff",
            b"idempotency-key:",
            b"host: b",
            b"host: a b",
            b"expect: 100-continue",
            b"expect: nothing",
            b"origin: http://a.example",
            b"origin: \xff",
            b"origin: null",
            b"access-control-request-method: POST",
            b"access-control-request-headers: x, \xff",
            b"accept: text/event-stream",
            b"connection: close",
            b"connection: keep-alive",
            b"connection: upgrade",
            b"upgrade: websocket",
            b"te: trailers",
            b" folded: x",
            b"no colon",
        ];
        let mut headers = Vec::new();
        for line in [&b"host: a\r\n"[..], b"content-type: application/json\r\n"] {
            if self.0.u8(..20) > 0 {
                headers.extend_from_slice(line);
            }
        }
        for _ in 0..self.0.usize(..6).saturating_sub(3) {
            headers.extend_from_slice(self.one(&lines));
            headers.extend_from_slice(b"\r\n");
        }
        if self.0.u8(..50) == 0 {
            for n in 0..self.0.usize(80..120) {
                headers.extend_from_slice(format!("x-{n}: y\r\n").as_bytes());
            }
        }
        headers
    }

    fn body(&mut self) -> Vec<u8> {
        let bodies: [&[u8]; 24] = [
            br#"{"data":1}"#,
            br#"{"event":"e","data":{"a":[1,2]}}"#,
            br#"[{"data":1},{"data":"x"}]"#,
            br#"{"title":"x","listId":"list-todo"}"#,
            br#"{"title":"x"}"#,
            br#"{"listId":"list-done"}"#,
            br#"{"name":"x"}"#,
            br#"{"name":"x","lists":[{"title":"y"}]}"#,
            br#"{"id":"..","name":"x"}"#,
            br#"{"event":"reset","data":1}"#,
            br#"{"event":"error","data":1}"#,
            b"",
            b"null",
            b"[]",
            b"{",
            b"\"\\ud800\"",
            b"\xef\xbb\xbf{\"data\":1}",
            b"\xff\xfe{\0}\0",
            b"\0{\0}",
            b"\x1f\x8b\x08\0",
            b"\x28\xb5\x2f\xfd",
            b"1e999999",
            b"{\"data\":1e400}",
            b"data=1",
        ];
        let mut body = self.one(&bodies).to_vec();
        match self.0.u8(..8) {
            0 if !body.is_empty() => {
                let at = self.0.usize(..body.len());
                body[at] = self.0.u8(..);
            }
            1 => body.truncate(self.0.usize(..=body.len())),
            2 => body = [b"[".repeat(5_000), body].concat(),
            3 => body.extend(std::iter::repeat_n(b' ', self.0.usize(4_000..6_000))),
            _ => {}
        }
        body
    }

    /// One that is right, but for what chance changes of each part.
    fn request(&mut self) -> Vec<u8> {
        let right: [(&[u8], &[u8], &[u8]); 14] = [
            (b"GET", b"/topics/t/events", b""),
            (b"GET", b"/events?topics=t,u&boards=board-1", b""),
            (b"GET", b"/boards/board-1/events?snapshot=true", b""),
            (b"GET", b"/topics/t/history?limit=3", b""),
            (b"GET", b"/boards/board-1", b""),
            (b"POST", b"/topics/t/events", br#"{"event":"e","data":{"a":[1,2]}}"#),
            (b"POST", b"/topics/t/events", br#"[{"data":1},{"data":"x"}]"#),
            (b"POST", b"/topics/u/events", br#"{"data":1}"#),
            (b"POST", b"/tasks", br#"{"title":"x","listId":"list-todo"}"#),
            (b"PATCH", b"/tasks/task-1", br#"{"title":"x"}"#),
            (b"PATCH", b"/tasks/task-1/move", br#"{"listId":"list-done"}"#),
            (b"DELETE", b"/tasks/task-2", b""),
            (b"POST", b"/boards", br#"{"name":"x","lists":[{"title":"y"}]}"#),
            (b"POST", b"/boards/board-1/lists", br#"{"title":"x"}"#),
        ];
        let odd_methods: [&[u8]; 8] =
            [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"FETCH", b"get"];
        let (mut method, target, body) = right[self.0.usize(..right.len())];
        let (mut target, mut body) = (target.to_vec(), body.to_vec());
        if self.0.u8(..6) == 0 {
            method = self.one(&odd_methods);
        }
        if self.0.u8(..3) == 0 {
            target = self.target();
        }
        if self.0.u8(..4) == 0 {
            body = self.body();
        }
        let version: &[u8] = if self.0.u8(..20) == 0 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" };
        let mut request = [method, b" ", &target, version].concat();
        request.extend(self.headers());
        let length = body.len();
        if self.0.u8(..5) > 0 || length == 0 {
            request.extend(format!("content-length: {length}\r\n\r\n").into_bytes());
            request.extend(body);
        } else {
            request
                .extend(format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n").into_bytes());
            request.extend(body);
            request.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        request
    }
}

/// Sends this and reads the answer: as much of a stream as its head.
async fn answer_to(address: std::net::SocketAddr, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let shown = String::from_utf8_lossy(&request[..request.len().min(600)]).into_owned();
    let answer = crate::harness::within(&shown, async {
        let mut received = Vec::new();
        loop {
            if let Some(answer) = parse_answer(&received, !request.starts_with(b"HEAD")) {
                if answer.status == 100 {
                    let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
                    received.drain(..end + 4);
                    continue;
                }
                return answer;
            }
            let read = socket.read_buf(&mut received).await;
            let text = String::from_utf8_lossy(&received);
            assert!(read.is_ok_and(|read| read > 0), "no answer to {shown}, only {text:?}");
        }
    });
    answer.await
}

on_both_logs! {
    async fn whatever_is_sent_is_answered_or_refused_and_nothing_is_lost(backend: Backend) {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("SEED={seed}");
        let mut odd = Odd(fastrand::Rng::with_seed(seed));
        let settings = [("FANTAIL_MAX_BODY", "5KiB"), ("FANTAIL_HISTORY_SIZE", "10000")];
        let node = backend.start(&settings).await;
        let first = node.publish("t", "first").await;
        let mut witness = Stream::open(node.address, "/topics/t/events").await;
        let mut written = Vec::new();
        let mut seen = std::collections::BTreeMap::<u16, usize>::new();
        for n in 0..2_000 {
            let request = odd.request();
            let mut answer = answer_to(node.address, &request).await;
            *seen.entry(answer.status).or_default() += 1;
            let shown = String::from_utf8_lossy(&request[..request.len().min(600)]);
            let is_head = request.starts_with(b"HEAD");
            match answer.status {
                201 if answer.body.get("ids").is_some() || answer.body.get("id").is_some_and(is_position) => {
                    let ids = match answer.body.get_mut("ids") {
                        Some(ids) => ids.take().as_array().unwrap().clone(),
                        None => vec![answer.body["id"].take()],
                    };
                    // However the topic was named.
                    let is_new = answer.header("idempotent-replayed").is_empty();
                    let ids = ids.iter().map(|id| id.as_str().unwrap().to_owned());
                    written.extend(ids.filter(|id| is_new && epoch(id) == epoch(&first)));
                }
                200..=299 => {}
                // What is no HTTP is refused by the HTTP server, which says nothing else.
                400 | 414 | 431 if answer.header("content-type").is_empty() => {
                    assert!(answer.body == "", "{seed} {n} {shown}: {answer:?}");
                }
                400..=499 if is_head => {}
                400..=499 => {
                    answer.problem(answer.status);
                }
                _ => panic!("{seed} {n} {shown}: {answer:?}"),
            }
        }
        println!("{seen:?}");
        assert!(seen.contains_key(&200) && seen.contains_key(&201) && seen.len() > 8, "{seen:?}");
        let last = node.publish("t", "last").await;
        written.push(last);
        let heard: Vec<String> =
            witness.events(written.len()).await.into_iter().map(|event| event.id).collect();
        assert_eq!(heard, written, "{seed}");
        drop(witness);
        node.until_streams(0).await;
        let panics: Vec<String> =
            node.log().into_iter().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{seed} {panics:?}");
    }
}

fn is_position(id: &serde_json::Value) -> bool {
    id.as_str().is_some_and(|id| {
        id.split_once('-').is_some_and(|(seq, epoch)| {
            seq.parse::<u64>().is_ok() && (4..=8).contains(&epoch.len())
        })
    })
}

#[tokio::test]
async fn bodies_that_do_not_end_are_refused_together_and_small_ones_are_not() {
    let node = Backend::Embedded.start(&[]).await;
    let head = "POST /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
    let mut bodies = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let address = node.address;
        bodies.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            // All but the end. It may be refused meanwhile.
            let _ = socket.write_all(&vec![b' '; 1_040_000]).await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        });
    }
    // While they come and wait.
    for n in 0..5 {
        node.create(&format!("a small one {n}"), "list-todo").await;
    }
    let answers = crate::harness::within("the answers", bodies.join_all()).await;
    let refused: Vec<&String> =
        answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503")).collect();
    assert!(refused.len() >= 20, "{} of 60 were refused", refused.len());
    for answer in refused {
        let answer = answer.to_lowercase();
        assert!(answer.contains("bodies-full") && answer.contains("retry-after: "), "{answer}");
    }
    let slow = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 408")).count();
    assert!(slow >= 16, "{slow} of 60 had their ten seconds");
    // There is room again.
    node.publish("t", "x".repeat(1_000_000)).await;
}
