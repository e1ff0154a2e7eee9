//! Which topics there are, and deleting one: whoever followed it is told so (`docs/api.md`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::tokens::{SECRET, Signer};
use crate::harness::{Backend, Cluster, Event, Single, Stream, on_both_logs, seq, until};

#[track_caller]
fn is_deletion(event: &Event, from: &str, head: &str) {
    let reset = event.json();
    assert_eq!((event.kind.as_str(), &reset["reason"]), ("reset", &json!("deleted")), "{reset}");
    assert_eq!((&reset["from"], &reset["head"]), (&json!(from), &json!(head)), "{reset}");
    assert_eq!(reset["oldest"], Value::Null, "{reset}");
}

async fn delete(node: &Single, topic: &str) -> String {
    let answer = node.send("DELETE", &format!("/topics/{topic}"), None).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.header("last-event-id")
}

/// All topics with this prefix, read page by page.
async fn all(node: &Single, prefix: &str, limit: usize) -> Vec<Value> {
    let mut topics = Vec::new();
    let mut after = String::new();
    // More pages than anybody needs would be a loop.
    for _ in 0..10_000 {
        let path = format!("/topics?prefix={prefix}&limit={limit}&after={after}");
        let page = node.get(&path).await;
        topics.extend(page["topics"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return topics,
        }
    }
    panic!("the pages have no end");
}

on_both_logs! {
    async fn whoever_follows_a_topic_is_told_that_it_was_deleted_and_follows_on(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut ids = Vec::new();
        for n in 0..4 {
            ids.push(node.publish("t", n).await);
        }
        let path = "/topics/t/events";
        // One that has seen all, one that is behind, and one among several topics.
        let mut at_head = Stream::open_from(node.address, path, &ids[3]).await;
        let mut among = Stream::open(node.address, "/events?topics=t,u").await;
        let deleted = delete(&node, "t").await;
        assert_eq!(seq(&deleted), 5);
        is_deletion(&at_head.event().await, &ids[3], &deleted);
        is_deletion(&among.event().await, &ids[3], &deleted);
        let next = node.publish("t", "after").await;
        assert_eq!(seq(&next), 6);
        assert_eq!(at_head.event().await.id, next);
        assert_eq!(among.event().await.data, "after");
        // Whoever comes back from before it, however far.
        for id in [&ids[0], &ids[3]] {
            let mut back = Stream::open_from(node.address, path, id).await;
            let reset = back.event().await;
            assert_eq!(reset.json()["reason"], "deleted");
            assert_eq!(reset.json()["oldest"], next);
            assert_eq!(back.event().await.id, next);
        }
        // Whoever knew of it already is told nothing.
        let mut back = Stream::open_from(node.address, path, &deleted).await;
        assert_eq!(back.event().await.id, next);
        let page = node.get(&format!("/topics/t/history?after={}", ids[1])).await;
        assert_eq!(page["reset"]["reason"], "deleted");
        assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    }

    async fn whoever_was_away_is_told_of_a_deletion_wherever_they_stood(backend: Backend) {
        let node = backend.start(&[]).await;
        let path = "/topics/t/events";
        // Before there was a log at all.
        let before = Stream::open(node.address, path).await.last_event_id().to_owned();
        let mut witness = Stream::open(node.address, path).await;
        let first = node.publish("t", 1).await;
        assert_eq!(witness.event().await.id, first);
        let deleted = delete(&node, "t").await;
        // The node has heard of it then.
        is_deletion(&witness.event().await, &first, &deleted);
        for id in [&before, &first] {
            let mut back = Stream::open_from(node.address, path, id).await;
            is_deletion(&back.event().await, id, &deleted);
        }
        // What was told of a deletion is a position like others, before the next one.
        let second = node.publish("t", 2).await;
        assert_eq!(witness.event().await.id, second);
        let again = delete(&node, "t").await;
        is_deletion(&witness.event().await, &second, &again);
        let mut back = Stream::open_from(node.address, path, &deleted).await;
        is_deletion(&back.event().await, &deleted, &again);
    }

    async fn what_is_not_there_is_deleted_without_a_trace(backend: Backend) {
        let node = backend.start(&[]).await;
        assert_eq!(delete(&node, "never").await, "");
        assert_eq!(all(&node, "never", 10).await, [] as [Value; 0]);
        node.publish("t", 1).await;
        let deleted = delete(&node, "t").await;
        assert_eq!(delete(&node, "t").await, "", "a second deletion finds nothing");
        let page = node.get("/topics/t/history").await;
        assert_eq!((&page["head"], &page["oldest"]), (&json!(deleted), &Value::Null));
        if let Some(redis) = &node.redis {
            let log: u64 = redis.ask(&["EXISTS", "fantail:{t}:log"]).await;
            assert_eq!(log, 0);
            let left: i64 = redis.ask(&["PTTL", "fantail:{t}:meta"]).await;
            assert!(left > 0, "what is remembered of it expires, too");
        }
    }

    async fn a_deletion_happens_where_if_match_says_and_never_to_a_board(backend: Backend) {
        let node = backend.start(&[]).await;
        let first = node.publish("t", 1).await;
        let second = node.publish("t", 2).await;
        let late = [("if-match", first.as_str())];
        let answer = node.send_with("DELETE", "/topics/t", &late, None).await;
        assert_eq!(answer.problem(412), "head-moved");
        assert_eq!(answer.position(), second);
        let page = node.get("/topics/t/history").await;
        assert_eq!(page["entries"].as_array().unwrap().len(), 2);
        let right = [("if-match", second.as_str())];
        assert_eq!(node.send_with("DELETE", "/topics/t", &right, None).await.status, 204);
        node.create("a task", "list-todo").await;
        let answer = node.send("DELETE", "/topics/board-1", None).await;
        assert_eq!(answer.problem(409), "topic-of-board");
        assert_eq!(all(&node, "board-1", 10).await[0]["entries"], 1);
    }

    async fn topics_are_listed_page_by_page_each_with_what_it_has(backend: Backend) {
        let node = backend.start(&[]).await;
        for n in 0..25 {
            node.publish(&format!("news-{n}"), n).await;
        }
        // What begins alike but is another, and what would be a pattern.
        for topic in ["new", "newt", "news*1", "news[2]", "news?", r"news\3", "Ünews-1"] {
            node.publish(&topic.replace('?', "%3F").replace('\\', "%5C"), 0).await;
        }
        let second = node.publish("news-7", "again").await;
        for limit in [1, 3, 100, 1_000] {
            let found = all(&node, "news-", limit).await;
            let names: BTreeSet<&str> =
                found.iter().map(|topic| topic["topic"].as_str().unwrap()).collect();
            assert_eq!(names.len(), 25, "{names:?}");
            let seventh = found.iter().find(|topic| topic["topic"] == "news-7").unwrap();
            let expected = json!({ "topic": "news-7", "head": second, "entries": 2, "board": false });
            assert_eq!(*seventh, expected);
        }
        for prefix in ["news*", "news%5B", "news%3F", "news%5C", "%C3%9C"] {
            assert_eq!(all(&node, prefix, 10).await.len(), 1, "{prefix}");
        }
        assert!(all(&node, "", 1_000).await.len() >= 32);
        for wrong in ["limit=0", "limit=1001", "after=%20%20", "prefx=a"] {
            let answer = node.send("GET", &format!("/topics?{wrong}"), None).await;
            assert_eq!(answer.problem(400), "bad-request", "{wrong}");
        }
        // Watching makes none.
        let _watched = Stream::open(node.address, "/topics/watched/events").await;
        assert_eq!(all(&node, "watched", 10).await.len(), 0);
    }

    async fn only_those_who_administer_see_all_topics_and_delete_one(backend: Backend) {
        let node = backend.start(&[("FANTAIL_JWT_SECRET", SECRET)]).await;
        let signer = Signer::with_secret("HS256", SECRET);
        let grants = json!({ "subscribe": ["*"], "publish": ["*"], "boards": {} });
        let user = node.with_token(&signer.grant(grants));
        let answer = user.send("POST", "/topics/t/events", Some(json!({ "data": 1 }))).await;
        assert_eq!(answer.status, 201);
        for (method, path) in [("GET", "/topics"), ("DELETE", "/topics/t")] {
            assert_eq!(node.send(method, path, None).await.problem(401), "unauthorized");
            assert_eq!(user.send(method, path, None).await.problem(403), "forbidden");
        }
        let administrator = node.with_token(&signer.grant(json!({ "admin": true })));
        let topics = administrator.get("/topics").await["topics"].clone();
        assert!(topics.as_array().unwrap().iter().any(|topic| topic["topic"] == "t"), "{topics}");
        assert_eq!(administrator.send("DELETE", "/topics/t", None).await.status, 204);
    }
}

#[tokio::test]
async fn a_deletion_is_told_on_every_node() {
    let cluster = Cluster::start(3, &[]).await;
    let [one, two, three] = [0, 1, 2].map(|n| &cluster.nodes[n]);
    let id = one.publish("t", 1).await;
    let mut streams = Vec::new();
    for node in &cluster.nodes {
        streams.push(Stream::open_from(node.address, "/topics/t/events", &id).await);
    }
    let answer = two.send("DELETE", "/topics/t", None).await;
    let deleted = answer.position();
    for stream in &mut streams {
        is_deletion(&stream.event().await, &id, &deleted);
    }
    // One node after the other takes an event, and each finds the numbers as they are.
    for (n, node) in [one, two, three].into_iter().enumerate() {
        let id = node.publish("t", 2).await;
        assert_eq!(seq(&id), seq(&deleted) + 1 + n as u64);
        for stream in &mut streams {
            assert_eq!(stream.event().await.id, id);
        }
    }
}

#[tokio::test]
async fn a_deletion_that_was_not_announced_is_found_by_the_audit() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    let id = node.publish("t", 1).await;
    let mut stream = Stream::open_from(node.address, "/topics/t/events", &id).await;
    // As a node of another installation's network would: what it announces is not heard here.
    let _: i64 = cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let answer = node.send("DELETE", "/topics/t", None).await;
    is_deletion(&stream.event().await, &id, &answer.position());
    until("the log is heard again", async || {
        (node.send("GET", "/readyz", None).await.status == 200).then_some(())
    })
    .await;
}
