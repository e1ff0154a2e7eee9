//! Writes with an honest answer: repeating one is safe, and one may be conditional on the head
//! (`Idempotency-Key`, `If-Match`, several events at once, `FANTAIL_WAIT_REPLICAS`).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Backend, Cluster, Node, Redis, Stream, epoch, on_both_logs, seq, until,
};

const KEY: &str = "idempotency-key";
const REPEATED: &str = "idempotent-replayed";

async fn publish(api: &Api, topic: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let path = format!("/topics/{topic}/events");
    api.send_with("POST", &path, headers, Some(body)).await
}

async fn move_task(api: &Api, task: &str, list: &str, headers: &[(&str, &str)]) -> Answer {
    let path = format!("/tasks/{task}/move");
    api.send_with("PATCH", &path, headers, Some(json!({ "listId": list }))).await
}

/// The ids in a topic's history.
async fn ids(api: &Api, topic: &str) -> Vec<String> {
    let history = api.get(&format!("/topics/{topic}/history")).await;
    let entries = history["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

on_both_logs! {
    async fn a_repeated_publish_gets_the_first_answer_and_is_written_once(backend: Backend) {
        let node = backend.start(&[]).await;
        let key = [(KEY, "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")];
        let first = publish(&node, "t", &key, json!({ "data": "once" })).await;
        assert_eq!((first.status, first.header(REPEATED).as_str()), (201, ""), "{first:?}");
        publish(&node, "t", &[], json!({ "data": "something else" })).await;
        for _ in 0..3 {
            let again = publish(&node, "t", &key, json!({ "data": "once" })).await;
            assert_eq!((again.status, &again.body), (201, &first.body));
            assert_eq!(again.position(), first.position());
            assert_eq!(again.header(REPEATED), "true");
        }
        // White space does not make it another request; another topic has keys of its own.
        let body = br#"{ "data" : "once" }"#.to_vec();
        let path = "/topics/t/events";
        let again = node.raw_with("POST", path, "application/json", &key, body).await;
        assert_eq!(again.body, first.body);
        let elsewhere = publish(&node, "u", &key, json!({ "data": "other" })).await;
        assert_eq!((elsewhere.status, elsewhere.header(REPEATED).as_str()), (201, ""));
        assert_eq!(ids(&node, "t").await.len(), 2);
    }

    async fn a_key_that_comes_with_another_request_is_refused(backend: Backend) {
        let node = backend.start(&[]).await;
        let key = [(KEY, "k")];
        let first = publish(&node, "t", &key, json!({ "data": "1" })).await;
        for other in [
            json!({ "data": 1 }),
            json!({ "data": "2" }),
            json!({ "data": "1", "event": "x" }),
            json!([{ "data": "1" }, { "data": "1" }]),
        ] {
            let refused = publish(&node, "t", &key, other).await;
            assert_eq!(refused.problem(422), "other-request");
        }
        assert_eq!(ids(&node, "t").await, [first.position()]);
    }

    async fn ten_repetitions_at_once_are_one_event(backend: Backend) {
        let node = backend.start(&[]).await;
        let all = (0..10).map(|_| {
            let api = node.api.clone();
            tokio::spawn(async move {
                publish(&api, "t", &[(KEY, "k")], json!({ "data": 1 })).await
            })
        });
        let mut first = 0;
        for answer in all.collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            assert_eq!((answer.status, seq(&answer.position())), (201, 1));
            first += usize::from(answer.header(REPEATED).is_empty());
        }
        assert_eq!(first, 1);
        assert_eq!(ids(&node, "t").await.len(), 1);
    }

    async fn a_key_is_forgotten_after_the_window(backend: Backend) {
        let node = backend.start(&[("FANTAIL_IDEMPOTENCY_WINDOW", "1s")]).await;
        let first = publish(&node, "t", &[(KEY, "k")], json!({ "data": 1 })).await;
        let window_is_over = Duration::from_millis(1_100);
        tokio::time::sleep(window_is_over).await;
        let later = publish(&node, "t", &[(KEY, "k")], json!({ "data": 2 })).await;
        assert_eq!((later.status, later.header(REPEATED).as_str()), (201, ""));
        assert_eq!(ids(&node, "t").await, [first.position(), later.position()]);
    }

    async fn repeated_changes_of_a_board_happen_once(backend: Backend) {
        let node = backend.start(&[]).await;
        let body = json!({ "title": "once", "listId": "list-todo" });
        let create = async |key: &str, body: &Value| {
            node.send_with("POST", "/tasks", &[(KEY, key)], Some(body.clone())).await
        };
        let first = create("a", &body).await;
        assert_eq!(first.status, 201);
        let again = create("a", &body).await;
        assert_eq!((again.status, &again.body), (201, &first.body));
        assert_eq!((again.position(), again.header(REPEATED)), (first.position(), "true".into()));
        let other = json!({ "title": "other", "listId": "list-todo" });
        assert_eq!(create("a", &other).await.problem(422), "other-request");
        let task = first.body["id"].as_str().unwrap();
        let moved = move_task(&node, task, "list-done", &[(KEY, "b")]).await;
        move_task(&node, task, "list-todo", &[]).await;
        let again = move_task(&node, task, "list-done", &[(KEY, "b")]).await;
        assert_eq!((again.status, again.body), (200, moved.body));
        let list = json!({ "title": "more" });
        let lists = "/boards/board-1/lists";
        let made = node.send_with("POST", lists, &[(KEY, "c")], Some(list.clone())).await;
        let again = node.send_with("POST", lists, &[(KEY, "c")], Some(list)).await;
        assert_eq!((made.status, &made.body), (201, &again.body));
        // The task is where it was put last, and there is one of each.
        let board = node.get("/boards/board-1").await;
        assert_eq!(board["lists"].as_array().unwrap().len(), 4);
        let in_todo = board["lists"][0]["tasks"].as_array().unwrap();
        assert_eq!(in_todo.iter().map(|task| &task["title"]).collect::<Vec<_>>(), ["once"]);
        assert_eq!(seq(board["lastEventId"].as_str().unwrap()), 4);
        // Deleting needs no key: the second finds nothing.
        let path = format!("/tasks/{task}");
        assert_eq!(node.send_with("DELETE", &path, &[(KEY, "d")], None).await.status, 204);
        assert_eq!(node.send_with("DELETE", &path, &[(KEY, "d")], None).await.status, 404);
    }

    async fn if_match_publishes_only_at_the_head(backend: Backend) {
        let node = backend.start(&[]).await;
        // A topic that nobody has used is at a position as soon as somebody watches it.
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        let nothing = stream.interpreter.last_event_id.clone();
        let first = publish(&node, "t", &[("if-match", &nothing)], json!({ "data": 1 })).await;
        assert_eq!(first.status, 201, "{first:?}");
        let late = publish(&node, "t", &[("if-match", &nothing)], json!({ "data": 2 })).await;
        assert_eq!(late.problem(412), "head-moved");
        assert_eq!(late.position(), first.position(), "it says where the head is");
        let tag = format!("\"{}\"", first.position());
        let second = publish(&node, "t", &[("if-match", &tag)], json!({ "data": 3 })).await;
        assert_eq!(second.status, 201);
        let foreign = format!("2-{}", if epoch(&tag[1..]) == "zzzz" { "yyyy" } else { "zzzz" });
        let never = publish(&node, "t", &[("if-match", &foreign)], json!({ "data": 4 })).await;
        assert_eq!(never.problem(412), "head-moved");
        assert_eq!(stream.event().await.id, first.position());
        assert_eq!(stream.event().await.id, second.position());
    }

    async fn of_many_who_publish_after_the_same_event_one_wins(backend: Backend) {
        let node = backend.start(&[]).await;
        let head = node.publish("t", 0).await;
        let all = (0..10).map(|n| {
            let (api, head) = (node.api.clone(), head.clone());
            tokio::spawn(async move {
                publish(&api, "t", &[("if-match", &head)], json!({ "data": n })).await.status
            })
        });
        let mut statuses = Vec::new();
        for status in all.collect::<Vec<_>>() {
            statuses.push(status.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [&[201][..], &[412; 9]].concat());
    }

    async fn of_two_who_drag_one_card_the_second_is_told(backend: Backend) {
        let node = backend.start(&[]).await;
        let (task, _) = node.create("card", "list-todo").await;
        let task = task["id"].as_str().unwrap();
        let seen = node.get("/boards/board-1").await["lastEventId"].as_str().unwrap().to_owned();
        let anna = move_task(&node, task, "list-doing", &[("if-match", &seen)]).await;
        assert_eq!(anna.status, 200);
        let ben = move_task(&node, task, "list-done", &[("if-match", &seen)]).await;
        assert_eq!(ben.problem(412), "head-moved");
        assert_eq!(ben.position(), anna.position());
        let ben = move_task(&node, task, "list-done", &[("if-match", &ben.position())]).await;
        assert_eq!(ben.status, 200);
        // The same for whatever else changes a board.
        for (method, path, body) in [
            ("PATCH", format!("/tasks/{task}"), Some(json!({ "title": "new" }))),
            ("DELETE", format!("/tasks/{task}"), None),
            ("POST", "/boards/board-1/lists".to_owned(), Some(json!({ "title": "new" }))),
            ("POST", "/tasks".to_owned(), Some(json!({ "title": "x", "listId": "list-done" }))),
        ] {
            let late = node.send_with(method, &path, &[("if-match", &seen)], body).await;
            assert_eq!(late.problem(412), "head-moved", "{method} {path}");
        }
        let board = node.get("/boards/board-1").await;
        assert_eq!(board["lastEventId"], ben.position());
    }

    async fn a_list_that_was_refused_leaves_its_id_to_others(backend: Backend) {
        let node = backend.start(&[]).await;
        let other = json!({ "id": "other", "name": "other" });
        assert_eq!(node.send("POST", "/boards", Some(other)).await.status, 201);
        node.create("task", "list-todo").await;
        let list = json!({ "id": "fresh", "title": "fresh" });
        let late = [("if-match", "0-zzzz")];
        let path = "/boards/board-1/lists";
        let refused = node.send_with("POST", path, &late, Some(list.clone())).await;
        assert_eq!(refused.problem(412), "head-moved");
        let made = node.send("POST", "/boards/other/lists", Some(list.clone())).await;
        assert_eq!(made.status, 201, "{made:?}");
        // What is there stays there, however often it is asked for.
        let again = node.send_with("POST", "/boards/other/lists", &late, Some(list)).await;
        assert_eq!(again.problem(412), "head-moved");
        let task = json!({ "title": "task", "listId": "fresh" });
        assert_eq!(node.send("POST", "/tasks", Some(task)).await.status, 201);
    }

    async fn a_repetition_is_answered_although_the_head_has_moved(backend: Backend) {
        let node = backend.start(&[]).await;
        let head = node.publish("t", 0).await;
        let headers = [(KEY, "k"), ("if-match", head.as_str())];
        let first = publish(&node, "t", &headers, json!({ "data": 1 })).await;
        let again = publish(&node, "t", &headers, json!({ "data": 1 })).await;
        assert_eq!((again.status, again.position()), (201, first.position()));
        // One that was refused has not happened, and may happen later.
        let headers = [(KEY, "l"), ("if-match", head.as_str())];
        assert_eq!(publish(&node, "t", &headers, json!({ "data": 2 })).await.status, 412);
        let later = publish(&node, "t", &[(KEY, "l")], json!({ "data": 2 })).await;
        assert_eq!((later.status, later.header(REPEATED).as_str()), (201, ""));
    }

    async fn conditions_that_cannot_be_read_are_refused_and_nothing_happens(backend: Backend) {
        let node = backend.start(&[]).await;
        let long = "k".repeat(256);
        for (name, value) in [
            (KEY, ""),
            (KEY, "two words"),
            (KEY, "ümlaut"),
            (KEY, long.as_str()),
            ("if-match", ""),
            ("if-match", "*"),
            ("if-match", "42"),
            ("if-match", "W/\"42-k3f9\""),
            ("if-match", "\"42-k3f9\", \"43-k3f9\""),
        ] {
            let refused = publish(&node, "t", &[(name, value)], json!({ "data": 1 })).await;
            assert_eq!(refused.problem(400), "bad-request", "{name}: {value}");
        }
        let twice = publish(&node, "t", &[(KEY, "a"), (KEY, "b")], json!({ "data": 1 })).await;
        assert_eq!(twice.problem(400), "bad-request");
        let board = json!({ "id": "b", "name": "b" });
        let board = node.send_with("POST", "/boards", &[(KEY, "a")], Some(board)).await;
        assert_eq!(board.problem(400), "bad-request");
        assert_eq!(ids(&node, "t").await, Vec::<String>::new());
    }

    async fn several_events_are_published_together_and_in_order(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "2000")]).await;
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        let events: Vec<Value> =
            (1..=1_000).map(|n| json!({ "event": "n", "data": { "n": n } })).collect();
        let together = publish(&node, "t", &[(KEY, "k")], json!(events)).await;
        assert_eq!(together.status, 201, "{together:?}");
        let ids = together.body["ids"].as_array().unwrap().clone();
        assert_eq!(ids[999], together.position());
        for (n, id) in ids.iter().enumerate() {
            let event = stream.event().await;
            assert_eq!((json!(event.id), event.kind.as_str()), (id.clone(), "n"));
            assert_eq!((event.seq(), event.json()), (n as u64 + 1, json!({ "n": n + 1 })));
        }
        let again = publish(&node, "t", &[(KEY, "k")], json!(events)).await;
        assert_eq!(again.body, together.body);
        // All or nothing.
        for wrong in [
            json!([{ "data": 1 }, { "data": 2, "event": "reset" }]),
            json!([{ "data": 1 }, { "event": "x" }]),
            json!([{ "data": 1 }, 2]),
            json!([]),
            json!(vec![json!({ "data": 1 }); 1_001]),
        ] {
            assert_eq!(publish(&node, "t", &[], wrong).await.problem(400), "bad-request");
        }
        let next = publish(&node, "t", &[], json!([{ "data": "alone" }])).await;
        assert_eq!(next.body["ids"].as_array().unwrap().len(), 1);
        assert_eq!(seq(&next.position()), 1_001);
    }
}

