//! An installation that an earlier version has made is moved over by the first nodes of this one.
//!
//! What it was is in `installations/84dbe1b.json`: the keys that nodes of that version left in Redis
//! after some boards, tasks and events, what they answered about the boards, and where streams stood.

use std::time::Duration;

use fantail::position::Epoch;
use serde_json::{Value, json};

use crate::harness::proxy::Proxy;
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
        let body = json!({ "event": "task_created", "data": 1 });
        let refused = node.send("POST", &format!("/topics/{board}/events"), Some(body)).await;
        assert!(refused.status >= 400, "{refused:?}");
    }
}

/// Everything that can be seen of the installation is as it was.
async fn is_as_it_was(node: &Node, installation: &Value) {
    let boards = installation["boards"].as_object().unwrap();
    until("the boards are there", async || {
        let answer = node.send("GET", "/boards", None).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let listed = node.get("/boards").await;
    let ids = listed.as_array().unwrap().iter().map(|board| board["id"].as_str().unwrap());
    assert_eq!(ids.collect::<Vec<_>>(), ["board-1", "kanban", "board-2", "empty"]);
    for (id, board) in boards {
        let now = node.get(&format!("/boards/{id}")).await;
        for field in ["id", "name", "lists"] {
            assert_eq!(now[field], board[field], "{id}");
        }
        let head = |board: &Value| crate::harness::seq(board["lastEventId"].as_str().unwrap());
        assert_eq!(head(&now), head(board), "{id}");
    }
}

/// Tasks of before are found by their ids, and new ones get ids that nobody had.
async fn goes_on(node: &Node) {
    for (task, board) in [("task-4", "kanban"), ("task-6", "board-2"), ("task-2", "board-1")] {
        let renamed = node
            .send("PATCH", &format!("/tasks/{task}"), Some(json!({ "title": "renamed" })))
            .await;
        assert_eq!((renamed.status, &renamed.body["boardId"]), (200, &json!(board)), "{renamed:?}");
    }
    // Deleted before, and never made.
    for task in ["task-8", "task-9", "task-3-2", "task-1-9"] {
        let renamed = node.send("DELETE", &format!("/tasks/{task}"), None).await;
        assert_eq!(renamed.problem(404), "no-such-task");
    }
    for (list, id) in [("list-todo", "task-9"), ("k-in", "task-1-2"), ("list-1", "task-1-3")] {
        let (task, _) = node.create("new", list).await;
        assert_eq!(task["id"], id);
    }
    assert_eq!(node.send("DELETE", "/tasks/task-4", None).await.status, 204);
    assert_eq!(node.send("DELETE", "/tasks/task-4", None).await.problem(404), "no-such-task");
    // What was asked before with a key is answered as it was.
    let body = json!({ "title": "seven", "listId": "list-todo" });
    let again = node.send_with("POST", "/tasks", &[("idempotency-key", "seven")], Some(body)).await;
    assert_eq!((again.status, &again.body["id"]), (201, &json!("task-7")), "{again:?}");
}

/// Nothing is left of what the earlier version has laid out otherwise.
async fn all_is_moved(redis: &Redis) {
    let left: Vec<String> = keys(redis).await;
    let is_old = |key: &&String| {
        key.contains(":board:lists")
            || key.contains(":board:titles")
            || key.contains(":board:tasks")
            || key.contains(":board:order:")
            || ["births", "lists", "board-ids", "task-seq", "stats"]
                .iter()
                .any(|name| **key == format!("fantail:{{index,}}:{name}"))
    };
    let old: Vec<&String> = left.iter().filter(is_old).collect();
    assert!(old.is_empty(), "{old:?}");
    let tasks: Vec<String> = redis.ask(&["HKEYS", "fantail:{index,}:tasks"]).await;
    let mut tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, ["task-3", "task-4", "task-5", "task-6"]);
}

#[tokio::test]
async fn boards_are_as_they_were_and_tasks_keep_their_ids() {
    let installation = installation();
    let redis = restore(&installation).await;
    let node = Node::start("node-1", Some(&redis), SETTINGS).await;
    is_as_it_was(&node, &installation).await;
    all_is_moved(&redis).await;
    goes_on(&node).await;
    let list = node.send("POST", "/boards/empty/lists", Some(json!({ "title": "first" }))).await;
    assert_eq!((list.status, &list.body["id"]), (201, &json!("list-4")), "{list:?}");
    let taken = json!({ "id": "k-out", "title": "taken" });
    let taken = node.send("POST", "/boards/empty/lists", Some(taken)).await;
    assert_eq!(taken.problem(409), "list-exists");
    // Another node that starts finds everything done.
    let another = Node::start("node-2", Some(&redis), SETTINGS).await;
    assert_eq!(another.get("/boards/kanban").await, node.get("/boards/kanban").await);
}

#[tokio::test]
async fn three_nodes_that_start_at_once_move_it_once() {
    let installation = installation();
    let redis = restore(&installation).await;
    let start = |id| Node::start(id, Some(&redis), SETTINGS);
    let nodes = tokio::join!(start("node-1"), start("node-2"), start("node-3"));
    for node in [&nodes.0, &nodes.1, &nodes.2] {
        is_as_it_was(node, &installation).await;
    }
    all_is_moved(&redis).await;
    let number: u64 = redis.ask(&["GET", "fantail:{index,}:board-seq"]).await;
    assert_eq!(number, 4);
    goes_on(&nodes.1).await;
}

#[tokio::test]
async fn a_node_that_is_killed_while_it_moves_leaves_what_the_next_one_goes_on_with() {
    let installation = installation();
    let mut unmoved = 0;
    for step in 0..24 {
        let redis = restore(&installation).await;
        let proxy = Proxy::start(redis.port(), step).await;
        if step % 4 > 0 {
            // Without the births, which are one value after the other, each step can be seen.
            let _: i64 = redis.ask(&["DEL", "fantail:{index,}:births"]).await;
            proxy.slow(Duration::from_millis(2), 1 << 30);
        }
        let url = Some(proxy.url());
        let mut node = Node::start_at("node-1", "127.0.0.1:0", url.as_deref(), SETTINGS).await;
        tokio::time::sleep(Duration::from_millis(step * 6)).await;
        node.process.kill();
        let left: bool = redis.ask(&["EXISTS", "fantail:{index,}:board-ids"]).await;
        unmoved += usize::from(left);
        // It would end by itself some seconds later.
        let _: i64 = redis.ask(&["DEL", "fantail:{index,}:maker"]).await;
        let node = Node::start("node-2", Some(&redis), SETTINGS).await;
        is_as_it_was(&node, &installation).await;
        all_is_moved(&redis).await;
        goes_on(&node).await;
    }
    assert!(unmoved > 0, "each was done before it was killed");
}
