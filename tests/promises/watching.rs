//! A topic that nobody has written to: watching it costs the log nothing, and whoever watched it is
//! told exactly of what they missed (docs/guarantees.md).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Cluster, Redis, Single, Stream, on_both_logs, until};

/// Watches a topic and leaves; with the id to come back with.
async fn watch(node: &Single, topic: &str) -> String {
    let stream = Stream::open(node.address, &format!("/topics/{topic}/events")).await;
    assert!(stream.last_event_id().starts_with("0-"), "{}", stream.last_event_id());
    stream.last_event_id().to_owned()
}

async fn come_back(node: &Single, topic: &str, id: &str) -> Stream {
    Stream::open_from(node.address, &format!("/topics/{topic}/events"), id).await
}

/// Waits until a topic's log has expired.
async fn expired(node: &Single, topic: &str) {
    until("it has expired", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let page = node.get(&format!("/topics/{topic}/history")).await;
        page["head"].is_null().then_some(())
    })
    .await;
}

#[track_caller]
fn is_reset(event: &crate::harness::Event, reason: &str) {
    assert_eq!((event.kind.as_str(), &event.json()["reason"]), ("reset", &json!(reason)));
}

on_both_logs! {
    async fn whoever_watched_before_the_first_entry_misses_none(backend: Backend) {
        let node = backend.start(&[]).await;
        let id = watch(&node, "t").await;
        let mut back = come_back(&node, "t", &id).await;
        let mut ids = Vec::new();
        for n in 0..3 {
            ids.push(node.publish("t", n).await);
        }
        assert_eq!(back.events(3).await.iter().map(|event| &event.id).collect::<Vec<_>>(),
            ids.iter().collect::<Vec<_>>());
        // That is no gap, of which operators would have to hear.
        for metric in ["fantail_gaps_total", "fantail_gap_entries_repaired_total"] {
            assert_eq!(node.metric(metric, "").await, 0.0, "{metric}");
        }
        // Nobody was there when they came.
        let mut late = come_back(&node, "t", &id).await;
        assert_eq!(late.event().await.id, ids[0]);
        // Nor were they that come with the topic among others.
        let several = format!("/events?topics=t,u&lastEventId={}",
            Stream::open(node.address, "/events?topics=u,v").await.last_event_id());
        let mut several = Stream::open(node.address, &several).await;
        let first = node.publish("u", 1).await;
        assert_eq!(several.event().await.data, "1", "{first}");
    }

    async fn what_was_trimmed_since_is_told(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "3")]).await;
        let id = watch(&node, "t").await;
        for n in 0..5 {
            node.publish("t", n).await;
        }
        let mut back = come_back(&node, "t", &id).await;
        is_reset(&back.event().await, "trimmed");
        assert_eq!(back.event().await.data, "2");
    }

    async fn what_expired_since_is_told_whether_or_not_the_log_began_anew(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_TTL", "1s")]).await;
        let ids = [watch(&node, "gone").await, watch(&node, "again").await];
        // The node has to forget them: what is watched does not expire.
        until("nobody follows them", async || {
            let connections = node.get("/admin/connections").await;
            (connections["total"] == 0).then_some(())
        })
        .await;
        node.publish("gone", 1).await;
        node.publish("again", 1).await;
        expired(&node, "gone").await;
        expired(&node, "again").await;
        let second = node.publish("again", 2).await;
        let history = node.get(&format!("/topics/gone/history?after={}", ids[0])).await;
        assert_eq!(history["reset"]["reason"], "lost", "{history}");
        let mut gone = come_back(&node, "gone", &ids[0]).await;
        is_reset(&gone.event().await, "lost");
        let mut again = come_back(&node, "again", &ids[1]).await;
        is_reset(&again.event().await, "lost");
        assert_eq!(again.event().await.id, second);
    }

    async fn where_nothing_was_written_nothing_is_told_however_long_ago_it_was(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_TTL", "1s")]).await;
        let id = watch(&node, "t").await;
        let mut stays = come_back(&node, "t", &id).await;
        // Another topic lives and expires meanwhile, several times.
        for _ in 0..3 {
            node.publish("other", 1).await;
            expired(&node, "other").await;
        }
        let mut back = come_back(&node, "t", &id).await;
        let first = node.publish("t", 1).await;
        for stream in [&mut stays, &mut back] {
            assert_eq!(stream.event().await.id, first);
        }
    }

    async fn a_publish_may_be_bound_to_there_being_no_entry_yet(backend: Backend) {
        let node = backend.start(&[]).await;
        let id = watch(&node, "t").await;
        let publish = async |tag: &str| {
            let body = Some(json!({ "data": 1 }));
            node.send_with("POST", "/topics/t/events", &[("if-match", tag)], body).await
        };
        let foreign = publish("3-zzzz").await;
        assert_eq!(foreign.problem(412), "head-moved");
        // It says where the head is: nowhere yet, and that can be bound to as well.
        assert!(foreign.position().starts_with("0-"), "{}", foreign.position());
        assert_eq!(node.get("/topics/t/history").await["head"], Value::Null);
        assert_eq!(publish(&foreign.position()).await.status, 201);
        assert_eq!(publish(&id).await.problem(412), "head-moved");
    }
}

