//! The operators' door: what is behind it, what is not, and that it stays open to the end.

use serde_json::json;

use crate::harness::raw::ask;
use crate::harness::{Api, Backend, OPERATORS, Stream, on_both_logs, until, within};
use crate::requests::ROUTES;

/// What is behind the door.
const OPERATORS_PATHS: [&str; 4] = ["/metrics", "/admin/connections", "/healthz", "/readyz"];

on_both_logs! {
    async fn operators_have_a_door_of_their_own_and_nothing_else_is_behind_it(backend: Backend) {
        let node = backend.start(&[OPERATORS]).await;
        let door = node.operators();
        assert_ne!(door.base, node.base);
        node.publish("t", 1).await;
        let streams = Stream::open(node.address, "/topics/t/events").await;
        assert_eq!(door.metric("fantail_connections", "").await, 1.0);
        until("it is counted", async || {
            let counts = door.get("/admin/connections?topic=t").await;
            (counts["topics"] == json!({ "t": 1 })).then_some(())
        })
        .await;
        assert_eq!(door.get("/healthz").await, json!("ok\n"));
        let ready = door.get("/readyz").await;
        assert_eq!((&ready["status"], &ready["node"]), (&json!("ready"), &json!("node-1")));
        assert!(ready["log"].is_string() && ready["canaryAgeSeconds"].is_number(), "{ready}");

        let others = [("GET", "/style.css"), ("GET", "/events"), ("POST", "/admin/nothing")];
        for (method, path) in ROUTES.into_iter().chain(others) {
            if OPERATORS_PATHS.contains(&path) {
                continue;
            }
            let answer = door.send(method, path, None).await;
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        }
        for spelling in ["/metrics/", "//metrics", "/metrics?x=1", "/readyz?x=1", "/x/../metrics"] {
            let answer = ask_as_is(door, spelling).await;
            assert!([400, 404].contains(&answer), "{spelling}: {answer}");
        }
        let answer = door.send("POST", "/metrics", Some(json!({}))).await;
        assert_eq!(answer.problem(405), "method-not-allowed");
        drop(streams);
    }
}

/// A client library would tidy the path up.
async fn ask_as_is(api: &Api, path: &str) -> u16 {
    let address = api.base.trim_start_matches("http://").parse().unwrap();
    ask(address, &[&format!("GET {path} HTTP/1.1"), "Host: localhost"], b"").await.status
}

#[tokio::test]
async fn on_loopback_a_page_whose_name_leads_to_the_door_learns_nothing_but_that_it_lives() {
    let node = Backend::Embedded.start(&[OPERATORS]).await;
    let door = node.operators().base.trim_start_matches("http://").parse().unwrap();
    for (path, status) in
        [("/metrics", 421), ("/admin/connections", 421), ("/nothing", 421), ("/healthz", 200)]
    {
        // Whatever the public is served for: nobody has set that for this door.
        let lines = [&format!("GET {path} HTTP/1.1"), "Host: attacker.example"];
        assert_eq!(ask(door, &lines, b"").await.status, status, "{path}");
        let lines =
            [&format!("POST {path} HTTP/1.1"), "Host: localhost", "Origin: https://evil.example"];
        assert_eq!(ask(door, &lines, b"").await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn the_door_stays_open_until_the_drain_is_over() {
    let mut node = Backend::Embedded.start(&[OPERATORS, ("FANTAIL_DRAIN", "10m")]).await.node;
    let stream = Stream::open(node.address, "/topics/t/events").await;
    node.terminate();
    until("it says that it drains", async || {
        let ready = node.operators().send("GET", "/readyz", None).await;
        (ready.status == 503).then(|| assert_eq!(ready.body["status"], "draining", "{ready:?}"))
    })
    .await;
    until("nobody else is let in", async || {
        tokio::net::TcpStream::connect(node.address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(node.operators().metric("fantail_connections", "").await, 1.0);
    drop(stream);
    assert_eq!(node.process.ended().await, Some(0));
}

#[tokio::test]
async fn who_holds_all_sockets_of_the_door_keeps_nobody_out() {
    let node = Backend::Embedded.start(&[OPERATORS]).await;
    let door: std::net::SocketAddr = node.operators().base[7..].parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(tokio::net::TcpStream::connect(door).await.unwrap());
    }
    within("an answer", node.operators().get("/readyz")).await;
    assert_eq!(node.send("GET", "/readyz", None).await.status, 200);
    drop(held);
}
