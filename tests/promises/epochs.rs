//! Positions that tell the oracle after Redis was replaced, flushed or went back in time.

use serde_json::json;

use crate::harness::{Cluster, Node, OPERATORS, Redis, Stream, epoch, seq, until};

#[tokio::test]
async fn after_a_flush_everybody_is_told_and_a_new_log_begins() {
    let cluster = Cluster::start(2, &[]).await;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let path = "/boards/board-1/events?snapshot=true";
    let mut board = Stream::open(a.address, path).await;
    assert_eq!(board.event().await.kind, "snapshot");
    let mut topic = Stream::open(b.address, "/topics/t/events").await;
    for n in 0..5 {
        a.create(&n.to_string(), "list-todo").await;
        a.publish("t", n).await;
    }
    board.events(5).await;
    topic.events(5).await;
    let left_at = topic.last_event_id().to_owned();

    let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
    // Without anybody writing anything: the audit finds it.
    let reset = board.event().await;
    assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &json!("lost")));
    let snapshot = board.event().await;
    assert_eq!(snapshot.kind, "snapshot");
    assert_eq!(snapshot.json()["lists"][0]["tasks"], json!([]));
    let reset = topic.event().await;
    assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &json!("lost")));
    assert_ne!(epoch(&reset.id), epoch(&left_at));

    let id = b.publish("t", "new").await;
    assert_eq!(seq(&id), 1);
    assert_eq!(topic.event().await.id, id);
    let mut returned = Stream::open_from(a.address, "/topics/t/events", &left_at).await;
    assert_eq!(returned.event().await.kind, "reset");
    assert_eq!(returned.event().await.id, id);
}

#[tokio::test]
async fn a_failover_that_lost_the_last_writes_resets_exactly_those_who_saw_them() {
    // A replica that stops hearing from its master and then takes over.
    let mut master = Redis::start().await;
    let port = master.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let before = Node::start("before", Some(&master), &[]).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(before.publish("t", n).await);
    }
    until("the replica has them", async || {
        let seq: Option<u64> = replica.ask(&["GET", "fantail:{t}:seq"]).await;
        (seq == Some(10)).then_some(())
    })
    .await;
    let _: String = replica.ask(&["REPLICAOF", "NO", "ONE"]).await;
    // The deposed master goes on for five more; nobody else will ever know them.
    for n in 10..15 {
        ids.push(before.publish("t", n).await);
    }
    master.kill();

    let after = Node::start("after", Some(&replica), &[]).await;
    let path = "/topics/t/events";
    let mut news = Vec::new();
    for n in 0..8 {
        news.push(after.publish("t", json!({ "new": n })).await);
    }
    assert_eq!(seq(&news[0]), 11, "numbers go on from what is left");
    assert_ne!(epoch(&news[0]), epoch(&ids[0]));
    for (n, id) in ids.iter().enumerate() {
        let mut stream = Stream::open_from(after.address, path, id).await;
        let next = stream.event().await;
        if n < 10 {
            // Nothing that this client saw was lost.
            assert_eq!(next.kind, "message", "after {id}: {next:?}");
            assert_eq!(next.seq(), n as u64 + 2);
        } else {
            assert_eq!(next.kind, "reset", "after {id}: {next:?}");
            assert_eq!(next.json()["reason"], "lost");
            assert_eq!(next.json()["from"], *id);
        }
    }
}

#[tokio::test]
async fn keys_that_vanish_one_by_one_lose_nothing_in_silence() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    for (key, kind_of_the_current, kind_of_the_old) in [
        // Numbers and epochs can be had from the log, and the log from nowhere.
        ("seq", "message", "message"),
        ("log", "message", "reset"),
        ("meta", "message", "message"),
    ] {
        // Nobody watched this topic yet: the node has no tail that could fill the gap.
        let topic = format!("without-{key}");
        let path = format!("/topics/{topic}/events");
        let old = node.publish(&topic, 1).await;
        let current = node.publish(&topic, 2).await;
        let _: u64 = cluster.redis.ask(&["DEL", &format!("fantail:{{{topic}}}:{key}")]).await;
        let id = node.publish(&topic, 3).await;
        assert_eq!(seq(&id), 3, "{topic}");
        assert_ne!(epoch(&id), epoch(&current), "{topic}");
        for (from, kind) in [(&current, kind_of_the_current), (&old, kind_of_the_old)] {
            let mut stream = Stream::open_from(node.address, &path, from).await;
            let next = stream.event().await;
            assert_eq!(next.kind, kind, "{topic}, from {from}: {next:?}");
        }
    }
}

