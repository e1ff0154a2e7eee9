//! Deploys are calm (`docs/guarantees.md`, 7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::nginx::Nginx;
use crate::harness::reconnecting_client::ReconnectingClient;
use crate::harness::{
    Api, Backend, Cluster, Node, Redis, Stream, on_both_logs, seq, until, within,
};

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
            let told = stream.interpreter.last_event_id.clone();
            (began_at.elapsed(), stream.interpreter.retry.unwrap(), told)
        }))
        .await;
        assert_eq!(node.node.process.ended().await, Some(0));
        let retries: std::collections::HashSet<u64> = ends.iter().map(|end| end.1).collect();
        assert!(ends.iter().all(|end| (1_000..=3_000).contains(&end.1)), "{ends:?}");
        assert!(retries.len() > 20, "jittered: {retries:?}");
        assert!(ends.iter().all(|end| end.2 == position), "{ends:?}");
        // Spread: each has its turn. A busy machine makes it later, never sooner, and hardly so late
        // that half of them end with the last sixth of the window.
        let mut times: Vec<f64> = ends.iter().map(|end| end.0.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        for (n, &time) in times.iter().enumerate() {
            let turn = 3.0 * n as f64 / times.len() as f64;
            assert!(time > turn - 0.2, "the {n}th ended after {time} s: {times:?}");
        }
        assert!(times[times.len() / 2] < 2.5, "{times:?}");
        until("it has said that it is drained", async || {
            node.log().iter().any(|line| line.contains("drained")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn while_draining_streams_go_on_and_new_connections_are_refused() {
    let mut cluster = Cluster::start(2, &[("FANTAIL_DRAIN", "20s")]).await;
    let address = cluster.nodes[0].address;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(address, "/topics/t/events").await);
    }
    // A connection from before the signal may still bring its request.
    let mut before = tokio::net::TcpStream::connect(address).await.unwrap();
    cluster.nodes[0].terminate();
    until("it no longer accepts", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    let id = cluster.nodes[1].publish("t", "while draining").await;
    let mut heard = 0;
    for stream in &mut streams {
        // One that had its turn before has ended.
        if let Some(event) = stream.next().await {
            assert_eq!(event.id, id);
            heard += 1;
        }
    }
    assert!(heard > 0);

    let body = json!({ "data": "by who had come before" }).to_string();
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
    }
    // Nobody is left to wait for.
    drop(streams);
    assert_eq!(cluster.nodes[0].process.ended().await, Some(0));
}

#[tokio::test]
async fn whoever_had_come_when_the_signal_came_is_answered() {
    let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "1s")]).await;
    // Stopped, it finds connections, requests and the signal all at once.
    node.node.process.signal(Signal::STOP);
    let mut sockets = Vec::new();
    for n in 0..40 {
        let mut socket = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let request = match n % 2 {
            0 => "GET /topics/t/events HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            _ => {
                let body = r#"{"data":"last"}"#;
                let length = body.len();
                format!(
                    "POST /topics/t/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )
            }
        };
        socket.write_all(request.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    node.node.terminate();
    node.node.process.signal(Signal::CONT);
    for (n, socket) in sockets.iter_mut().enumerate() {
        let mut answer = [0; 12];
        within("an answer", socket.read_exact(&mut answer)).await.unwrap();
        let status = std::str::from_utf8(&answer[9..]).unwrap();
        assert!(["200", "201", "503"].contains(&status), "{n}: {status}");
    }
    assert_eq!(node.node.process.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once_unless_it_comes_with_the_first() {
    let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "60s")]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let began_at = Instant::now();
    node.node.terminate();
    until("it drains", async || {
        node.log().iter().any(|line| line.contains("draining")).then_some(())
    })
    .await;
    // A terminal tells the whole process group, and a wrapper in it passes on what it was told.
    while !node.node.process.has_ended() {
        node.node.process.signal(rustix::process::Signal::INT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.node.process.ended().await, Some(0));
    let took = began_at.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    stream.end().await;
}

#[tokio::test]
async fn a_rolling_restart_behind_nginx_under_load_loses_nothing_and_reconnects_are_spread() {
    const SUBSCRIBERS: usize = 45;
    let settings =
        [("FANTAIL_DRAIN", "2s"), ("FANTAIL_RETRY", "400ms"), ("FANTAIL_HISTORY_SIZE", "100000")];
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for n in 1..=3 {
        nodes.push(Node::start(&format!("node-{n}"), Some(&redis), &settings).await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let nginx = Nginx::start(&addresses).await;
    let path = "/topics/t/events?from=earliest";
    let clients: Vec<ReconnectingClient> = (0..SUBSCRIBERS)
        .map(|_| ReconnectingClient::start(vec![nginx.http], 0, path, 1.0))
        .collect();

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (stop, api) = (stop.clone(), Api::keeping_alive(&format!("http://{}", nginx.http)));
        async move {
            // What was acknowledged, and what was not: a request whose connection broke may have
            // been carried out.
            let (mut acknowledged, mut unknown) = (Vec::new(), 0);
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let body = json!({ "data": format!("event {n}") });
                match api.try_send("POST", "/topics/t/events", Some(body)).await {
                    Ok(answer) if answer.status == 201 => {
                        let id = answer.body["id"].as_str().unwrap().to_owned();
                        acknowledged.push((id, format!("event {n}")));
                    }
                    _ => unknown += 1,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (acknowledged, unknown)
        }
    });
    until("everybody hears something", async || {
        clients.iter().all(|client| client.count() > 0).then_some(())
    })
    .await;

    let mut drains = Vec::new();
    for n in 0..3 {
        let began_at = Instant::now();
        nodes[n].terminate();
        assert_eq!(nodes[n].process.ended().await, Some(0));
        drains.push((began_at, Instant::now()));
        let listen = addresses[n].to_string();
        let id = format!("node-{}", n + 1);
        nodes[n] = Node::start_at(&id, &listen, Some(&redis.url()), &settings).await;
        until("it is ready again", async || {
            (nodes[n].send("GET", "/readyz", None).await.status == 200).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (acknowledged, unknown) = writing.await.unwrap();
    let last = acknowledged.iter().map(|(id, _)| seq(id)).max().unwrap();
    let (mut reconnects, mut told_to_come_back) = (Vec::new(), 0);
    for (n, client) in clients.iter().enumerate() {
        until(&format!("subscriber {n} has everything"), async || {
            (client.count() as u64 >= last).then_some(())
        })
        .await;
        let count = client.count() as u64;
        client.assert_complete(1, count);
        let account = client.account.lock().unwrap();
        assert!(account.refusals.is_empty(), "{:?}", account.refusals);
        for (id, data) in &acknowledged {
            let event = &account.events[seq(id) as usize - 1];
            assert_eq!((&event.id, &event.data), (id, data), "an acknowledged event is missing");
        }
        told_to_come_back += account.told_to_come_back;
        reconnects.extend(account.reconnects.iter().copied());
    }
    println!(
        "{} acknowledged, {unknown} unknown, {} delivered to each of {SUBSCRIBERS}, {} reconnects, \
         {told_to_come_back} of them in vain",
        acknowledged.len(),
        last,
        reconnects.len()
    );
    // Everybody was moved at least once, and never many in the same moment: over a drain of two
    // seconds, no quarter of a second sees half of its reconnects.
    for (began_at, ended_at) in drains {
        let mut quarters = vec![0; 40];
        let mut all = 0;
        for at in reconnects
            .iter()
            .filter(|&&at| at >= began_at && at <= ended_at + Duration::from_secs(1))
        {
            quarters[(((*at - began_at).as_millis() / 250) as usize).min(39)] += 1;
            all += 1;
        }
        assert!(all >= 5, "{all} reconnects in a drain");
        assert!(quarters.iter().all(|&quarter| quarter * 2 <= all), "{quarters:?}");
    }
}

#[tokio::test]
async fn when_no_node_is_left_nginx_tells_a_browser_to_come_back() {
    let settings = [("FANTAIL_DRAIN", "100ms")];
    let mut node = Backend::Embedded.start(&settings).await;
    let nginx = Nginx::start(&[node.address]).await;
    let mut stream = Stream::open(nginx.http, "/boards/board-1/events").await;
    let missing = Stream::request(nginx.http, "/boards/nope/events", "").await;
    assert_eq!(missing.status, 404, "what will never work is told as it is");
    node.node.terminate();
    stream.end().await;
    node.node.process.ended().await;
    let mut later = Stream::request(nginx.http, "/boards/board-1/events", "").await;
    assert_eq!(later.status, 200, "{}", later.head);
    assert!(later.head.contains("content-type: text/event-stream"), "{}", later.head);
    later.end().await;
    let retry = later.interpreter.retry.expect("it says when to come back");
    assert!((500..=10_000).contains(&retry), "{retry}");
    let write = Api::new(&format!("http://{}", nginx.http));
    let write = write.send("POST", "/tasks", Some(json!({ "title": "x", "listId": "list-todo" })));
    assert_eq!(write.await.status, 502, "writes see what is so");
}
