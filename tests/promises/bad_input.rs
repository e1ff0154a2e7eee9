//! Bad input: the right problem, and the node goes on.

use serde_json::json;

use crate::harness::raw::say;
use crate::harness::{Backend, Stream, on_both_logs};

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
            ("POST", "/topics/t/events", json, r#"{"data":1,"event":7}"#, 400, "bad-request"),
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