#[tokio::test]
async fn a_publish_without_an_answer_is_repeated_safely_on_another_node() {
    let cluster = Cluster::start(2, &[]).await;
    let [first, second] = &cluster.nodes[..] else { unreachable!() };
    first.publish("t", "before").await;
    cluster.redis.freeze();
    let unknown = publish(first, "t", &[(KEY, "k")], json!({ "data": "once" })).await;
    assert_eq!(unknown.problem(503), "outcome-unknown");
    cluster.redis.thaw();
    // The first one was on its way all the time.
    until("the frozen Redis has carried it out", async || {
        (ids(second, "t").await.len() == 2).then_some(())
    })
    .await;
    let again = publish(second, "t", &[(KEY, "k")], json!({ "data": "once" })).await;
    assert_eq!((again.status, again.header(REPEATED).as_str()), (201, "true"), "{again:?}");
    assert_eq!(ids(first, "t").await.last(), Some(&again.position()));
    assert_eq!(ids(first, "t").await.len(), 2);
}

#[tokio::test]
async fn a_restart_that_lost_nothing_moves_no_head_and_forgets_no_key() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let head = publish(&node, "t", &[(KEY, "k")], json!({ "data": 1 })).await.position();
    redis.kill();
    redis.restart().await;
    until("the node writes again", async || {
        (node
            .send("POST", "/tasks", Some(json!({ "title": "x", "listId": "list-todo" })))
            .await
            .status
            == 201)
            .then_some(())
    })
    .await;
    let again = publish(&node, "t", &[(KEY, "k")], json!({ "data": 1 })).await;
    assert_eq!((again.position(), again.header(REPEATED)), (head.clone(), "true".to_owned()));
    // Another epoch has begun, and the newest event is still the same.
    let next = publish(&node, "t", &[("if-match", &head)], json!({ "data": 2 })).await;
    assert_eq!((next.status, seq(&next.position())), (201, 2), "{next:?}");
    assert_ne!(epoch(&next.position()), epoch(&head));
    let late = publish(&node, "t", &[("if-match", &head)], json!({ "data": 3 })).await;
    assert_eq!(late.problem(412), "head-moved");
}

