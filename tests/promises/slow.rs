//! Clients that do not read, or are gone without a word (`docs/guarantees.md`, 5).

use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::raw::leave_to_http_server;
use crate::harness::{Backend, Node, Stream, on_both_logs, until};

/// The entries before the slow client comes, and the last one.
const WARM_UP: u64 = 200;
const LAST: u64 = WARM_UP + 500;

/// A stream whose client takes little into its socket and reads nothing by itself.
async fn lazy_stream(node: &Node, path: &str) -> Stream {
    Stream::request_on(lazy_socket(node).await, node.address, path, "").await.unwrap()
}

async fn lazy_socket(node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(node.address).await.unwrap()
}

/// So many bytes of text that no encoding makes much smaller.
fn noise(bytes: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect()
}

on_both_logs! {
    async fn a_client_that_stops_reading_costs_the_others_nothing(backend: Backend) {
        // Publishing takes as long as it takes: nobody is given up over it.
        let settings = [("FANTAIL_HISTORY_SIZE", "100"), ("FANTAIL_WRITE_TIMEOUT", "10m")];
        let node = backend.start(&settings).await;
        let path = "/topics/t/events";
        let mut eager = Stream::open(node.address, path).await;
        let text = noise(64 << 10);
        // Until tail, history and allocator have what they keep anyway.
        for _ in 0..WARM_UP {
            let id = node.publish("t", text.clone()).await;
            assert_eq!(eager.event().await.id, id);
        }
        let mut lazy = lazy_stream(&node, path).await;
        let memory = node.process.anonymous_kib();
        // 32 MiB: far more than all socket buffers, the tail and the history hold.
        for _ in WARM_UP..LAST {
            let id = node.publish("t", text.clone()).await;
            assert_eq!(eager.event().await.id, id);
        }
        let grown = node.process.anonymous_kib().saturating_sub(memory);
        // A queue for the client would hold nearly all of it.
        assert!(grown < 16 << 10, "the node grew by {grown} KiB");

        // When it reads again it is told whenever it has lost something, and gets the rest.
        assert!(lazy.event().await.is_connected());
        let mut last = WARM_UP;
        let mut resets = 0;
        while last < LAST {
            let event = lazy.event().await;
            if event.kind == "reset" {
                assert_eq!(event.json()["reason"], "trimmed");
                assert!(event.seq() > last, "a reset to {} after {last}", event.seq());
                resets += 1;
            } else {
                assert_eq!(event.seq(), last + 1, "a hole or a twin");
            }
            last = event.seq();
        }
        assert!(resets > 0, "it cannot have got everything");
        println!("{resets} resets, {grown} KiB more");
    }

    async fn a_client_that_reads_again_in_time_misses_nothing(backend: Backend) {
        let settings = [("FANTAIL_HISTORY_SIZE", "2000"), ("FANTAIL_WRITE_TIMEOUT", "10m")];
        let node = backend.start(&settings).await;
        let mut lazy = lazy_stream(&node, "/topics/t/events").await;
        let text = noise(16 << 10);
        for _ in 0..1_200 {
            node.publish("t", text.clone()).await;
        }
        assert!(lazy.event().await.is_connected());
        for n in 1..=1_200 {
            assert_eq!(lazy.event().await.seq(), n);
        }
    }
}

#[tokio::test]
async fn a_client_that_never_reads_again_is_given_up() {
    let settings = [("FANTAIL_WRITE_TIMEOUT", "1s"), ("FANTAIL_HEARTBEAT", "200ms")];
    let node = Backend::Embedded.start(&settings).await;
    let lazy = lazy_stream(&node, "/topics/t/events").await;
    let mut eager = Stream::open(node.address, "/topics/t/events").await;
    let text = noise(64 << 10);
    for _ in 0..200 {
        node.publish("t", text.clone()).await;
        eager.event().await;
    }
    node.until_streams(1).await;
    assert_eq!(node.metric("fantail_connections_closed_total", "stalled").await, 1.0);
    drop(lazy);
}