#[tokio::test]
async fn a_subscriber_stays_connected_through_every_missing_key() {
    let cluster = Cluster::start(2, &[]).await;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let mut stream = Stream::open(a.address, "/topics/t/events").await;
    let first = b.publish("t", 0).await;
    assert_eq!(stream.event().await.id, first);
    for key in ["seq", "log", "meta"] {
        let _: u64 = cluster.redis.ask(&["DEL", &format!("fantail:{{t}}:{key}")]).await;
        let id = b.publish("t", key).await;
        let event = stream.event().await;
        assert_eq!((event.kind.as_str(), &event.id), ("message", &id), "{event:?}");
    }
}

#[tokio::test]
async fn a_log_that_outlived_many_reigns_is_read_to_its_end_by_everybody() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    let meta = "fantail:{t}:meta";
    let mut ids = Vec::new();
    for n in 0..600 {
        ids.push(node.publish("t", n).await);
        // As if another Redis had taken over, every other time.
        let known: String = cluster.redis.ask(&["GET", meta]).await;
        let mut words: Vec<&str> = known.split(' ').collect();
        words[1] = if n % 2 == 0 { words[1] } else { "another" };
        cluster.redis.ask::<String>(&["SET", meta, &words.join(" ")]).await;
    }
    for vanishes in [false, true] {
        if vanishes {
            let _: u64 = cluster.redis.ask(&["DEL", meta]).await;
            ids.push(node.publish("t", "without a memory").await);
        }
        let newest = ids.last().unwrap();
        let mut earliest = Stream::open(node.address, "/topics/t/events?from=earliest").await;
        let told = earliest.until_id(newest).await;
        assert!(told.iter().all(|event| event.kind == "message"), "{told:?}");
        assert!(told.len() >= 510, "256 epochs of two entries: {}", told.len());
        let mut oldest = Stream::open_from(node.address, "/topics/t/events", &ids[0]).await;
        let told = oldest.until_id(newest).await;
        let resets = told.iter().filter(|event| event.kind == "reset").count();
        assert_eq!((resets, told[0].kind.as_str()), (1, "reset"), "{told:?}");
        for id in ids[ids.len() - 500..ids.len() - 1].iter().step_by(7) {
            let mut resumed = Stream::open_from(node.address, "/topics/t/events", id).await;
            assert_eq!(resumed.event().await.seq(), seq(id) + 1);
        }
    }
}

#[tokio::test]
async fn a_log_that_went_back_and_forth_two_hundred_times_resets_nobody_who_can_go_on() {
    let cluster = Cluster::start(1, &[("FANTAIL_HISTORY_SIZE", "100")]).await;
    let node = &cluster.nodes[0];
    for (topic, turns) in [("twenty", 20), ("many", 200)] {
        let meta = format!("fantail:{{{topic}}}:meta");
        let mut ids = vec![node.publish(topic, "first").await];
        for n in 0..turns {
            // As if the slot had been with another master, which somebody wrote to every other time.
            let known: String = cluster.redis.ask(&["GET", &meta]).await;
            let mut words: Vec<&str> = known.split(' ').collect();
            words[1] = "another";
            cluster.redis.ask::<String>(&["SET", &meta, &words.join(" ")]).await;
            if n % 2 == 0 {
                ids.push(node.publish(topic, n).await);
            } else {
                node.get(&format!("/topics/{topic}/history")).await;
                drop(Stream::open(node.address, &format!("/topics/{topic}/events")).await);
            }
        }
        let path = format!("/topics/{topic}/events");
        // The history has a hundred entries, so whoever has one of the last hundred and one can go on.
        let (gone, kept) = ids.split_at(ids.len().saturating_sub(101));
        for (id, next) in kept.iter().zip(&kept[1..]) {
            let mut resumed = Stream::open_from(node.address, &path, id).await;
            assert_eq!(resumed.event().await.id, *next, "after {id}");
        }
        for id in gone {
            let mut resumed = Stream::open_from(node.address, &path, id).await;
            assert_eq!(resumed.event().await.json()["reason"], "trimmed", "after {id}");
        }
    }
}