#[tokio::test]
async fn a_write_that_must_reach_a_replica_is_acknowledged_when_it_did() {
    let redis = Redis::start().await;
    let settings = [("FANTAIL_WAIT_REPLICAS", "1")];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&redis.url()), &settings).await;
    let alone = publish(&node, "t", &[(KEY, "k")], json!({ "data": 1 })).await;
    assert_eq!(alone.problem(503), "outcome-unknown");
    let says_why = |line: &String| line.contains("0 of 1 replicas");
    until("the log says why", async || node.log().iter().any(says_why).then_some(())).await;

    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &redis.port().to_string()]).await;
    let first = until("the replica takes part", async || {
        let answer = publish(&node, "t", &[(KEY, "k")], json!({ "data": 1 })).await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert_eq!(first.header(REPEATED), "true", "it was in Redis all the time");
    for n in 2..20 {
        let id = node.publish("t", n).await;
        // No waiting: it is there when the answer is.
        let there: Option<u64> = replica.ask(&["GET", "fantail:{t}:seq"]).await;
        assert_eq!(there, Some(seq(&id)));
    }
    replica.freeze();
    let frozen = publish(&node, "t", &[(KEY, "l")], json!({ "data": 20 })).await;
    assert_eq!(frozen.problem(503), "outcome-unknown");
    let again = publish(&node, "t", &[(KEY, "l")], json!({ "data": 20 })).await;
    assert_eq!(again.problem(503), "outcome-unknown", "a repetition waits for it as well");
    // Reads do not wait for replicas.
    assert_eq!(ids(&node, "t").await.len(), 20);
    replica.thaw();
    let again = publish(&node, "t", &[(KEY, "l")], json!({ "data": 20 })).await;
    assert_eq!((again.status, again.header(REPEATED).as_str()), (201, "true"), "{again:?}");
    assert_eq!(ids(&node, "t").await.len(), 20);
}

#[tokio::test]
async fn a_board_whose_order_was_evicted_still_keeps_its_conditions() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let _: u64 = redis.ask(&["DEL", "fantail:{board-1}:board:order"]).await;
    let body = json!({ "title": "task", "listId": "list-todo" });
    let late = node.send_with("POST", "/tasks", &[("if-match", "99-zzzz")], Some(body)).await;
    assert_eq!(late.problem(412), "head-moved");
}

#[tokio::test]
async fn writers_that_wait_for_a_replica_in_vain_break_no_connections() {
    let redis = Redis::start().await;
    let settings = [("FANTAIL_WAIT_REPLICAS", "1")];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&redis.url()), &settings).await;
    publish(&node, "t", &[], json!({ "data": 0 })).await;
    let connections = async || {
        let info: String = redis.ask(&["INFO", "stats"]).await;
        let count = info.lines().find_map(|l| l.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = connections().await;
    let writers = (0..60).map(|n| {
        let api = node.api.clone();
        tokio::spawn(async move { publish(&api, "t", &[], json!({ "data": n })).await.status })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap(), 503);
    }
    // The lanes that wait, once each, and those who ask here.
    let made = connections().await - before;
    assert!(made <= 20, "{made} connections were made");
    assert!(node.metric("fantail_canary_age_seconds", "").await < 3.0);
}
