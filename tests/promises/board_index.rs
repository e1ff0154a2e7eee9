//! The index of boards is made from the boards wherever it was lost, and ids of lists are unique over
//! all boards whoever claimed them.

use serde_json::json;

use crate::harness::{Cluster, Node, Redis, until};

/// All keys of the index but how it is laid out.
async fn index(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.ask(&["KEYS", "fantail:{index,*"]).await;
    keys.retain(|key| !key.contains("canary") && !key.ends_with(":layout"));
    keys
}

/// The part of the index that knows this list.
async fn part_with(redis: &Redis, list: &str) -> String {
    for key in index(redis).await.into_iter().filter(|key| key.ends_with(":lists")) {
        if redis.ask(&["HEXISTS", &key, list]).await {
            return key;
        }
    }
    panic!("no part knows {list}");
}

async fn lose_index(redis: &Redis) {
    for key in index(redis).await {
        let _: i64 = redis.ask(&["DEL", &key]).await;
    }
}

#[tokio::test]
async fn an_index_that_was_lost_is_made_from_the_boards() {
    let cluster = Cluster::start(1, &[]).await;
    let [node] = &cluster.nodes[..] else { panic!() };
    let lists = json!([{ "id": "in", "title": "In" }, { "title": "numbered" }]);
    let board = json!({ "id": "kanban", "name": "Kanban", "lists": lists });
    assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
    let (task, _) = node.create("a", "in").await;
    assert_eq!(task["id"], "task-1-2");
    // Somebody else makes it, and takes long: what is not found may be there all the same.
    let maker = "fantail:{index,}:maker";
    lose_index(&cluster.redis).await;
    let _: String = cluster.redis.ask(&["SET", maker, "somebody"]).await;
    // A node that never asked before.
    let another = Node::start("another", Some(&cluster.redis), &[]).await;
    let ask = async |list: &str| {
        let body = json!({ "title": "b", "listId": list });
        another.send("POST", "/tasks", Some(body)).await
    };
    for list in ["in", "nowhere"] {
        assert_eq!(ask(list).await.problem(503), "log-unavailable");
    }
    let renamed =
        async || another.send("PATCH", "/tasks/task-1-2", Some(json!({ "title": "c" }))).await;
    assert_eq!(renamed().await.problem(503), "log-unavailable");
    let new = async |body: serde_json::Value| another.send("POST", "/boards", Some(body)).await;
    let taken = json!({ "name": "other", "lists": [{ "id": "in", "title": "In" }] });
    assert_eq!(new(taken.clone()).await.problem(503), "log-unavailable");
    // The one that has asked knows.
    assert_eq!(node.create("known", "in").await.0["id"], "task-2-2");
    let _: i64 = cluster.redis.ask(&["DEL", maker]).await;
    until("the index is made", async || (ask("in").await.status == 201).then_some(())).await;
    assert_eq!(ask("nowhere").await.problem(404), "no-such-list");
    assert_eq!(renamed().await.status, 200);
    assert_eq!(new(taken).await.problem(409), "list-exists");
    let listed = another.get("/boards").await;
    assert_eq!((&listed[0]["id"], &listed[1]["id"]), (&json!("board-1"), &json!("kanban")));
    // Neither number is that of a board or list that is there.
    let made = new(json!({ "name": "new", "lists": [{ "title": "new" }] })).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!["board-1", "board-2"].contains(&made.body["id"].as_str().unwrap()), "{made:?}");
    assert_ne!(made.body["lists"][0]["id"], "list-1");
}

