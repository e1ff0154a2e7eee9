//! What tokens grant is taken back everywhere, whatever becomes of Redis (`docs/guarantees.md`, 9).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{
    Api, Backend, Cluster, Node, Redis, Stream, on_both_logs, takes_less_than, until, within,
};

const KEY: (&str, &str) = ("FANTAIL_JWT_SECRET", SECRET);

fn signer() -> Signer {
    Signer::with_secret("HS256", SECRET)
}

/// A token of this subject and id, given a minute ago, that may follow and publish everything.
fn token(subject: &str, id: &str) -> String {
    token_of(subject, id, in_seconds(-60))
}

fn token_of(subject: &str, id: &str, issued_at: u64) -> String {
    signer().token(&json!({
        "sub": subject, "jti": id, "iat": issued_at, "exp": in_seconds(600),
        "fantail": { "subscribe": ["*"], "publish": ["*"] },
    }))
}

async fn open(node: &Node, path: &str, token: &str) -> Stream {
    let bearer = format!("Authorization: Bearer {token}");
    let mut stream = Stream::request_with(node.address, path, &[&bearer]).await;
    assert_eq!(stream.status, 200, "{}", stream.head);
    assert!(stream.event().await.is_connected());
    stream
}

async fn status(node: &Node, token: &str) -> u16 {
    let path = "/topics/news/history";
    node.with_token(token).send("GET", path, None).await.status
}

fn admin(node: &Node) -> Api {
    node.with_token(&signer().grant(json!({ "admin": true })))
}

