//! Redis away: streams are held, nothing is refused for good, and readiness is honest
//! (`docs/guarantees.md`, 6 and 8).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::process::free_port;
use crate::harness::{Node, OPERATORS, Redis, Stream, TIMEOUT, until, within};

#[tokio::test]
async fn a_node_without_its_redis_listens_holds_streams_and_says_why_it_is_not_ready() {
    // Nothing listens there yet.
    let mut redis = Redis::start().await;
    redis.kill();
    let settings = [("FANTAIL_HEARTBEAT", "200ms"), OPERATORS];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&redis.url()), &settings).await;
    assert_eq!(node.send("GET", "/healthz", None).await.status, 200);
    let ready = node.send("GET", "/readyz", None).await;
    assert_eq!((ready.status, &ready.body), (503, &json!({ "status": "not ready" })));
    until("it tells operators why", async || {
        let reason = node.operators().send("GET", "/readyz", None).await.body["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.contains("Redis")).then_some(())
    })
    .await;

    let asked_at = Instant::now();
    let mut board = Stream::request(node.address, "/boards/board-1/events", "").await;
    let mut topic = Stream::request(node.address, "/topics/t/events", "").await;
    let mut missing = Stream::request(node.address, "/boards/nope/events", "").await;
    assert!(asked_at.elapsed() < *TIMEOUT / 2, "{:?}", asked_at.elapsed());
    for stream in [&mut board, &mut topic, &mut missing] {
        assert_eq!(stream.status, 200);
        while stream.interpreter.comments.len() < 2 {
            assert!(within("a heartbeat", stream.more()).await);
        }
        assert!(stream.interpreter.events.is_empty());
    }
    let write = node.send("POST", "/tasks", Some(json!({ "title": "x", "listId": "list-todo" })));
    let write = write.await;
    assert_eq!(write.problem(503), "log-unavailable");
    assert!(!write.header("retry-after").is_empty());
    assert_eq!(node.get("/admin/connections").await["complete"], false);

    redis.restart().await;
    assert!(board.event().await.is_connected());
    assert!(topic.event().await.is_connected());
    // Now it is known that there is no such board: the client asks again and is told.
    missing.end().await;
    until("it is ready", async || {
        (node.send("GET", "/readyz", None).await.status == 200).then_some(())
    })
    .await;
    let (_, position) = node.create("task", "list-todo").await;
    assert_eq!(board.event().await.id, position);
    let id = node.publish("t", 1).await;
    assert_eq!(topic.event().await.id, id);
}

