//! HTTP/2 beside HTTP/1.1 on the same port (h2c), many streams over one connection.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::Interpreter;
use crate::harness::{Backend, on_both_logs, until, within};

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

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, stream: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, low] = (contents.len() as u32).to_be_bytes();
    [&[0, high, low, kind, 0, 0, 0, 0, stream][..], contents].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PRIORITY: u8 = 2;
const PING: u8 = 6;

/// A connection of HTTP/2, after the preface.
async fn connect(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    socket
}

#[tokio::test]
async fn a_connection_that_sends_too_many_frames_that_carry_nothing_is_ended() {
    let node = Backend::Embedded.start(&[]).await;
    let unknown = frame(0x42, 0, b"whatever");
    let priority = frame(PRIORITY, 1, &[0, 0, 0, 3, 16]);
    let ping = frame(PING, 0, &[7; 8]);
    for frame in [&unknown, &priority, &ping] {
        // Some thousands are no matter.
        let mut socket = connect(node.address).await;
        let (mut reading, mut writing) = socket.split();
        let mut answers = Vec::new();
        let swallow = async {
            let mut part = [0; 16 << 10];
            while let Ok(count @ 1..) = reading.read(&mut part).await {
                answers.extend_from_slice(&part[..count]);
            }
        };
        let send = async {
            writing.write_all(&frame.repeat(3_000)).await.unwrap();
            // GET /healthz, in the static table but for the path (RFC 7541).
            let head = b"\x82\x86\x44\x08/healthz\x41\x09localhost";
            let mut request = self::frame(1, 1, head);
            request[4] = 0x5;
            writing.write_all(&request).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            // And then without end.
            let many = frame.repeat(1_000);
            while writing.write_all(&many).await.is_ok() {}
        };
        within("the end", async { tokio::join!(swallow, send) }).await;
        assert!(answers.windows(2).any(|two| two == b"ok"), "the request was not answered");
    }
    assert_eq!(node.metric("fantail_http2_connections_ended_total", "frames").await, 3.0);
    let told = node.log().iter().filter(|line| line.contains("carry nothing")).count();
    assert_eq!(told, 1, "{:#?}", node.log());
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_their_connection_and_few_lines_say_so() {
    let node = Backend::Embedded.start(&[]).await;
    for _ in 0..5 {
        let mut socket = connect(node.address).await;
        let mut many = Vec::new();
        for n in 0..2_000_u32 {
            let id = (2 * n + 1).to_be_bytes();
            let head = b"\x82\x86\x44\x08/healthz\x41\x09localhost";
            for (kind, flags, contents) in [(1, 0x5, &head[..]), (3, 0, &[0, 0, 0, 8])] {
                many.extend_from_slice(&[0, 0, contents.len() as u8, kind, flags]);
                many.extend_from_slice(&id);
                many.extend_from_slice(contents);
            }
        }
        let _ = socket.write_all(&many).await;
        let _ = within("the end", socket.read_to_end(&mut Vec::new())).await;
    }
    let ended = async || node.metric("fantail_http2_connections_ended_total", "").await;
    until("they are counted", async || (ended().await >= 5.0).then_some(())).await;
    let lines = node.log();
    assert!(lines.iter().filter(|line| line.contains("WARN")).count() <= 1, "{lines:#?}");
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