#[tokio::test]
async fn after_a_flush_nobody_is_sent_entries_of_the_log_that_was() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    for round in 0..5 {
        let topic = format!("t{round}");
        let path = format!("/topics/{topic}/events?from=earliest");
        for n in 0..5 {
            node.publish(&topic, n).await;
        }
        // Read from the log: the page stays in the node's memory for a while.
        let mut stream = Stream::open(node.address, &path).await;
        stream.events(5).await;
        let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
        let id = node.publish(&topic, "new").await;
        let reset = stream.event().await;
        assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &json!("lost")));
        let next = stream.event().await;
        assert_eq!((next.data.as_str(), &next.id), ("new", &id));
        stream.silent_for(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_read_only_redis_is_no_redis_to_be_ready_with() {
    let cluster = Cluster::start(1, &[OPERATORS]).await;
    let node = &cluster.nodes[0];
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let master = Redis::start().await;
    let port = master.port().to_string();
    let _: String = cluster.redis.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    let body = until("it says that it is not well", async || {
        let ready = node.operators().send("GET", "/readyz", None).await.body;
        (ready["status"] == "degraded").then_some(ready)
    })
    .await;
    assert!(body["reason"].as_str().unwrap().contains("read only"), "{body}");
    let write = node.send("POST", "/topics/t/events", Some(json!({ "data": 1 }))).await;
    assert_eq!(write.problem(503), "log-unavailable");
    let _: String = cluster.redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
    let id = until("it takes writes again", async || {
        let answer = node.send("POST", "/topics/t/events", Some(json!({ "data": "again" }))).await;
        (answer.status == 201).then(|| answer.position())
    })
    .await;
    // What the other master had, nothing, is now the log: told as a loss if anything was seen.
    let mut event = stream.event().await;
    if event.kind == "reset" {
        event = stream.event().await;
    }
    assert_eq!((event.data.as_str(), &event.id), ("again", &id));
}

#[tokio::test]
async fn a_first_board_that_cannot_be_made_stops_no_audit() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    // Somebody else's board has taken the id of the first board's list.
    until("the list's id is taken", async || {
        let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
        let lists = json!([{ "id": "list-todo", "title": "t" }]);
        let body = json!({ "id": "mine", "name": "n", "lists": lists });
        (node.send("POST", "/boards", Some(body)).await.status == 201).then_some(())
    })
    .await;
    let first = node.publish("t", 0).await;
    let mut stream = Stream::open_from(node.address, "/topics/t/events", &first).await;
    // An entry that nobody announced: only the audit finds it.
    cluster.redis.ask::<u64>(&["INCR", "fantail:{t}:seq"]).await;
    let epoch = epoch(&first);
    let entry = ["e", epoch, "t", "0", "j", "0", "f", "data: found\n\n"];
    let command = [&["XADD", "fantail:{t}:log", "2-0"][..], &entry].concat();
    cluster.redis.ask::<String>(&command).await;
    assert_eq!(stream.event().await.data, "found");
}

#[tokio::test]
async fn a_task_whose_order_was_evicted_can_still_be_renamed_with_its_event() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    node.create("a", "list-todo").await;
    let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
    let _: u64 = cluster.redis.ask(&["DEL", "fantail:{board-1}:board:order"]).await;
    let body = Some(json!({ "title": "b" }));
    let renamed = node.send("PATCH", "/tasks/task-1", body).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    assert_eq!(stream.event().await.id, renamed.position());
}
