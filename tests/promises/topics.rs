//! The topics API: the same road for any application (`docs/api.md`).

use serde_json::{Value, json};

use crate::harness::{Backend, Cluster, Stream, on_both_logs, seq};

on_both_logs! {
    async fn whatever_is_published_arrives_as_it_was(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut stream = Stream::open(node.address, "/topics/orders%2Feu/events").await;
        for (sent, expected) in [
            (r#"{"data": {"b": 1.10, "a": [1, 2 ,3], "big": 12345678901234567890}}"#,
                r#"{"b":1.10,"a":[1,2,3],"big":12345678901234567890}"#),
            (r#"{"data": "plain text"}"#, "plain text"),
            (r#"{"data": "two\nlines\r\nthree\rfour"}"#, "two\nlines\nthree\nfour"),
            (r#"{"data": "\n leading: and trailing \n"}"#, "\n leading: and trailing \n"),
            (r#"{"data": ""}"#, ""),
            (r#"{"data": null}"#, "null"),
            (r#"{"data": "null"}"#, "null"),
            (r#"{"data": "id: 7\nevent: x\n\ndata: y"}"#, "id: 7\nevent: x\n\ndata: y"),
            (r#"{"data": "\u0000 ☂ \ud83c\udf02"}"#, "\0 ☂ 🌂"),
        ] {
            let path = "/topics/orders%2Feu/events";
            let body = sent.as_bytes().to_vec();
            let answer = node.raw("POST", path, "application/json", body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            let event = stream.event().await;
            assert_eq!(event.data, expected);
            assert_eq!(event.kind, "message");
            assert_eq!(answer.body, json!({ "id": event.id }));
            assert_eq!(answer.position(), event.id);
        }
        let body = json!({ "event": "order.paid", "data": 1 });
        node.send("POST", "/topics/orders%2Feu/events", Some(body)).await;
        assert_eq!(stream.event().await.kind, "order.paid");
    }

    async fn topics_need_not_exist_and_are_told_apart(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut a = Stream::open(node.address, "/topics/a/events").await;
        let mut b = Stream::open(node.address, "/topics/b/events").await;
        node.publish("a", 1).await;
        node.publish("b", 2).await;
        assert_eq!((a.event().await.data.as_str(), b.event().await.data.as_str()), ("1", "2"));
    }

    async fn history_comes_in_pages_with_what_was_published(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "30")]).await;
        let empty = node.get("/topics/t/history").await;
        assert_eq!(empty["entries"], json!([]));
        assert_eq!(empty["head"], Value::Null);
        let mut ids = Vec::new();
        for n in 0..40 {
            ids.push(node.publish("t", if n % 2 == 0 { json!(n) } else { json!(n.to_string()) }).await);
        }
        let mut after = String::new();
        let mut entries = Vec::new();
        loop {
            let page = node.get(&format!("/topics/t/history?limit=7&after={after}")).await;
            assert!(page["reset"].is_null(), "{page}");
            assert_eq!(page["head"], ids[39]);
            assert_eq!(page["oldest"], ids[10]);
            entries.extend(page["entries"].as_array().unwrap().clone());
            after = page["next"].as_str().unwrap().to_owned();
            if page["more"] == false {
                break;
            }
        }
        let found: Vec<&Value> = entries.iter().map(|entry| &entry["id"]).collect();
        assert_eq!(found, ids[10..].iter().collect::<Vec<_>>());
        // A number is a number and a string a string.
        assert_eq!(entries[0]["data"], json!(10));
        assert_eq!(entries[1]["data"], json!("11"));

        let lost = node.get(&format!("/topics/t/history?after={}", ids[3])).await;
        assert_eq!(lost["reset"]["reason"], "trimmed");
        assert_eq!(lost["entries"][0]["id"], ids[10]);
        let foreign = node.get("/topics/t/history?after=3-zzzz").await;
        assert_eq!(foreign["reset"]["reason"], "lost");
        let bad = node.send("GET", "/topics/t/history?after=x", None).await;
        assert_eq!(bad.problem(400), "bad-request");
        let bad = node.send("GET", "/topics/t/history?limit=0", None).await;
        assert_eq!(bad.problem(400), "bad-request");
    }

    async fn nobody_forges_changes_of_a_board(backend: Backend) {
        let node = backend.start(&[]).await;
        let forged = json!({ "event": "task_created", "data": {} });
        let answer = node.send("POST", "/topics/board-1/events", Some(forged.clone())).await;
        assert_eq!(answer.problem(409), "event-type-of-board");
        // Elsewhere the name is free, and other events may share a board's topic.
        assert_eq!(node.send("POST", "/topics/mine/events", Some(forged)).await.status, 201);
        let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
        let typing = json!({ "event": "typing", "data": "somebody" });
        assert_eq!(node.send("POST", "/topics/board-1/events", Some(typing)).await.status, 201);
        assert_eq!(stream.event().await.kind, "typing");
        for reserved in ["reset", "snapshot"] {
            let body = json!({ "event": reserved, "data": {} });
            let answer = node.send("POST", "/topics/mine/events", Some(body)).await;
            assert_eq!(answer.problem(400), "bad-request");
        }
    }

    async fn history_stays_at_its_size_and_ids_go_on(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "10")]).await;
        for n in 0..35 {
            assert_eq!(seq(&node.publish("t", n).await), n + 1);
        }
        let page = node.get("/topics/t/history").await;
        assert_eq!(page["entries"].as_array().unwrap().len(), 10);
        if let Some(redis) = &node.redis {
            let length: u64 = redis.ask(&["XLEN", "fantail:{t}:log"]).await;
            assert_eq!(length, 10);
        }
    }

    async fn an_idle_topic_expires_and_comes_back_as_a_new_one(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_TTL", "1s")]).await;
        let old = node.publish("t", 1).await;
        crate::harness::until("the topic has expired", async || {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            (node.get("/topics/t/history").await["head"].is_null()).then_some(())
        })
        .await;
        let new = node.publish("t", 2).await;
        assert_eq!(seq(&new), 1);
        assert_ne!(old, new);
        let mut stream = Stream::open_from(node.address, "/topics/t/events", &old).await;
        let reset = stream.event().await;
        assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &json!("lost")));
        assert_eq!(stream.event().await.id, new);
    }

    async fn a_topic_that_somebody_watches_does_not_expire(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_TTL", "8s")]).await;
        let first = node.publish("t", 1).await;
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        let second = node.publish("t", 2).await;
        assert_eq!(stream.event().await.id, second);
        let epochs = [&first, &second].map(|id| crate::harness::epoch(id).to_owned());
        assert_eq!(epochs[0], epochs[1]);
    }

    async fn a_topic_that_was_about_to_expire_stays_when_somebody_comes_to_watch(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_TTL", "8s")]).await;
        let first = node.publish("t", 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let mut stream = Stream::open_from(node.address, "/topics/t/events", &first).await;
        stream.silent_for(std::time::Duration::from_secs(4)).await;
        let second = node.publish("t", 2).await;
        let event = stream.event().await;
        assert_eq!((event.kind.as_str(), &event.id), ("message", &second));
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_acknowledged() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    node.publish("t", 0).await;
    // Somebody else has put something where the log of this topic belongs.
    let _: String = cluster.redis.ask(&["SET", "fantail:{t}:log", "mine"]).await;
    let body = Some(json!({ "data": 1 }));
    assert_eq!(node.send("POST", "/topics/t/events", body.clone()).await.status, 503);
    let _: u64 = cluster.redis.ask(&["DEL", "fantail:{t}:log"]).await;
    assert_eq!(node.send("POST", "/topics/t/events", body).await.status, 201);
}
