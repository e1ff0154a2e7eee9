//! A Redis that is there and refuses: for want of a disk, for a wrong password, for missing rights;
//! or has what nobody has written.

use std::time::Duration;

use crate::harness::process::TempDir;
use crate::harness::{Node, Redis, Stream, until};

#[tokio::test]
async fn a_redis_that_cannot_save_is_asked_with_patience_and_heard_as_soon_as_it_can() {
    let dir = TempDir::new();
    let redis = Redis::start_with(&["--save", "3600 1", "--dir", dir.0.to_str().unwrap()]).await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let mut stream = Stream::open(node.address, "/topics/news/events").await;
    std::fs::remove_dir_all(&dir.0).unwrap();
    until("Redis refuses to write", async || {
        let _ = redis.try_ask::<redis::Value>(&["BGSAVE"]).await;
        let refused = redis.try_ask::<redis::Value>(&["SET", "a", "b"]).await.err()?;
        refused.to_string().contains("MISCONF").then_some(())
    })
    .await;
    until("the node says that it cannot publish", async || {
        let answer = node.send("POST", "/topics/news/events", Some(event())).await;
        (answer.status == 503).then_some(())
    })
    .await;

    let connections = async || {
        let info: String = redis.ask(&["INFO", "stats"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = (connections().await, node.log().len());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = (connections().await, node.log().len());
    assert!(after.0 - before.0 <= 5, "{} connections in 5 s", after.0 - before.0);
    assert!(after.1 - before.1 <= 2, "{:?}", &node.log()[before.1..]);

    // Whoever does not want to save need not be able to.
    let _: String = redis.ask(&["CONFIG", "SET", "save", ""]).await;
    let began_at = std::time::Instant::now();
    until("it can publish again", async || {
        let answer = node.send("POST", "/topics/news/events", Some(event())).await;
        (answer.status == 201).then_some(())
    })
    .await;
    assert_eq!(stream.event().await.data, "x");
    assert!(began_at.elapsed() < Duration::from_secs(12), "{:?}", began_at.elapsed());
}

fn event() -> serde_json::Value {
    serde_json::json!({ "data": "x" })
}

/// A Redis with a user `app`, and the URL of that user with a password.
async fn with_user(rules: &[&str], password: &str) -> (Redis, String) {
    let redis = Redis::start().await;
    let user = [&["ACL", "SETUSER", "app", "on", ">hunter2"], rules].concat();
    let _: String = redis.ask(&user).await;
    let url = format!("redis://app:{password}@127.0.0.1:{}", redis.port());
    (redis, url)
}

/// Writes wait for one replica.
const WAITING: &[(&str, &str)] = &[("FANTAIL_WAIT_REPLICAS", "1")];

#[tokio::test]
async fn a_user_without_the_rights_that_are_needed_is_refused_at_the_start_in_one_sentence() {
    for (rules, settings, lacking) in [
        (&["+@all", "~*", "resetchannels"][..], &[][..], "channel"),
        (&["+@all", "~*", "resetchannels", "&fantail:{index,}:*"], &[], "PUBLISH"),
        (&["+@all", "~other:*", "&*"], &[], "keys"),
        (&["+@all", "-xadd", "~*", "&*"], &[], "XADD"),
        (&["+@all", "-xlen", "~*", "&*"], &[], "XLEN"),
        (&["+@all", "-wait", "~*", "&*"], WAITING, "WAIT"),
        (&["+@all", "-evalsha", "~*", "&*"], &[], "evalsha"),
    ] {
        let (redis, url) = with_user(rules, "hunter2").await;
        let mut node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), settings).await;
        assert_eq!(node.process.ended().await, Some(1), "{rules:?}: {:?}", node.log());
        let sentence = until("it has said so", async || {
            node.log().into_iter().find(|line| line.starts_with("fantail: "))
        })
        .await;
        assert!(sentence.contains("lacks rights"), "{sentence}");
        assert!(sentence.contains(&format!("127.0.0.1:{}", redis.port())), "{sentence}");
        assert!(sentence.contains(lacking), "{lacking} is not in {sentence}");
        assert!(!node.log().concat().contains("hunter2"), "{:?}", node.log());
    }
    // And one that has them serves.
    let rules = ["+@all", "-@admin", "-wait", "~fantail:*", "&fantail:*"];
    let (_redis, url) = with_user(&rules, "hunter2").await;
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &[]).await;
    until("it publishes", async || {
        let answer = node.send("POST", "/topics/news/events", Some(event())).await;
        (answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_write_that_may_not_be_waited_for_any_more_may_have_happened_and_did() {
    let (redis, url) = with_user(&["+@all", "~*", "&*"], "hunter2").await;
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), WAITING).await;
    // Before it is ready it may still be asking for its rights, and would end without one.
    until("it is ready", async || {
        (node.send("GET", "/readyz", None).await.status == 200).then_some(())
    })
    .await;
    let mut stream = Stream::open(node.address, "/topics/news/events").await;
    let _: String = redis.ask(&["ACL", "SETUSER", "app", "-wait"]).await;
    let answer = node.send("POST", "/topics/news/events", Some(event())).await;
    assert_eq!(answer.problem(503), "outcome-unknown", "{answer:?}");
    assert_eq!(stream.event().await.data, "x");
    // What surely did nothing still says so.
    let _: String = redis.ask(&["ACL", "SETUSER", "app", "-evalsha"]).await;
    let answer = node.send("POST", "/topics/news/events", Some(event())).await;
    assert_eq!(answer.problem(503), "log-unavailable", "{answer:?}");
    let _: String = redis.ask(&["ACL", "SETUSER", "app", "+@all"]).await;
    let task = serde_json::json!({ "title": "x", "listId": "list-todo" });
    let answer = node.send("POST", "/tasks", Some(task)).await;
    assert_eq!(answer.problem(503), "outcome-unknown", "no replica is there: {answer:?}");
}

#[tokio::test]
async fn a_script_that_breaks_half_way_may_have_done_something() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    node.publish("news", "first").await;
    let _: String = redis.ask(&["SET", "fantail:{news}:log", "not ours"]).await;
    let answer = node.send("POST", "/topics/news/events", Some(event())).await;
    assert_eq!(answer.problem(503), "outcome-unknown", "{answer:?}");
    let head: u64 = redis.ask(&["GET", "fantail:{news}:seq"]).await;
    assert_eq!(head, 2, "it has counted, which is not nothing");
}

/// What Redis says when it refuses, and what tells where and what it is.
const WORDS_OF_REDIS: [&str; 9] =
    ["WRONGPASS", "WRONGTYPE", "NOAUTH", "ERR", "script", "lua", "Redis", "127.0.0.1", "redis://"];

#[tokio::test]
async fn what_redis_says_goes_to_the_log_and_not_to_strangers() {
    let (wrong, wrong_url) = with_user(&["+@all", "~*", "&*"], "letmein7").await;
    let corrupt = Redis::start().await;
    for (url, said) in [(wrong_url, "WRONGPASS"), (corrupt.url(), "WRONGTYPE")] {
        let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &[]).await;
        if said == "WRONGTYPE" {
            until("it writes", async || {
                let answer = node.send("POST", "/topics/news/events", Some(event())).await;
                (answer.status == 201).then_some(())
            })
            .await;
            let _: String = corrupt.ask(&["SET", "fantail:{news}:log", "not ours"]).await;
        }
        let task = serde_json::json!({ "title": "x", "listId": "list-todo" });
        for (method, path, body) in [
            ("POST", "/topics/news/events", Some(event())),
            ("GET", "/topics/news/history", None),
            ("POST", "/tasks", Some(task)),
            ("GET", "/boards", None),
            ("GET", "/boards/board-1", None),
            ("GET", "/readyz", None),
            ("GET", "/healthz", None),
        ] {
            let answer = node.send(method, path, body).await;
            let text = format!("{:?}", answer.body);
            for word in WORDS_OF_REDIS {
                assert!(!text.contains(word), "{path}: {word} is in {text}");
            }
        }
        until("the log has it", async || {
            node.log().iter().any(|line| line.contains(said)).then_some(())
        })
        .await;
    }
    drop(wrong);
}