#[tokio::test]
async fn counts_go_back_to_zero_however_clients_leave() {
    let settings = [("FANTAIL_WRITE_TIMEOUT", "1s"), ("FANTAIL_HEARTBEAT", "200ms")];
    let node = Backend::Embedded.start(&settings).await;
    let path = "/boards/board-1/events";
    let closed = Stream::open(node.address, path).await;
    let reset = Stream::open(node.address, path).await;
    let silent = Stream::open(node.address, path).await;
    node.until_streams(3).await;

    drop(closed);
    node.until_streams(2).await;

    socket2::SockRef::from(&reset.socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    node.until_streams(1).await;

    // Gone without a word: a filter in the kernel drops whatever arrives for this socket, so
    // nothing is acknowledged any more, as if the network had been cut.
    let drop_all = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    socket2::SockRef::from(&silent.socket).attach_filter(&drop_all).unwrap();
    node.until_streams(0).await;
    until("none of them is counted any more", async || {
        let counts = node.get("/admin/connections").await;
        (counts["total"] == 0 && counts["boards"] == json!({})).then_some(())
    })
    .await;
    drop(silent);
}

#[tokio::test]
async fn who_opens_a_socket_and_says_nothing_is_shown_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Backend::Embedded.start(&[]).await;
    let mut silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"GET /boards/board-1/ev").await.unwrap();
    let mut preface = tokio::net::TcpStream::connect(node.address).await.unwrap();
    preface.write_all(b"PRI * HT").await.unwrap();
    let mut end = Vec::new();
    for socket in [&mut silent, &mut half, &mut preface] {
        let read = crate::harness::within("the end", socket.read_to_end(&mut end)).await;
        assert!(read.is_err() || !end.starts_with(b"HTTP/1.1 2"));
    }
}

#[tokio::test]
async fn a_stream_that_is_behind_is_counted_as_slow_until_it_is_not() {
    let node = Backend::Embedded.start(&[("FANTAIL_HISTORY_SIZE", "2000")]).await;
    let mut lazy = lazy_stream(&node, "/topics/t/events").await;
    let text = noise(16 << 10);
    for _ in 0..600 {
        node.publish("t", text.clone()).await;
    }
    lazy.event().await;
    for n in 1..=600 {
        assert_eq!(lazy.event().await.seq(), n);
    }
    assert!(node.metric("fantail_replay_reads_total", "").await >= 1.0);
    until("nobody is slow any more", async || {
        (node.metric("fantail_slow_connections", "").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_that_are_behind_are_counted_while_they_are() {
    let node = Backend::Embedded.start(&[("FANTAIL_HISTORY_SIZE", "10000")]).await;
    let mut lazy = Vec::new();
    for path in ["/topics/t/events", "/events?topics=t,u"].repeat(5) {
        lazy.push(lazy_stream(&node, path).await);
        let mut socket = lazy_socket(&node).await;
        leave_to_http_server(&mut socket).await;
        lazy.push(Stream::request_on(socket, node.address, path, "").await.unwrap());
    }
    let text = noise(64 << 10);
    let slow = async |count: f64| {
        until(&format!("{count} streams are slow"), async || {
            (node.metric("fantail_slow_connections", "").await == count).then_some(())
        })
        .await;
    };
    // First as many as memory has for them, then so many that those who read on need the log.
    for published in [12, 28] {
        for _ in 0..published {
            node.publish("t", text.clone()).await;
        }
        slow(20.0).await;
    }
    // Who reads up is not slow any more.
    let mut eager: Vec<Stream> = lazy.drain(..4).collect();
    for (read, stream) in eager.iter_mut().enumerate() {
        while !stream.event().await.id.contains("40-") {}
        slow(19.0 - read as f64).await;
    }
    drop(lazy);
    node.until_streams(4).await;
    slow(0.0).await;
}
