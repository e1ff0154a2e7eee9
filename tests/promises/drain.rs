//! Deploys are calm (promise 7).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Backend, Stream, on_both_logs, until};

on_both_logs! {
    async fn a_draining_node_ends_its_streams_spread_over_the_window(backend: Backend) {
        let settings = [("FANTAIL_DRAIN", "3s"), ("FANTAIL_RETRY", "2s")];
        let mut node = backend.start(&settings).await;
        let (_, position) = node.create("task", "list-todo").await;
        let mut streams = Vec::new();
        for _ in 0..60 {
            let path = "/boards/board-1/events?from=earliest";
            streams.push(Stream::open(node.address, path).await);
        }
        let began_at = Instant::now();
        node.node.terminate();
        let ends = futures_util::future::join_all(streams.iter_mut().map(|stream| async move {
            stream.end().await;
            (began_at.elapsed(), stream.interpreter.retry.unwrap(), stream.last_event_id().to_owned())
        }))
        .await;
        assert_eq!(node.node.process.ended().await, Some(0));
        let retries: std::collections::HashSet<u64> = ends.iter().map(|end| end.1).collect();
        assert!(ends.iter().all(|end| (1_000..=3_000).contains(&end.1)), "{ends:?}");
        assert!(retries.len() > 20, "jittered: {retries:?}");
        assert!(ends.iter().all(|end| end.2 == position), "{ends:?}");
        // Spread: no half second of the window ends more than twice its share.
        let mut halves = [0; 8];
        for (at, ..) in &ends {
            halves[((at.as_secs_f64() * 2.0) as usize).min(7)] += 1;
        }
        assert!(halves.iter().all(|&half| half <= 20), "{halves:?}");
        assert!(ends.iter().all(|end| end.0 < Duration::from_secs(5)), "{ends:?}");
        assert!(node.log().iter().any(|line| line.contains("drained")), "{:?}", node.log());
    }
}

#[tokio::test]
async fn while_draining_streams_go_on_and_new_connections_are_refused() {
    let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "2s")]).await;
    // One stream would end in the middle of the window: a second one keeps the first longer.
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(node.address, "/topics/t/events").await);
    }
    // A connection from before the signal may still bring its request.
    let mut before = tokio::net::TcpStream::connect(node.address).await.unwrap();
    node.node.terminate();
    until("it no longer accepts", async || {
        tokio::net::TcpStream::connect(node.address).await.is_err().then_some(())
    })
    .await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let body = json!({ "data": "while draining" }).to_string();
    let request = format!(
        "POST /topics/t/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // It was idle and may have been closed; if its request was taken, it was answered.
    let sent = before.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = before.read_to_end(&mut answer).await;
    if sent.is_ok() && read.is_ok() && !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        let mut heard = 0;
        for stream in &mut streams {
            heard += usize::from(stream.next().await.is_some());
        }
        assert!(heard > 0);
    }
    for stream in &mut streams {
        stream.end().await;
    }
    assert_eq!(node.node.process.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "60s")]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let began_at = Instant::now();
    node.node.terminate();
    until("it drains", async || {
        node.log().iter().any(|line| line.contains("draining")).then_some(())
    })
    .await;
    node.node.process.signal(rustix::process::Signal::INT);
    assert_eq!(node.node.process.ended().await, Some(0));
    assert!(began_at.elapsed() < Duration::from_secs(10));
    stream.end().await;
}