#[tokio::test]
async fn a_wrong_password_and_a_server_that_is_not_there_are_told_plainly_and_without_secrets() {
    let (redis, wrong) = with_user(&["+@all", "~*", "&*"], "letmein7").await;
    let port = crate::harness::process::free_port();
    let nowhere = format!("redis://:letmein7@127.0.0.1:{port}");
    for (url, port, meaning) in [
        (wrong, redis.port(), "refuses the user or the password of FANTAIL_REDIS_URL"),
        (nowhere, port, "nothing listens where Redis should be"),
    ] {
        let settings = [("FANTAIL_LOG", "trace")];
        let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
        until("it has said so", async || {
            let place = format!("127.0.0.1:{port}");
            let says = |line: &String| line.contains(meaning) && line.contains(&place);
            node.log().iter().any(says).then_some(())
        })
        .await;
        let answer = node.send("POST", "/topics/news/events", Some(event())).await;
        assert_eq!(answer.status, 503);
        let ready = node.send("GET", "/readyz", None).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let warnings = node.log().iter().filter(|line| line.contains("WARN")).count();
        assert!(warnings <= 2, "{:?}", node.log());
        let metrics = reqwest::get(format!("http://{}/metrics", node.address)).await.unwrap();
        let said = format!("{answer:?} {ready:?} {:?} {:?}", node.log(), metrics.text().await);
        assert!(!said.contains("letmein7"), "{said}");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_is_refused_at_the_start_without_its_secrets() {
    for url in [
        "unix:///run/r.sock?db=zz&pass=hunter2",
        "redis:hunter2",
        "rediss//:hunter2",
        "redis://127.0.0.1:1/0?protocol=hunter2",
        "redis://127.0.0.1:1/0?password=hunter2",
    ] {
        let ended = std::process::Command::new(env!("CARGO_BIN_EXE_fantail"))
            .env_clear()
            .env("FANTAIL_LISTEN", "127.0.0.1:0")
            .env("FANTAIL_REDIS_URL", url)
            .env("FANTAIL_LOG", "trace")
            .output()
            .unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("FANTAIL_REDIS_URL"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn a_floor_beyond_the_head_is_told_once_and_the_stream_goes_on() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let first = node.publish("news", "first").await;
    node.publish("news", "second").await;
    let meta: String = redis.ask(&["GET", "fantail:{news}:meta"]).await;
    let [epoch, reign, _floor, sign, began] = meta.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{meta}");
    };
    let corrupt = format!("{epoch} {reign} 999999 {sign} {began}");
    let _: String = redis.ask(&["SET", "fantail:{news}:meta", &corrupt]).await;
    let mut stream = Stream::open_from(node.address, "/topics/news/events", &first).await;
    assert_eq!(stream.event().await.kind, "reset");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.metric("fantail_resets_total", "reason=\"lost\"").await, 0.0);
    node.publish("news", "third").await;
    assert_eq!(stream.event().await.data, "third");
}

#[tokio::test]
async fn a_board_whose_state_is_gone_is_refused_at_the_second_request_at_the_latest() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let board = serde_json::json!({ "id": "ours", "name": "ours" });
    assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
    // It keeps the topic in the node's memory.
    let _watching = Stream::open(node.address, "/boards/ours/events").await;
    let _: u64 = redis.ask(&["DEL", "fantail:{ours}:board"]).await;
    let path = "/boards/ours/events?snapshot=true";
    let mut stream = Stream::request(node.address, path, "").await;
    assert_eq!(stream.status, 200, "nobody knows yet");
    crate::harness::within("it to end", async { while stream.next().await.is_some() {} }).await;
    for path in [path, "/boards/ours/events", "/events?boards=ours"] {
        assert_eq!(Stream::request(node.address, path, "").await.status, 404, "{path}");
    }
    // One that has it again is served again.
    let _: u64 = redis.ask(&["HSET", "fantail:{ours}:board", "name", "\"ours\""]).await;
    let mut stream = Stream::open(node.address, path).await;
    assert_eq!(stream.event().await.kind, "snapshot");
}