#[tokio::test]
async fn after_another_redis_took_over_no_number_is_given_twice() {
    let cluster = Cluster::start(1, &[]).await;
    let [node] = &cluster.nodes[..] else { panic!() };
    let new = async || {
        until("a board is made", async || {
            let body = json!({ "name": "b", "lists": [{ "title": "l" }] });
            let made = node.send("POST", "/boards", Some(body)).await;
            (made.status == 201).then(|| made.body["id"].as_str().unwrap().to_owned())
        })
        .await
    };
    assert_eq!(new().await, "board-2");
    // A board that the new master does not know any more; its number was given to somebody.
    let _: i64 = cluster.redis.ask(&["DECR", "fantail:{index,}:board-seq"]).await;
    let _: i64 = cluster.redis.ask(&["ZREM", "fantail:{index,}:boards", "board-2"]).await;
    let _: i64 = cluster.redis.ask(&["DEL", "fantail:{board-2}:board"]).await;
    let _: String = cluster.redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let _: String = cluster.redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
    let id = new().await;
    assert!(id.strip_prefix("board-").unwrap().parse::<u64>().unwrap() > 100, "{id}");
}

#[tokio::test]
async fn an_id_that_was_claimed_and_never_made_is_free_a_minute_later() {
    let cluster = Cluster::start(1, &[]).await;
    let [node] = &cluster.nodes[..] else { panic!() };
    let lists = json!([{ "id": "wanted", "title": "w" }, { "id": "kept", "title": "k" }]);
    let board = json!({ "id": "gone", "name": "g", "lists": lists });
    assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
    let part = part_with(&cluster.redis, "wanted").await;
    // As if its node had been cut off after it claimed the id.
    let wanted = ["HDEL", "fantail:{gone}:board", "list:wanted"];
    let _: i64 = cluster.redis.ask(&wanted).await;
    let _: i64 = cluster.redis.ask(&["HSET", "fantail:{gone}:board", "lists", "kept\n"]).await;
    let make = async |id: &str| {
        node.send("POST", "/boards/board-1/lists", Some(json!({ "id": id, "title": "t" }))).await
    };
    assert_eq!(make("wanted").await.problem(409), "list-exists");
    let (seconds, _): (u64, u64) = cluster.redis.ask(&["TIME"]).await;
    let claim = format!("gone {}", (seconds - 61) * 1000);
    let _: i64 = cluster.redis.ask(&["HSET", &part, "wanted", &claim]).await;
    assert_eq!(make("wanted").await.status, 201);
    assert_eq!(node.create("t", "wanted").await.0["boardId"], "board-1");
    // One that was made stays where it is.
    let part = part_with(&cluster.redis, "kept").await;
    let _: i64 = cluster.redis.ask(&["HSET", &part, "kept", "gone 0"]).await;
    assert_eq!(make("kept").await.problem(409), "list-exists");
}

#[tokio::test]
async fn what_is_refused_gives_back_the_ids_that_it_claimed() {
    let cluster = Cluster::start(1, &[]).await;
    let [node] = &cluster.nodes[..] else { panic!() };
    let lists = json!([{ "id": "free", "title": "f" }, { "id": "list-todo", "title": "taken" }]);
    let board = json!({ "id": "mine", "name": "m", "lists": lists });
    let refused = node.send("POST", "/boards", Some(board)).await;
    assert_eq!(refused.problem(409), "list-exists");
    let listed: Option<String> =
        cluster.redis.ask(&["ZSCORE", "fantail:{index,}:boards", "mine"]).await;
    assert_eq!(listed, None);
    let lists = json!([{ "id": "free", "title": "f" }]);
    let board = json!({ "id": "others", "name": "o", "lists": lists });
    assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
}

#[tokio::test]
async fn a_part_that_was_lost_alone_is_made_again_and_no_number_is_left_out() {
    let cluster = Cluster::start(1, &[]).await;
    let part = part_with(&cluster.redis, "list-todo").await;
    let number =
        async || -> u64 { cluster.redis.ask(&["GET", "fantail:{index,}:board-seq"]).await };
    let before = number().await;
    let _: i64 = cluster.redis.ask(&["DEL", &part]).await;
    // A node that never asked before.
    let another = Node::start("another", Some(&cluster.redis), &[]).await;
    assert_eq!(another.create("a", "list-todo").await.0["id"], "task-1");
    assert_eq!(part_with(&cluster.redis, "list-todo").await, part);
    assert_eq!(number().await, before);
}
