//! What may be done without a token, and where a node starts at all without a key.

use std::process::Command;

use serde_json::json;

use crate::harness::raw::ask;
use crate::harness::tokens::SECRET;
use crate::harness::{Api, Backend, Node, OPERATORS, until};

/// Where tokens are asked for.
const KEY: (&str, &str) = ("FANTAIL_JWT_SECRET", SECRET);

/// One request of each kind of thing that may be done: reading, changing, administering.
const KINDS: [[(&str, &str); 3]; 3] = [
    [("GET", "/boards"), ("GET", "/topics/t/history"), ("GET", "/boards/board-1")],
    [("POST", "/topics/t/events"), ("POST", "/tasks"), ("POST", "/boards")],
    [("GET", "/metrics"), ("GET", "/admin/connections"), ("GET", "/metrics")],
];

/// Which of them are answered to somebody without a token.
async fn allowed(api: &Api) -> [bool; 3] {
    let mut kinds = [false; 3];
    for (kind, requests) in kinds.iter_mut().zip(KINDS) {
        let mut answers = Vec::new();
        for (number, (method, path)) in requests.into_iter().enumerate() {
            let body = match path {
                "/tasks" => json!({ "title": "x", "listId": "list-todo" }),
                "/boards" => json!({ "name": format!("board {number}") }),
                _ => json!({ "data": 1 }),
            };
            let answer = api.send(method, path, (method == "POST").then_some(body)).await;
            match answer.status {
                200 | 201 => answers.push(true),
                401 | 403 => answers.push(false),
                _ => panic!("{method} {path}: {answer:?}"),
            }
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{requests:?}: {answers:?}");
        *kind = answers[0];
    }
    kinds
}

/// A node that others can reach, and where this machine reaches it.
async fn reachable(settings: &[(&str, &str)]) -> Node {
    let node = Node::start_at("node-1", "0.0.0.0:0", None, settings).await;
    until("it is ready", async || {
        (node.send("GET", "/readyz", None).await.status == 200).then_some(())
    })
    .await;
    node
}

#[tokio::test]
async fn without_a_token_that_much_may_be_done_and_no_more() {
    let (anonymous, read) = (("FANTAIL_ANONYMOUS", "true"), ("FANTAIL_ANONYMOUS", "read"));
    for (settings, expected) in [
        // Its machine's own.
        (&[][..], [true, true, true]),
        (&[anonymous], [true, true, true]),
        (&[read], [true, false, false]),
        (&[KEY], [false, false, false]),
        (&[KEY, read], [true, false, false]),
        (&[KEY, anonymous], [true, true, false]),
    ] {
        let node = Backend::Embedded.start(settings).await;
        assert_eq!(allowed(&node).await, expected, "on loopback: {settings:?}");
    }
    for (settings, expected) in [
        (&[anonymous][..], [true, true, false]),
        (&[anonymous, OPERATORS], [true, true, false]),
        (&[read], [true, false, false]),
        (&[KEY], [false, false, false]),
        (&[KEY, read], [true, false, false]),
    ] {
        let node = reachable(settings).await;
        assert_eq!(allowed(&node).await, expected, "reachable: {settings:?}");
    }
}

#[test]
fn a_node_that_others_can_reach_starts_only_if_somebody_says_who_may_do_what() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:3000"] {
        let ended = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .env_clear()
            .env("FANTAIL_LISTEN", listen)
            .output()
            .unwrap();
        let line = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), line.lines().count()), (Some(1), 1), "{line}");
        for part in ["FANTAIL_LISTEN", listen, "FANTAIL_JWT_SECRET_FILE", "FANTAIL_ANONYMOUS"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

#[tokio::test]
async fn a_node_that_everybody_may_use_says_so_and_still_no_page_of_others_writes() {
    let node = reachable(&[("FANTAIL_ANONYMOUS", "true"), ("FANTAIL_HOSTS", "")]).await;
    let warning = node.log().into_iter().find(|line| line.contains("FANTAIL_ANONYMOUS"));
    assert!(warning.is_some_and(|line| line.contains("WARN")), "{:?}", node.log());
    let local: std::net::SocketAddr = ([127, 0, 0, 1], node.address.port()).into();
    // A load balancer passes on whatever name it has.
    let lines = ["GET /boards HTTP/1.1", "Host: events.example"];
    assert_eq!(ask(local, &lines, b"").await.status, 200);
    let lines = ["POST /tasks HTTP/1.1", "Host: events.example", "Origin: https://evil.example"];
    assert_eq!(ask(local, &lines, b"").await.problem(403), "foreign-page");
    // One for its own machine has nothing to warn of.
    let node = Backend::Embedded.start(&[]).await;
    assert!(!node.log().iter().any(|line| line.contains("WARN")), "{:?}", node.log());
}