#[tokio::test]
async fn the_first_board_is_there_for_whoever_asks_first() {
    let redis = Redis::start().await;
    for n in 0..20 {
        // A node that has not looked at its empty Redis yet, or does so in this moment.
        let _: String = redis.ask(&["FLUSHALL"]).await;
        let id = format!("node-{n}");
        let node = Node::start_at(&id, "127.0.0.1:0", Some(&redis.url()), &[]).await;
        tokio::time::sleep(Duration::from_millis(n % 5)).await;
        Stream::open(node.address, "/boards/board-1/events").await;
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_with_its_disk_has_lost_nothing_and_nobody_is_reset() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
    let (_, before) = node.create("before", "list-todo").await;
    assert_eq!(stream.event().await.id, before);

    redis.kill();
    let asked_at = Instant::now();
    let write = node.send("POST", "/tasks", Some(json!({ "title": "x", "listId": "list-todo" })));
    assert_eq!(write.await.status, 503);
    assert!(asked_at.elapsed() < *TIMEOUT / 2, "{:?}", asked_at.elapsed());
    // Who comes meanwhile is let in, from the tail that the node still has.
    let mut late = Stream::request(node.address, "/boards/board-1/events", "").await;
    assert_eq!(late.status, 200);
    redis.restart().await;

    let position = until("writes work again", async || {
        let body = json!({ "title": "after", "listId": "list-todo" });
        let answer = node.send("POST", "/tasks", Some(body)).await;
        (answer.status == 201).then(|| answer.position())
    })
    .await;
    let event = stream.event().await;
    assert_eq!((event.kind.as_str(), event.id.as_str()), ("task_created", position.as_str()));
    assert_eq!(event.seq(), 2, "numbers go on");
    assert_ne!(crate::harness::epoch(&position), crate::harness::epoch(&before), "a new epoch");
    assert!(late.event().await.is_connected());
    assert_eq!(late.event().await.id, position);
    // A position of the epoch before is exact to judge.
    let mut resumed = Stream::open_from(node.address, "/boards/board-1/events", &before).await;
    assert_eq!(resumed.event().await.id, position);
}

#[tokio::test]
async fn a_cut_subscription_is_mended_and_what_was_said_meanwhile_is_delivered() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    for n in 1..=100 {
        if n % 20 == 0 {
            let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        let id = node.publish("t", n).await;
        assert_eq!(stream.event().await.id, id);
    }
    assert!(node.metric("fantail_redis_reconnects_total", "").await >= 1.0);
}

#[tokio::test]
async fn a_short_outage_degrades_and_does_not_take_the_node_out() {
    let mut redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[OPERATORS]).await;
    redis.kill();
    let body = until("it is degraded", async || {
        let ready = node.operators().send("GET", "/readyz", None).await;
        assert_eq!(ready.status, 200, "{ready:?}");
        (ready.body["status"] == "degraded").then_some(ready.body)
    })
    .await;
    assert!(body["canaryAgeSeconds"].as_f64().unwrap() > 3.0);
    assert!(body["reason"].as_str().is_some());
    assert!(node.metric("fantail_ready", "").await == 1.0);
    assert!(node.metric("fantail_canary_age_seconds", "").await > 3.0);
}

#[tokio::test]
async fn an_address_without_a_redis_is_told_in_the_log_and_drains_all_the_same() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let settings = [("FANTAIL_DRAIN", "200ms")];
    let mut node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
    let mut held = Stream::request(node.address, "/topics/t/events", "").await;
    node.terminate();
    within("the end", held.end()).await;
    assert_eq!(node.process.ended().await, Some(0));
    until("it has said why", async || {
        node.log().iter().any(|line| line.contains("not hearing announcements")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_redis_hangs_streams_of_many_boards_are_held_too() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[("FANTAIL_HEARTBEAT", "300ms")]).await;
    for n in 0..60 {
        let body = json!({ "id": format!("b{n}"), "name": "b" });
        assert_eq!(node.send("POST", "/boards", Some(body)).await.status, 201);
    }
    let boards: Vec<String> = (0..60).map(|n| format!("b{n}")).collect();
    let path = format!("/events?boards={}", boards.join(","));
    redis.freeze();
    let asked_at = Instant::now();
    let mut stream = within("a status", Stream::request(node.address, &path, "")).await;
    assert_eq!(stream.status, 200);
    assert!(asked_at.elapsed() < *TIMEOUT / 2, "{:?}", asked_at.elapsed());
    while stream.interpreter.comments.is_empty() {
        assert!(within("a heartbeat", stream.more()).await);
    }
    let write = node.send("POST", "/topics/t/events", Some(json!({ "data": 1 }))).await;
    assert_eq!(write.status, 503);
    redis.thaw();
    assert!(stream.event().await.is_connected());
    let list = json!({ "title": "list" });
    node.send("POST", "/boards/b7/lists", Some(list)).await;
    assert_eq!(stream.event().await.kind, "list_created");
}

#[tokio::test]
async fn a_redis_that_is_full_keeps_its_subscribers() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let write = node.send("POST", "/topics/t/events", Some(json!({ "data": 1 }))).await;
    assert_eq!(write.problem(503), "log-unavailable");
    assert!(write.body["detail"].as_str().unwrap().contains("nothing was changed"));
    until("it says that it is not well", async || {
        let ready = node.send("GET", "/readyz", None).await.body;
        (ready["status"] == "degraded").then_some(())
    })
    .await;
    assert_eq!(node.metric("fantail_redis_reconnects_total", "").await, 0.0);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let id = node.publish("t", 2).await;
    let event = stream.event().await;
    assert_eq!((event.seq(), event.id), (1, id));
}