async fn revoke(node: &Node, whom: Value) {
    let answer = admin(node).send("POST", "/admin/revoke", Some(whom)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// Asserts that nothing more comes but this goodbye.
async fn says_goodbye(stream: &mut Stream, reason: &str, retry: bool) {
    let before = stream.last_event_id().to_owned();
    let goodbye = stream.event().await;
    assert_eq!(goodbye.kind, "goodbye", "{goodbye:?}");
    assert_eq!(goodbye.json(), json!({ "reason": reason, "retry": retry }));
    // The client keeps its position.
    assert_eq!(goodbye.id, before);
    assert_eq!(within("the end of the stream", stream.next()).await, None);
}

on_both_logs! {
    async fn a_subject_loses_its_streams_and_whatever_it_could_do(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let (alice, other, bob) = (token("alice", "a-1"), token("alice", "a-2"), token("bob", "b"));
        let mut of_alice = Vec::new();
        for token in [&alice, &other] {
            of_alice.push(open(&node, "/topics/news/events", token).await);
            of_alice.push(open(&node, "/events?boards=board-1&topics=news,x", token).await);
            of_alice.push(open(&node, "/boards/board-1/events?heartbeat=event", token).await);
        }
        let mut of_bob = open(&node, "/topics/news/events", &bob).await;
        let id = node.with_token(&bob).publish("news", "before").await;
        assert_eq!(of_bob.event().await.id, id);
        for at in [0, 1, 3, 4] {
            assert!(of_alice[at].event().await.id.contains(&id));
        }

        let asked_at = Instant::now();
        revoke(&node, json!({ "subject": "alice" })).await;
        for stream in &mut of_alice {
            says_goodbye(stream, "revoked", false).await;
        }
        assert!(asked_at.elapsed() < Duration::from_secs(20), "{:?}", asked_at.elapsed());
        node.with_token(&bob).publish("news", "after").await;
        assert_eq!(of_bob.event().await.data, "after");

        for token in [&alice, &other] {
            let api = node.with_token(token);
            let event = || Some(json!({ "data": "x" }));
            for (method, path, body) in [
                ("GET", "/topics/news/events", None),
                ("GET", "/topics/news/history", None),
                ("GET", "/boards/board-1", None),
                ("POST", "/topics/news/events", event()),
                ("POST", "/tickets", None),
            ] {
                let answer = api.send(method, path, body).await;
                assert_eq!(answer.problem(401), "unauthorized", "{method} {path}");
                assert!(answer.header("www-authenticate").contains("invalid_token"));
            }
        }
        // What is issued later is another matter.
        assert_eq!(status(&node, &token_of("alice", "a-1", in_seconds(2))).await, 200);

        // And it can be undone.
        let lifted = json!({ "subject": "alice" });
        assert_eq!(admin(&node).send("DELETE", "/admin/revoke", Some(lifted)).await.status, 204);
        let mut stream = open(&node, "/topics/news/events", &alice).await;
        node.with_token(&bob).publish("news", "again").await;
        assert_eq!(stream.event().await.data, "again");
        until("ends are counted", async || {
            let name = "fantail_connections_closed_total";
            let ended = admin(&node).metric(name, r#"reason="revoked""#).await;
            (ended == 6.0).then_some(())
        })
        .await;
    }

    async fn a_token_loses_what_others_of_its_subject_keep(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let (lost, kept) = (token("alice", "lost"), token("alice", "kept"));
        let mut of_lost = open(&node, "/topics/news/events", &lost).await;
        let mut of_kept = open(&node, "/topics/news/events", &kept).await;
        revoke(&node, json!({ "tokenId": "lost" })).await;
        says_goodbye(&mut of_lost, "revoked", false).await;
        node.with_token(&kept).publish("news", "on").await;
        assert_eq!(of_kept.event().await.data, "on");
        assert_eq!(status(&node, &lost).await, 401);
        // Whenever a token of this id was issued.
        assert_eq!(status(&node, &token_of("alice", "lost", in_seconds(60))).await, 401);
        // A subject of that name is somebody else.
        assert_eq!(status(&node, &token("lost", "x")).await, 200);
    }

    async fn a_revocation_lets_go_when_it_was_to(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let alice = token("alice", "a");
        assert_eq!(status(&node, &alice).await, 200);
        let at = jiff::Timestamp::from_second(in_seconds(8) as i64).unwrap().to_string();
        revoke(&node, json!({ "subject": "alice", "expiresAt": at })).await;
        assert_eq!(status(&node, &alice).await, 401);
        until("it lets go", async || (status(&node, &alice).await == 200).then_some(())).await;
    }

    async fn only_administrators_revoke_and_only_what_has_a_name(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let whom = || Some(json!({ "subject": "alice" }));
        for method in ["POST", "DELETE"] {
            let everything_else = signer().grant(json!({ "subscribe": ["*"], "publish": ["*"] }));
            let api = node.with_token(&everything_else);
            let answer = api.send(method, "/admin/revoke", whom()).await;
            assert_eq!(answer.problem(403), "forbidden");
            assert_eq!(node.send(method, "/admin/revoke", whom()).await.problem(401), "unauthorized");
            for wrong in [
                json!({}),
                json!({ "subject": "a", "tokenId": "b" }),
                json!({ "subject": "" }),
                json!({ "subject": 1 }),
                json!({ "sub": "a" }),
                json!(["a"]),
            ] {
                let answer = admin(&node).send(method, "/admin/revoke", Some(wrong.clone())).await;
                assert_eq!(answer.problem(400), "bad-request", "{wrong}");
            }
        }
        for wrong in ["tomorrow", "2001-01-01T00:00:00Z", "2999-01-01", "", "1999999999"] {
            let body = json!({ "subject": "a", "expiresAt": wrong });
            let answer = admin(&node).send("POST", "/admin/revoke", Some(body)).await;
            assert_eq!(answer.problem(400), "bad-request", "{wrong}");
        }
        assert_eq!(status(&node, &token("alice", "a")).await, 200);
    }
}

#[tokio::test]
async fn a_revocation_holds_on_every_node_within_a_second() {
    let cluster = Cluster::start(3, &[KEY]).await;
    let mut number = 0;
    takes_less_than(Duration::from_secs(1), async || {
        number += 1;
        let subject = format!("subject-{number}");
        let token = token(&subject, "t");
        let mut streams = Vec::new();
        for node in &cluster.nodes {
            streams.push(open(node, "/topics/news/events", &token).await);
        }
        let asked_at = Instant::now();
        revoke(&cluster.nodes[number % 3], json!({ "subject": subject })).await;
        for stream in &mut streams {
            says_goodbye(stream, "revoked", false).await;
        }
        let took = asked_at.elapsed();
        for node in &cluster.nodes {
            assert_eq!(status(node, &token).await, 401);
        }
        took
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_loses_everything_gets_the_list_back_and_no_new_node_lets_anybody_pass() {
    let mut cluster = Cluster::start(2, &[KEY]).await;
    let alice = token("alice", "a");
    revoke(&cluster.nodes[0], json!({ "subject": "alice" })).await;
    revoke(&cluster.nodes[1], json!({ "tokenId": "gone" })).await;
    let lifted = json!({ "tokenId": "gone" });
    admin(&cluster.nodes[1]).send("DELETE", "/admin/revoke", Some(lifted)).await;
    for loses in ["everything", "one of two keys", "its memory"] {
        match loses {
            "everything" => {
                let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
            }
            "one of two keys" => {
                let _: i64 = cluster.redis.ask(&["DEL", "fantail:{index,}:revoked:order"]).await;
            }
            _ => {
                cluster.redis.kill();
                cluster.redis.restart().await;
            }
        }
        let new = Node::start_at("new", "127.0.0.1:0", Some(&cluster.redis.url()), &[KEY]).await;
        until(&format!("a node refuses that starts after Redis lost {loses}"), async || {
            match status(&new, &alice).await {
                401 => Some(()),
                503 => None,
                other => panic!("{other}, and Redis had lost {loses}"),
            }
        })
        .await;
        until("what was lifted is lifted", async || {
            (status(&new, &token("bob", "gone")).await == 200).then_some(())
        })
        .await;
        for node in &cluster.nodes {
            assert_eq!(status(node, &alice).await, 401);
        }
    }
}

#[tokio::test]
async fn while_redis_is_away_what_is_known_holds_and_what_is_new_holds_here_and_is_told_later() {
    let mut redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let here = &Node::start("here", Some(&redis), &[KEY]).await;
    let there = &Node::start("there", Some(&redis), &[KEY]).await;
    let (alice, bob) = (token("alice", "a"), token("bob", "b"));
    revoke(here, json!({ "subject": "alice" })).await;
    until("the other knows", async || (status(there, &alice).await == 401).then_some(())).await;
    let mut of_bob_here = open(here, "/topics/news/events", &bob).await;
    let mut of_bob_there = open(there, "/topics/news/events", &bob).await;
    redis.kill();
    for node in [here, there] {
        assert_eq!(status(node, &alice).await, 401);
    }
    let whom = json!({ "subject": "bob" });
    let answer = admin(here).send("POST", "/admin/revoke", Some(whom)).await;
    assert_eq!(answer.problem(503), "not-told-everywhere");
    assert!(!answer.header("retry-after").is_empty());
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("this holds on this node from now on"), "{detail}");
    says_goodbye(&mut of_bob_here, "revoked", false).await;
    assert_eq!(status(here, &bob).await, 401);
    // The other cannot know.
    of_bob_there.silent_for(Duration::from_millis(300)).await;

    redis.restart().await;
    let back_at = Instant::now();
    says_goodbye(&mut of_bob_there, "revoked", false).await;
    let took = back_at.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    for node in [here, there] {
        for token in [&alice, &bob] {
            assert_eq!(status(node, token).await, 401);
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_know_yet_lets_nobody_with_a_token_pass() {
    let mut redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let first = Node::start("first", Some(&redis), &[KEY]).await;
    let (alice, bob) = (token("alice", "a"), token("bob", "b"));
    revoke(&first, json!({ "subject": "alice" })).await;
    drop(first);
    redis.kill();
    let url = redis.url();
    let node = Node::start_at("second", "127.0.0.1:0", Some(&url), &[KEY]).await;
    for token in [&alice, &bob] {
        let api = node.with_token(token);
        for path in ["/topics/news/events", "/topics/news/history"] {
            let answer = api.send("GET", path, None).await;
            assert_eq!(answer.problem(503), "revocations-unknown");
            assert!(!answer.header("retry-after").is_empty());
        }
    }
    redis.restart().await;
    until("the list was read", async || match status(&node, &alice).await {
        401 => Some(()),
        503 => None,
        other => panic!("{other}"),
    })
    .await;
    until("the others pass", async || (status(&node, &bob).await == 200).then_some(())).await;
}

/// Fills the list as the scripts would.
const FILL: &str = "for n = 1, tonumber(ARGV[1]) do
  local key = string.format('%064x', n)
  redis.call('HSET', KEYS[1], key, '1 -')
  redis.call('ZADD', KEYS[2], n, key)
end
redis.call('HSET', KEYS[1], '', 'full ' .. ARGV[1])
return 'done'";

#[tokio::test]
async fn there_is_a_bound_and_whoever_reaches_it_is_told() {
    let redis = Redis::start().await;
    let keys = ["fantail:{index,}:revoked", "fantail:{index,}:revoked:order"];
    let fill = ["EVAL", FILL, "2", keys[0], keys[1], "99999"];
    redis.ask_patiently(Duration::from_secs(60), &fill).await;
    let node = Node::start("node-1", Some(&redis), &[KEY]).await;
    until("the list was read", async || {
        (status(&node, &token("somebody", "x")).await == 200).then_some(())
    })
    .await;
    revoke(&node, json!({ "subject": "the last" })).await;
    until("all of it was read", async || {
        (admin(&node).metric("fantail_revocations", "").await == 100_000.0).then_some(())
    })
    .await;
    let revoke_more = Some(json!({ "subject": "one more" }));
    let answer = admin(&node).send("POST", "/admin/revoke", revoke_more).await;
    assert_eq!(answer.problem(409), "too-many-revocations");
    assert_eq!(status(&node, &token("one more", "x")).await, 200);
    // What is there can be changed.
    revoke(&node, json!({ "subject": "the last" })).await;
    assert_eq!(status(&node, &token("the last", "x")).await, 401);
}
