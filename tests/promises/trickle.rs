//! Readers that take a few bytes now and then cost the others next to nothing (promise 5): what is
//! held for them goes to those who wait for it within a quarter of the write timeout and a second.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Backend, Node, Stream, until};

const WRITE_TIMEOUT: &str = "20s";

/// A window of 5 s, a second until somebody looks, and a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// Readers that go on until they are dropped.
struct Trickle(JoinSet<()>);

impl Trickle {
    /// Another one, which takes 6 KiB a second of the answer to this request: far more than a stream
    /// needs not to be given up.
    async fn begin(&mut self, node: &Node, path: &str) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(node.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        self.0.spawn(async move {
            let mut bytes = [0; 1536];
            while socket.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }
}

async fn start(reactors: &str) -> Node {
    let settings = [("FANTAIL_WRITE_TIMEOUT", WRITE_TIMEOUT), ("FANTAIL_REACTORS", reactors)];
    Backend::Embedded.start(&settings).await.node
}

/// Everything that a client may need of the budget, or that went through the same door.
async fn everybody_else_is_served(node: &Node) {
    let began_at = Instant::now();
    let replay = async {
        let mut stream = Stream::open_from(node.address, "/topics/small/events", "3").await;
        assert_eq!(stream.event().await.seq(), 4);
    };
    let earliest = async {
        let mut stream = Stream::open(node.address, "/topics/small/events?from=earliest").await;
        assert_eq!(stream.event().await.seq(), 1);
    };
    let reset = async {
        let mut stream = Stream::open_from(node.address, "/topics/small/events", "3-zzzz").await;
        assert_eq!(stream.event().await.kind, "reset");
    };
    let snapshot = async {
        let path = "/boards/board-1/events?snapshot=true";
        let mut stream = Stream::open(node.address, path).await;
        assert_eq!(stream.event().await.kind, "snapshot");
    };
    let board = async {
        assert_eq!(node.get("/boards/board-1").await["id"], "board-1");
    };
    let history = async {
        let page = node.get("/topics/small/history").await;
        assert_eq!(page["entries"].as_array().unwrap().len(), 10);
    };
    let all = async { tokio::join!(replay, earliest, reset, snapshot, board, history) };
    tokio::time::timeout(SERVED_WITHIN, all).await.expect("somebody waits");
    println!("served after {:?}", began_at.elapsed());
}

async fn small_topic(node: &Node) {
    for n in 0..10 {
        node.publish("small", n).await;
    }
}

async fn readers_of_pages_that_trickle(reactors: &str) {
    let node = start(reactors).await;
    small_topic(&node).await;
    let text = "x".repeat(1_045_000);
    for _ in 0..50 {
        node.publish("large", text.clone()).await;
    }
    let mut trickle = Trickle(JoinSet::new());
    // Each keeps a page of its own, and all of them the whole budget.
    for n in 0..48 {
        trickle.begin(&node, &format!("/topics/large/events?lastEventId={n}")).await;
    }
    until("the budget is exhausted", async || {
        (node.metric("fantail_budget_bytes", "").await > 50_000_000.0).then_some(())
    })
    .await;
    // What is only kept in case is gone, and readers were there for longer than a window.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(node.metric("fantail_budget_bytes", "").await > 50_000_000.0);
    everybody_else_is_served(&node).await;
    until("one of them is given up", async || {
        let given_up = node.metric("fantail_connections_closed_total", "stalled").await;
        (given_up >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn readers_of_large_entries_that_trickle_do_not_starve_the_others() {
    readers_of_pages_that_trickle("1").await;
}

#[tokio::test]
async fn nor_do_they_where_the_http_server_carries_them() {
    readers_of_pages_that_trickle("0").await;
}

#[tokio::test]
async fn readers_of_a_large_board_that_trickle_do_not_starve_the_others() {
    let node = start("1").await;
    small_topic(&node).await;
    let board = json!({ "id": "large", "name": "Large", "lists": [{ "id": "l", "title": "L" }] });
    assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
    // Quotes are two bytes each in JSON.
    let title = "\"".repeat(1_000);
    for _ in 0..5_000 {
        node.create(&title, "l").await;
    }
    let mut trickle = Trickle(JoinSet::new());
    for n in 1..=4 {
        let paths = ["/boards/large/events?snapshot=true", "/boards/large"];
        trickle.begin(&node, paths[n % 2]).await;
        let held = n as f64 * 10_000_000.0;
        until("it is held", async || {
            (node.metric("fantail_budget_bytes", "").await > held).then_some(())
        })
        .await;
        // The next one reads another version.
        node.create("Another", "l").await;
    }
    let began_at = Instant::now();
    let whole = node.get("/boards/large");
    let whole = tokio::time::timeout(SERVED_WITHIN, whole).await.expect("it waits");
    assert_eq!(whole["lists"][0]["tasks"].as_array().unwrap().len(), 5_004);
    println!("the board came after {:?}", began_at.elapsed());
    everybody_else_is_served(&node).await;
}
