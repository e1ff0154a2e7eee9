//! An installation that an earlier version has made is moved over by the first nodes of this one.
//!
//! What it was is in `installations/84dbe1b.json`: the keys that nodes of that version left in Redis
//! after some boards, tasks and events, what they answered about the boards, and where streams stood.

use fantail::position::Epoch;
use serde_json::Value;

use crate::harness::{Node, Redis, Stream, until};

/// A year: what the installation has in its history stays there however long ago it was made.
const SETTINGS: &[(&str, &str)] = &[("FANTAIL_HISTORY_TTL", "365d")];

fn installation() -> Value {
    serde_json::from_str(include_str!("installations/84dbe1b.json")).unwrap()
}

/// A Redis with these keys in it.
async fn restore(installation: &Value) -> Redis {
    let redis = Redis::start().await;
    for command in installation["commands"].as_array().unwrap() {
        let words: Vec<&str> =
            command.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let _: redis::Value = redis.ask(&words).await;
    }
    redis
}

async fn now(redis: &Redis) -> u64 {
    let (seconds, microseconds): (u64, u64) = redis.ask(&["TIME"]).await;
    seconds * 1_000 + microseconds / 1_000
}

#[tokio::test]
async fn whoever_watched_a_topic_before_its_first_entry_goes_on_after_the_move() {
    let redis = restore(&installation()).await;
    let now = now(&redis).await;
    let found_empty = (now - 60_000).to_string();
    let births = "fantail:{index,}:births";
    let _: i64 = redis.ask(&["HSET", births, "at", &found_empty]).await;
    // Of one that began since nobody who was there before may hear nothing.
    let node = Node::start("node-1", Some(&redis), SETTINGS).await;
    let at = |milliseconds: u64| format!("0-{}", Epoch::unwritten_at(milliseconds));
    let path = "/topics/unwritten/events";
    let mut after = Stream::open_from(node.address, path, &at(now - 30_000)).await;
    let mut before = Stream::open_from(node.address, path, &at(now - 90_000)).await;
    assert_eq!(before.event().await.json()["reason"], "lost");
    let id = node.publish("unwritten", "first").await;
    assert_eq!(after.event().await.id, id);
    assert_eq!(before.event().await.id, id);
    let left: bool = redis.ask(&["EXISTS", births]).await;
    assert!(!left);
}

#[tokio::test]
async fn while_nodes_of_the_earlier_version_live_no_node_of_this_one_starts() {
    let redis = restore(&installation()).await;
    let heartbeat = format!("{} 7 0 0", now(&redis).await + 60_000);
    let _: i64 = redis.ask(&["HSET", "fantail:{index,}:stats", "old-node", &heartbeat]).await;
    let before: Vec<String> = keys(&redis).await;
    let mut node = Node::start_at("node-1", "127.0.0.1:0", Some(&redis.url()), SETTINGS).await;
    assert_eq!(node.process.ended().await, Some(1), "{:?}", node.log());
    let sentence = until("it has said why", async || {
        node.log().into_iter().find(|line| line.starts_with("fantail: "))
    })
    .await;
    assert!(sentence.contains("earlier version") && sentence.contains("old-node"), "{sentence}");
    assert_eq!(keys(&redis).await, before);
    // Gone without a word.
    let heartbeat = format!("{} 7 0 0", now(&redis).await - 6_000);
    let _: i64 = redis.ask(&["HSET", "fantail:{index,}:stats", "old-node", &heartbeat]).await;
    let node = Node::start("node-1", Some(&redis), SETTINGS).await;
    node.publish("news", "new").await;
}

/// All of the installation's keys.
async fn keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    keys.retain(|key| !key.contains("canary"));
    keys.sort();
    keys
}

#[tokio::test]
async fn streams_go_on_over_the_move_without_a_reset() {
    let installation = installation();
    let redis = restore(&installation).await;
    let node = Node::start("node-1", Some(&redis), SETTINGS).await;
    let positions = &installation["positions"];
    let ids: Vec<&str> =
        positions["events"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    for pair in ids.windows(2) {
        let mut stream = Stream::open_from(node.address, "/topics/news/events", pair[0]).await;
        assert_eq!(stream.event().await.id, pair[1]);
    }
    for board in ["board-1", "kanban"] {
        let from = positions[board].as_str().unwrap();
        let path = format!("/boards/{board}/events");
        let mut stream = Stream::open_from(node.address, &path, from).await;
        let next = stream.event().await;
        assert_ne!(next.kind, "reset", "{next:?}");
        let shown = &installation["boards"][board];
        assert_eq!(&node.get(&format!("/boards/{board}")).await["lists"], &shown["lists"]);
        // What only a board may say stays so.
        let body = serde_json::json!({ "event": "task_created", "data": 1 });
        let refused = node.send("POST", &format!("/topics/{board}/events"), Some(body)).await;
        assert!(refused.status >= 400, "{refused:?}");
    }
}
