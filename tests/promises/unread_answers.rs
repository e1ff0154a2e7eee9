//! Answers that nobody reads: whatever is asked for, and however often, all of them together take no
//! more of the node's memory than the budget they come out of, and what is small for each connection.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Api, Backend, Node, Stream, until};

/// How many ask and do not read. Each answer is some hundred kilobytes or more: without a bound for all
/// of them together they would take far more than is allowed.
const READERS: usize = 200;

/// As much again as a budget may be held for what is made beyond it at the same moment, and what
/// connections, allocator and debug build take besides, in KiB.
fn allowed_kib(budget_mib: u64) -> u64 {
    (2 * budget_mib + 32) << 10
}

/// Asks, and takes next to nothing of the answer into its own kernel.
async fn ask_and_leave_unread(node: &Node, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(node.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Has many ask for this and read nothing. Returns them.
async fn are_bounded(node: &Node, path: &str, budget_mib: u64) -> Vec<TcpStream> {
    let before = node.process.anonymous_kib();
    let mut unread = Vec::new();
    for n in 0..READERS {
        let path = path.replace("{n}", &n.to_string());
        unread.push(ask_and_leave_unread(node, &path).await);
    }
    // The first have been answered as far as they may, and the others wait for them, for longer than
    // this takes.
    let began_at = Instant::now();
    let (mut last, mut steady) = (0, 0);
    while steady < 10 && began_at.elapsed() < Duration::from_secs(12) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = node.process.anonymous_kib();
        steady = if now > last + 256 { 0 } else { steady + 1 };
        last = last.max(now);
    }
    let taken = last.saturating_sub(before);
    let allowed = allowed_kib(budget_mib);
    assert!(taken < allowed, "{path}: {taken} KiB of {allowed} for {READERS} answers");
    unread
}

#[tokio::test]
async fn lists_of_boards_that_nobody_reads_are_bounded_in_all() {
    let node = Node::start("node-1", None, &[]).await;
    let api = Api::keeping_alive(&node.base);
    // 1,000 bytes of name each: two megabytes an answer.
    let name = "n".repeat(1_000);
    for n in 0..2_000 {
        let board = json!({ "id": format!("b{n}"), "name": name });
        assert_eq!(api.send("POST", "/boards", Some(board)).await.status, 201);
    }
    let unread = are_bounded(&node, "/boards", 48).await;
    // Others are served meanwhile, and whoever reads is as soon as those are gone.
    node.create("task", "list-todo").await;
    drop(unread);
    let boards = node.get("/boards").await;
    assert_eq!(boards.as_array().unwrap().len(), 2_001);
    // Those that waited, too, are made together: whether their readers are gone nobody can know.
    until("nothing is held", async || {
        (node.try_metric("fantail_budget_bytes", "").await.ok()? < 3e6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pages_of_history_and_replays_that_nobody_reads_are_bounded_in_all() {
    let node = Node::start("node-1", None, &[("FANTAIL_REACTORS", "1")]).await;
    let text = "x".repeat(500_000);
    for _ in 0..80 {
        node.publish("large", text.clone()).await;
    }
    // Each of another page, so that none is shared.
    let path = "/topics/large/history?after={n}&limit=3";
    let first = are_bounded(&node, path, 48).await;
    drop(first);
    let path = "/topics/large/events?lastEventId={n}";
    let streams = are_bounded(&node, path, 48).await;
    drop(streams);
    node.until_streams(0).await;
    assert_eq!(node.send("GET", "/topics/large/history?limit=1", None).await.status, 200);
}

#[tokio::test]
async fn what_operators_are_answered_and_do_not_read_is_bounded_in_all() {
    let node = Backend::Embedded.start(&[]).await;
    // 1,000 topics with long names are 200 KB in all, and as much again for the node.
    let mut streams = Vec::new();
    for group in 0..34 {
        let names: Vec<String> = (0..30).map(|n| format!("{:0>200}", group * 30 + n)).collect();
        let path = format!("/events?topics={}", names.join(","));
        streams.push(Stream::open(node.address, &path).await);
    }
    let path = "/admin/connections?limit=1000";
    until("all are in the view", async || {
        (node.get(path).await["topics"].as_object().unwrap().len() == 1_000).then_some(())
    })
    .await;
    let unread = are_bounded(&node, path, 16).await;
    // Who reads has to wait for those at most until they have had their time.
    drop(unread);
    assert_eq!(node.get(path).await["total"], 34);
}
