//! Streams that leave the HTTP server, and requests that must not: both ways say the same.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Backend, Node, Stream, on_both_logs, until, within};

const ON: [(&str, &str); 1] = [("FANTAIL_REACTORS", "2")];
const OFF: [(&str, &str); 1] = [("FANTAIL_REACTORS", "0")];

async fn until_parked(node: &Node, count: usize) {
    until(&format!("{count} streams are parked"), async || {
        (node.metric("fantail_parked_connections", "").await as usize == count).then_some(())
    })
    .await;
}

/// How many request heads were taken past the HTTP server.
async fn heads_taken(node: &Node) -> f64 {
    node.metric("fantail_request_heads_total", r#"outcome="taken""#).await
}

/// Sends these pieces, one after the other, and reads until `end` has come.
async fn exchange(address: SocketAddr, pieces: &[&str], end: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for (n, piece) in pieces.iter().enumerate() {
        if n > 0 {
            // Long enough for the first piece to be looked at by itself.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        socket.write_all(piece.as_bytes()).await.unwrap();
    }
    let mut received = Vec::new();
    within(&format!("{end:?} after {pieces:?}"), async {
        while !String::from_utf8_lossy(&received).contains(end) {
            assert!(socket.read_buf(&mut received).await.unwrap() > 0, "the node hung up");
        }
    })
    .await;
    String::from_utf8(received).unwrap()
}

on_both_logs! {
    async fn every_plain_stream_of_one_topic_is_parked(backend: Backend) {
        let node = backend.start(&ON).await;
        let mut streams = Vec::new();
        for n in 0..60 {
            let path = match n % 3 {
                0 => "/topics/t/events".to_owned(),
                1 => "/boards/board-1/events?snapshot=true".to_owned(),
                _ => format!("/events?topics=own-{n}"),
            };
            streams.push(Stream::open(node.address, &path).await);
        }
        until_parked(&node, 60).await;
        assert_eq!(node.metric("fantail_connections", "").await, 60.0);
        let several = Stream::open(node.address, "/events?topics=a,b").await;
        let id = node.publish("t", 1).await;
        for stream in streams.iter_mut().step_by(3) {
            assert_eq!(stream.event().await.id, id);
        }
        drop((streams, several));
        node.until_streams(0).await;
        until_parked(&node, 0).await;
    }

    async fn a_parked_stream_goes_to_the_log_and_comes_back(backend: Backend) {
        let settings = [&ON[..], &[("FANTAIL_HISTORY_SIZE", "3000")]].concat();
        let node = backend.start(&settings).await;
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        until_parked(&node, 1).await;
        // More than its socket and its topic's tail hold.
        let text = "x".repeat(20 << 10);
        for _ in 0..1_000 {
            node.publish("t", text.clone()).await;
        }
        for n in 1..=1_000 {
            assert_eq!(stream.event().await.seq(), n);
        }
        assert!(node.metric("fantail_replay_reads_total", "").await > 0.0);
        until_parked(&node, 1).await;
        let id = node.publish("t", "after").await;
        assert_eq!(stream.event().await.id, id);
    }
}

#[tokio::test]
async fn both_ways_say_the_same() {
    let mut said = Vec::new();
    for settings in [ON, OFF] {
        let node = Backend::Embedded.start(&settings).await;
        let mut heads = Vec::new();
        for (path, headers) in [
            ("/topics/t/events", ""),
            ("/boards/board-1/events", "Origin: http://a.example\r\n"),
            ("/events?topics=a,b&boards=board-1", "Last-Event-ID: x\r\n"),
            ("/boards/nope/events", ""),
            ("/events", ""),
            ("/topics/a%20b/events", ""),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            let head = exchange(node.address, &[&request], "\r\n\r\n").await;
            let head = head.split_once("\r\n\r\n").unwrap().0.to_owned();
            let lines = head.lines().filter(|line| !line.starts_with("date: "));
            heads.push(lines.map(str::to_owned).collect::<Vec<_>>());
        }
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        for n in 0..5 {
            node.publish("t", json!({ "n": n })).await;
        }
        let events = stream.events(5).await;
        let events: Vec<_> = events.iter().map(|e| (e.seq(), e.data.clone())).collect();
        said.push((heads, events, stream.interpreter.retry));
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test]
async fn what_is_no_ordinary_request_for_a_stream_is_for_the_http_server() {
    // The HTTP server finds out by a heartbeat that the peer of a pipelined request is gone.
    let settings = [&ON[..], &[("FANTAIL_HEARTBEAT", "200ms")]].concat();
    let node = Backend::Embedded.start(&settings).await;
    let hello = r#""type":"connected""#;
    let path = "/topics/t/events";
    for (pieces, end) in [
        // In pieces, and byte by byte at its end.
        (vec!["GET /topics/t/ev", "ents HTTP/1.1\r\nHost: a\r\n\r\n"], hello),
        (vec!["GET /topics/t/events HTTP/1.1\r\nHost: a\r\n\r", "\n"], hello),
        // Something comes with it, or it is to be the last.
        (
            vec!["GET /topics/t/events HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"],
            hello,
        ),
        (vec!["GET /topics/t/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"], hello),
        (vec!["GET /topics/t/events HTTP/1.0\r\n\r\n"], hello),
        (vec!["GET /topics/t/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"], hello),
        (vec!["HEAD /topics/t/events HTTP/1.1\r\nHost: a\r\n\r\n"], "200 OK"),
        (vec!["GET /topics/t/events?from=nowhen HTTP/1.1\r\nHost: a\r\n\r\n"], "400 Bad Request"),
        (vec!["GET /topics/t/events HTTP/1.1\r\nHost : a\r\n\r\n"], "400 Bad Request"),
        (vec!["GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"], "ok"),
        // The connection can be used again after an answer that is no stream.
        (
            vec![
                "GET /boards/nope/events HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            ],
            "\r\n\r\nok",
        ),
    ] {
        exchange(node.address, &pieces, end).await;
        assert_eq!(heads_taken(&node).await, 0.0, "{pieces:?}");
    }
    node.until_streams(0).await;

    // What a client says after it has asked is not heard, and does no harm.
    let mut chatty = Stream::open(node.address, path).await;
    until_parked(&node, 1).await;
    assert_eq!(heads_taken(&node).await, 1.0);
    chatty.socket.write_all(&[b'x'; 10_000]).await.unwrap();
    let id = node.publish("t", 1).await;
    assert_eq!(chatty.event().await.id, id);
    drop(chatty);
    node.until_streams(0).await;
}

#[tokio::test]
async fn refused_streams_are_counted_once() {
    let node = Backend::Embedded.start(&ON).await;
    for _ in 0..5 {
        Stream::request(node.address, "/boards/nope/events", "").await;
    }
    let labels = r#"route="/boards/{board}/events",method="GET",status="404""#;
    assert_eq!(node.metric("fantail_requests_total", labels).await, 5.0);
}

#[tokio::test]
async fn a_head_that_comes_after_its_connection_is_taken_all_the_same() {
    let node = Backend::Embedded.start(&ON).await;
    let mut late = TcpStream::connect(node.address).await.unwrap();
    // Connections are accepted in their order: the node has looked at the first one by now.
    for _ in 0..3 {
        Stream::open(node.address, "/topics/t/events").await;
    }
    let taken = async || node.metric("fantail_request_heads_total", r#"outcome="taken""#).await;
    let before = taken().await;
    late.write_all(b"GET /topics/t/events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until("the late head is taken", async || (taken().await > before).then_some(())).await;
}