#[tokio::test]
async fn whoever_watches_leaves_nothing_in_redis() {
    let cluster = Cluster::start(2, &[]).await;
    let keys = async || {
        let mut keys: Vec<String> = cluster.redis.ask(&["KEYS", "*"]).await;
        // Those of nodes come and go.
        keys.retain(|key| !key.contains("node") && !key.contains("canary"));
        // One of each hash slot that somebody ever asked about, of 16,384 that there are.
        keys.retain(|key| !key.ends_with(",}:births"));
        keys.sort();
        keys
    };
    // What there is before any topic: the first board, and that Redis was found empty.
    drop(Stream::open(cluster.nodes[0].address, "/topics/first/events").await);
    let before = keys().await;
    let mut streams = Vec::new();
    for (n, node) in cluster.nodes.iter().cycle().take(6).enumerate() {
        let names: Vec<String> = (0..100).map(|m| format!("w-{n}-{m}")).collect();
        let path = format!("/events?topics={}", names.join(","));
        streams.push(Stream::open(node.address, &path).await);
        let head = format!("/topics/h-{n}/events");
        assert_eq!(node.raw("HEAD", &head, "text/plain", Vec::new()).await.status, 200);
        node.get(&format!("/topics/r-{n}/history")).await;
        let (path, body) = (format!("/topics/p-{n}/events"), Some(json!({ "data": 1 })));
        let refused = node.send_with("POST", &path, &[("if-match", "3-zzzz")], body).await;
        assert_eq!(refused.problem(412), "head-moved");
    }
    let mut new = keys().await;
    new.retain(|key| !before.contains(key));
    assert!(new.is_empty(), "{} keys, such as {}", new.len(), new[0]);
    // In those is when the slot was found empty, and of which process that is.
    let births: Vec<String> = cluster.redis.ask(&["KEYS", "*,}:births"]).await;
    assert!(births.len() > 1);
    for key in &births {
        let size: u64 = cluster.redis.ask(&["HLEN", key]).await;
        // Of the first board there is a log from the beginning.
        assert!(size <= 4, "{key}: {size}");
    }
    // And they hear of the first entry all the same, from any node.
    cluster.nodes[1].publish("w-0-7", 1).await;
    assert_eq!(streams[0].event().await.data, "1");
}

#[tokio::test]
async fn a_flushed_redis_is_told_to_those_who_watched_what_was_not_written_yet() {
    let cluster = Cluster::start(2, &[]).await;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let path = "/topics/t/events";
    let id = Stream::open(a.address, path).await.last_event_id().to_owned();
    a.publish("t", 1).await;
    let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
    let mut back = Stream::open_from(b.address, path, &id).await;
    is_reset(&back.event().await, "lost");
    // Whoever comes after it is told of nothing.
    let id = back.last_event_id().to_owned();
    let mut again = Stream::open_from(a.address, path, &id).await;
    let first = b.publish("t", 2).await;
    assert_eq!(again.event().await.id, first);
    assert_eq!(back.event().await.id, first);
}

#[tokio::test]
async fn a_failover_resets_nobody_who_waits_for_the_first_entry() {
    let mut master = Redis::start().await;
    let port = master.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let before = crate::harness::Node::start("before", Some(&master), &[]).await;
    let path = "/topics/t/events";
    let id = Stream::open(before.address, path).await.last_event_id().to_owned();
    until("the replica has what there is", async || {
        let births = ["KEYS", "*,}:births"];
        let mut ours: Vec<String> = master.ask(&births).await;
        let mut theirs: Vec<String> = replica.ask(&births).await;
        ours.sort();
        theirs.sort();
        (!ours.is_empty() && ours == theirs).then_some(())
    })
    .await;
    let _: String = replica.ask(&["REPLICAOF", "NO", "ONE"]).await;
    master.kill();
    let after = crate::harness::Node::start("after", Some(&replica), &[]).await;
    let mut back = Stream::open_from(after.address, path, &id).await;
    let first = after.publish("t", 1).await;
    assert_eq!(back.event().await.id, first);
}

#[tokio::test]
async fn keys_that_redis_evicted_are_told_to_those_who_watched_before() {
    let cluster = Cluster::start(2, &[]).await;
    let path = "/topics/t/events";
    let id = Stream::open(cluster.nodes[0].address, path).await.last_event_id().to_owned();
    cluster.nodes[0].publish("t", 1).await;
    // Nothing but what expires is evicted; then there is room again.
    let set = async |name: &str, value: &str| {
        let _: String = cluster.redis.ask(&["CONFIG", "SET", name, value]).await;
    };
    set("maxmemory-policy", "volatile-ttl").await;
    set("maxmemory", "1mb").await;
    until("the log is gone", async || {
        let _: redis::RedisResult<String> = cluster.redis.try_ask(&["SET", "x", "y"]).await;
        let keys = ["fantail:{t}:seq", "fantail:{t}:log", "fantail:{t}:meta"];
        let left: u64 = cluster.redis.ask(&["EXISTS", keys[0], keys[1], keys[2]]).await;
        (left == 0).then_some(())
    })
    .await;
    set("maxmemory", "0").await;
    // The other node does not remember it.
    let mut back = Stream::open_from(cluster.nodes[1].address, path, &id).await;
    is_reset(&back.event().await, "lost");
}
