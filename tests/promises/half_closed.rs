//! Clients that send no more and still read (`shutdown(SHUT_WR)`), and clients that are gone.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::raw::{leave_to_http_server, parse_answer, read_answer};
use crate::harness::{Backend, Node, Stream, on_both_logs, takes_less_than, within};

/// Streams of one topic and of several, as the first request on a connection and as the second: a
/// reactor carries the first, where there are any, and the HTTP server the second.
async fn all_kinds(node: &Node) -> Vec<Stream> {
    let mut streams = Vec::new();
    for path in ["/topics/t/events", "/events?topics=t,u"] {
        streams.push(Stream::open(node.address, path).await);
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        leave_to_http_server(&mut socket).await;
        let mut second = Stream::request_on(socket, node.address, path, "").await.unwrap();
        assert!(second.event().await.is_connected());
        streams.push(second);
    }
    node.until_streams(streams.len()).await;
    streams
}

/// A request to publish, whole or in chunks.
fn publication(data: &str, in_chunks: bool) -> String {
    let body = format!(r#"{{"data":"{data}"}}"#);
    let (length, body) = match in_chunks {
        false => (format!("Content-Length: {}", body.len()), body),
        true => {
            let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            ("Transfer-Encoding: chunked".to_owned(), body)
        }
    };
    format!(
        "POST /topics/t/events HTTP/1.1\r\nHost: a\r\n\
         Content-Type: application/json\r\n{length}\r\n\r\n{body}"
    )
}

/// The statuses of the answers to these bytes, after which nothing is sent.
async fn statuses(node: &Node, bytes: &str) -> Vec<u16> {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut received = Vec::new();
    within("the answers", socket.read_to_end(&mut received)).await.unwrap();
    let mut statuses = Vec::new();
    while !received.is_empty() {
        let text = String::from_utf8_lossy(&received).into_owned();
        let answer = parse_answer(&received, true);
        let answer = answer.unwrap_or_else(|| panic!("half an answer: {text:?}"));
        statuses.push(answer.status);
        let head = text.find("\r\n\r\n").unwrap() + 4;
        let body =
            answer.headers.get("content-length").map_or("0", |value| value.to_str().unwrap());
        received.drain(..head + body.parse::<usize>().unwrap());
    }
    statuses
}

on_both_logs! {
    async fn a_stream_goes_on_for_a_client_that_sends_no_more(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut streams = all_kinds(&node).await;
        for stream in &mut streams {
            stream.socket.shutdown().await.unwrap();
        }
        for n in 0..3 {
            let id = node.publish("t", n).await;
            for stream in &mut streams {
                assert!(stream.event().await.id.contains(&id));
            }
        }
        // The heartbeat that finds out whether a client is there is nothing that would end it.
        for stream in &mut streams {
            while stream.interpreter.comments.is_empty() {
                assert!(within("a heartbeat", stream.more()).await);
            }
        }
        let id = node.publish("t", "last").await;
        for stream in &mut streams {
            assert!(stream.event().await.id.contains(&id));
        }
    }

    async fn a_client_that_is_gone_is_noticed_long_before_the_next_heartbeat(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "60s")]).await;
        takes_less_than(Duration::from_secs(4), async || {
            let streams = all_kinds(&node).await;
            let gone_at = Instant::now();
            drop(streams);
            node.until_streams(0).await;
            gone_at.elapsed()
        })
        .await;
    }

    async fn a_client_that_broke_off_is_noticed_at_once(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "60s")]).await;
        takes_less_than(Duration::from_millis(500), async || {
            let streams = all_kinds(&node).await;
            let gone_at = Instant::now();
            for stream in streams {
                let socket = socket2::SockRef::from(&stream.socket);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            node.until_streams(0).await;
            gone_at.elapsed()
        })
        .await;
    }

    async fn a_client_that_sent_no_more_and_is_gone_is_noticed_by_the_heartbeats(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "300ms")]).await;
        let mut streams = all_kinds(&node).await;
        for stream in &mut streams {
            stream.socket.shutdown().await.unwrap();
        }
        let id = node.publish("t", 1).await;
        for stream in &mut streams {
            assert!(stream.event().await.id.contains(&id));
        }
        drop(streams);
        node.until_streams(0).await;
    }

    async fn a_request_is_answered_to_a_client_that_sends_no_more(backend: Backend) {
        let node = backend.start(&[]).await;
        for in_chunks in [false, true] {
            assert_eq!(statuses(&node, &publication("last words", in_chunks)).await, [201]);
        }
        let board = "GET /boards/board-1 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(statuses(&node, board).await, [200]);
        let old = "GET /healthz HTTP/1.0\r\n\r\n";
        assert_eq!(statuses(&node, old).await, [200]);
    }

    async fn all_requests_before_the_end_are_answered(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut requests: String =
            (0..5).map(|n| publication(&n.to_string(), n % 2 == 0)).collect();
        requests += "GET /boards/board-1 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(statuses(&node, &requests).await, [201, 201, 201, 201, 201, 200]);
    }

    async fn half_a_request_writes_nothing(backend: Backend) {
        let node = backend.start(&[]).await;
        for in_chunks in [false, true] {
            let whole = publication("half", in_chunks);
            let half = &whole[..whole.len() - 10];
            assert_eq!(statuses(&node, half).await, [400], "{half:?}");
        }
        assert_eq!(node.get("/topics/t/history").await["entries"], json!([]));
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_nothing_is_closed_with_its_client() {
    let node = Backend::Embedded.start(&[]).await;
    takes_less_than(Duration::from_millis(500), async || {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut socket).await.status, 200);
        let done_at = Instant::now();
        socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within("the end", socket.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        done_at.elapsed()
    })
    .await;
}
