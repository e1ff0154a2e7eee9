//! HTTP/2 beside HTTP/1.1 on the same port (h2c), many streams over one connection.

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::client::Interpreter;
use crate::harness::{Backend, on_both_logs, within};

on_both_logs! {
    async fn a_hundred_streams_share_one_connection(backend: Backend) {
        let node = backend.start(&[]).await;
        // Prior knowledge: no upgrade, frames from the first byte. One client has one connection.
        let client =
            reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
        let url = format!("{}/boards/board-1/events", node.base);
        let streams = join_all((0..100).map(|_| async {
            let response = client.get(&url).send().await.unwrap();
            assert_eq!(response.version(), reqwest::Version::HTTP_2);
            assert_eq!(response.status(), 200);
            let header = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header("content-type").unwrap(), "text/event-stream; charset=utf-8");
            // HTTP/2 forbids it.
            assert_eq!(header("connection"), None);
            (response.bytes_stream(), Interpreter::default())
        }))
        .await;
        node.until_streams(100).await;
        let sockets = node.sockets();
        assert!(sockets <= 4, "{sockets} sockets for a hundred streams");
        let written = client
            .post(format!("{}/tasks", node.base))
            .json(&json!({ "title": "task", "listId": "list-todo" }))
            .send()
            .await
            .unwrap();
        assert_eq!(written.status(), 201);
        let id = written.headers()["last-event-id"].to_str().unwrap();
        let heard = join_all(streams.into_iter().map(|(mut bytes, mut interpreter)| async move {
            while interpreter.events.len() < 2 {
                interpreter.feed(&bytes.next().await.unwrap().unwrap());
            }
            interpreter.events[1].clone()
        }));
        for event in within("every stream to hear", heard).await {
            assert_eq!((event.kind.as_str(), event.id.as_str()), ("task_created", id));
        }
        node.until_streams(0).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_left_unread_among_others_is_given_up() {
    let settings = [("FANTAIL_WRITE_TIMEOUT", "1s"), ("FANTAIL_HEARTBEAT", "200ms")];
    let node = Backend::Embedded.start(&settings).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let url = format!("{}/topics/t/events", node.base);
    let unread = client.get(&url).send().await.unwrap();
    let mut read = client.get(format!("{}/topics/u/events", node.base)).send().await.unwrap();
    node.until_streams(2).await;
    let reading = tokio::spawn(async move {
        let mut interpreter = Interpreter::default();
        while !interpreter.events.iter().any(|event| event.data == "still here") {
            interpreter.feed(&read.chunk().await.unwrap().unwrap());
        }
    });
    // More than its window takes; the other stream goes on reading its heartbeats.
    let text = "x".repeat(64 << 10);
    for _ in 0..100 {
        node.publish("t", text.clone()).await;
    }
    node.until_streams(1).await;
    assert_eq!(node.metric("fantail_connections_closed_total", "stalled").await, 1.0);
    // Its neighbour on the same connection notices nothing.
    node.publish("u", "still here").await;
    within("the other stream", reading).await.unwrap();
    drop(unread);
}

impl crate::harness::Node {
    /// Established TCP connections to the node's port.
    fn sockets(&self) -> usize {
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let established = table.lines().filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields[3] == "01"
        });
        established.count()
    }
}
