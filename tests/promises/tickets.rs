//! One-time tickets: what stands in an address in the place of a token (`docs/api.md`).

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Answer, Backend, Cluster, Node, Redis, Stream, on_both_logs, until, within};

const KEY: (&str, &str) = ("FANTAIL_JWT_SECRET", SECRET);

fn signer() -> Signer {
    Signer::with_secret("HS256", SECRET)
}

fn token(subject: &str, topics: &[&str]) -> String {
    signer().token(&json!({
        "sub": subject, "jti": subject, "iat": in_seconds(-60), "exp": in_seconds(600),
        "fantail": { "subscribe": topics },
    }))
}

async fn ask(node: &Node, token: &str) -> Answer {
    node.with_token(token).send("POST", "/tickets", None).await
}

async fn ticket(node: &Node, token: &str) -> String {
    let answer = ask(node, token).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    answer.body["ticket"].as_str().unwrap().to_owned()
}

async fn come(node: &Node, ticket: &str, headers: &[&str]) -> Stream {
    Stream::request_with(node.address, &format!("/topics/news/events?ticket={ticket}"), headers)
        .await
}

/// Asserts that the stream says this goodbye, first of all if nothing else, and ends.
async fn says_goodbye(stream: &mut Stream, reason: &str, retry: bool) {
    let goodbye = stream.event().await;
    assert_eq!(goodbye.kind, "goodbye", "{goodbye:?}");
    assert_eq!(goodbye.json(), json!({ "reason": reason, "retry": retry }));
    assert_eq!(within("the end of the stream", stream.next()).await, None);
}

on_both_logs! {
    async fn a_ticket_opens_one_stream_and_whoever_comes_back_with_it_is_told_once(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let answer = ask(&node, &token("alice", &["news"])).await;
        assert_eq!(answer.status, 201);
        let expires_at: jiff::Timestamp =
            answer.body["expiresAt"].as_str().unwrap().parse().unwrap();
        let left = expires_at.as_second() - in_seconds(0) as i64;
        assert!((28..=30).contains(&left), "{left}");
        let ticket = answer.body["ticket"].as_str().unwrap();
        assert_eq!(answer.body.as_object().unwrap().len(), 2);

        let mut stream = come(&node, ticket, &[]).await;
        assert_eq!(stream.status, 200, "{}", stream.head);
        assert!(stream.head.contains("referrer-policy: no-referrer"), "{}", stream.head);
        let connected = stream.event().await;
        assert!(connected.is_connected());
        let all = node.with_token(&signer().everything());
        let id = all.publish("news", "one").await;
        assert_eq!(stream.event().await.id, id);

        // Somebody else has found it in a log.
        let stolen = come(&node, ticket, &[]).await;
        assert_eq!(stolen.status, 401, "{}", stolen.head);
        // An EventSource comes back, once; then it is over.
        let position = format!("Last-Event-ID: {id}");
        let mut back = come(&node, ticket, &[&position]).await;
        assert_eq!(back.status, 200, "{}", back.head);
        assert!(back.head.contains("content-type: text/event-stream"), "{}", back.head);
        says_goodbye(&mut back, "ticket", false).await;
        assert_eq!(come(&node, ticket, &[&position]).await.status, 401);
        // The stream is not disturbed by any of it.
        let id = all.publish("news", "two").await;
        assert_eq!(stream.event().await.id, id);
    }

    async fn a_ticket_is_worth_what_its_token_is_and_only_on_streams(backend: Backend) {
        let node = backend.start(&[KEY, ("FANTAIL_TICKET_TTL", "6s")]).await;
        let alice = token("alice", &["news"]);
        let other = ticket(&node, &alice).await;
        let path = format!("/events?topics=news,secrets&ticket={other}");
        let refused = node.send("GET", &path, None).await;
        assert_eq!(refused.problem(403), "forbidden");
        assert!(refused.body["detail"].as_str().unwrap().contains("secrets"), "{refused:?}");

        let fresh = ticket(&node, &alice).await;
        for path in ["/topics/news/history", "/boards/board-1", "/boards", "/metrics", "/healthz"] {
            let answer = node.send("GET", &format!("{path}?ticket={fresh}"), None).await;
            // Where a token is needed, a ticket is none.
            assert!(matches!(answer.status, 400 | 401), "{path}: {answer:?}");
        }
        let event = Some(json!({ "data": "x" }));
        let write = node.send("POST", &format!("/topics/news/events?ticket={fresh}"), event).await;
        assert!(matches!(write.status, 400 | 401), "{write:?}");
        let history = format!("/topics/news/history?ticket={fresh}");
        let answer = node.with_token(&alice).send("GET", &history, None).await;
        assert_eq!(answer.problem(400), "bad-request");
        // None of that has used it.
        let mut stream = come(&node, &fresh, &[]).await;
        assert!(stream.event().await.is_connected());

        let late = ticket(&node, &alice).await;
        tokio::time::sleep(Duration::from_millis(6_100)).await;
        assert_eq!(come(&node, &late, &[]).await.status, 401);
        assert_eq!(come(&node, &late, &["Last-Event-ID: 1-k3f9"]).await.status, 401);
        for made_up in ["", "x", &"0".repeat(64), &"é".repeat(32), &late[1..]] {
            assert_eq!(come(&node, made_up, &[]).await.status, 401, "{made_up}");
        }
        let anonymous = node.send("POST", "/tickets", None).await;
        assert_eq!(anonymous.problem(401), "unauthorized");
    }

    async fn the_stream_of_a_ticket_ends_with_its_token(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        // A node that has just started takes a moment until it knows what is revoked.
        ticket(&node, &token("alice", &["news"])).await;
        let short = signer().token(&json!({
            "sub": "bob", "exp": in_seconds(8), "fantail": { "subscribe": ["news"] },
        }));
        let short_ticket = ticket(&node, &short).await;
        let unused = ticket(&node, &short).await;
        let mut stream = come(&node, &short_ticket, &[]).await;
        assert!(stream.event().await.is_connected());
        says_goodbye(&mut stream, "expired", false).await;
        // The one that was not used is of the same token.
        assert_eq!(come(&node, &unused, &[]).await.status, 401);

        for whom in [json!({ "subject": "alice" }), json!({ "tokenId": "alice" })] {
            let alice = token("alice", &["news"]);
            let (used, unused) = (ticket(&node, &alice).await, ticket(&node, &alice).await);
            let mut stream = come(&node, &used, &[]).await;
            assert!(stream.event().await.is_connected());
            let admin = node.with_token(&signer().grant(json!({ "admin": true })));
            let revoked = admin.send("POST", "/admin/revoke", Some(whom.clone())).await;
            assert_eq!(revoked.status, 204, "{revoked:?}");
            says_goodbye(&mut stream, "revoked", false).await;
            assert_eq!(come(&node, &unused, &[]).await.status, 401);
            let lifted = admin.send("DELETE", "/admin/revoke", Some(whom)).await;
            assert_eq!(lifted.status, 204, "{lifted:?}");
        }
    }

    async fn few_tickets_wait_and_those_that_were_used_make_room(backend: Backend) {
        let node = backend.start(&[KEY]).await;
        let alice = token("alice", &["news"]);
        let api = node.with_token(&alice);
        let mut tickets = Vec::new();
        while tickets.len() < 200 {
            let answer = api.send("POST", "/tickets", None).await;
            assert_eq!(answer.status, 201, "{}: {answer:?}", tickets.len());
            tickets.push(answer.body["ticket"].as_str().unwrap().to_owned());
        }
        let refused = api.send("POST", "/tickets", None).await;
        assert_eq!(refused.problem(429), "too-many-tickets");
        assert!(!refused.header("retry-after").is_empty());
        // Others are not refused for that.
        ticket(&node, &token("bob", &["news"])).await;
        assert_eq!(come(&node, &tickets[7], &[]).await.status, 200);
        assert_eq!(api.send("POST", "/tickets", None).await.status, 201);
        assert_eq!(api.send("POST", "/tickets", None).await.problem(429), "too-many-tickets");
    }
}

#[tokio::test]
async fn a_ticket_is_good_on_any_node_and_for_one_of_all_who_come_with_it() {
    let cluster = Cluster::start(2, &[KEY]).await;
    let alice = token("alice", &["news"]);
    for n in 0..5 {
        let ticket = ticket(&cluster.nodes[n % 2], &alice).await;
        let comers = (0..20).map(|n| come(&cluster.nodes[n % 2], &ticket, &[]));
        let streams = join_all(comers).await;
        let opened = streams.iter().filter(|stream| stream.status == 200).count();
        assert_eq!(opened, 1);
        assert!(streams.iter().all(|stream| [200, 401].contains(&stream.status)));
    }
}

#[tokio::test]
async fn a_node_that_has_no_place_leaves_the_ticket_to_the_next() {
    let redis = Redis::start().await;
    let small = [KEY, ("FANTAIL_MAX_CONNECTIONS", "1")];
    let full = Node::start("full", Some(&redis), &small).await;
    let other = Node::start("other", Some(&redis), &[KEY]).await;
    let alice = token("alice", &["news"]);
    let mut first = come(&full, &ticket(&full, &alice).await, &[]).await;
    assert!(first.event().await.is_connected());
    let second = ticket(&full, &alice).await;
    assert_eq!(come(&full, &second, &[]).await.status, 503);
    assert_eq!(come(&other, &second, &[]).await.status, 200);
}

#[tokio::test]
async fn while_redis_is_away_there_are_no_tickets_and_whoever_asks_is_told_when_to_come_back() {
    let mut cluster = Cluster::start(1, &[KEY]).await;
    let node = &cluster.nodes[0];
    let alice = token("alice", &["news"]);
    let before = ticket(node, &alice).await;
    cluster.redis.kill();
    let refused = ask(node, &alice).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    let stream = come(node, &before, &[]).await;
    assert_eq!(stream.status, 503, "{}", stream.head);
    assert!(stream.head.contains("retry-after"), "{}", stream.head);
    cluster.redis.restart().await;
    until("there are tickets again", async || {
        (ask(node, &alice).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn redis_knows_no_ticket_and_forgets_what_it_knows_by_itself() {
    let cluster = Cluster::start(1, &[KEY, ("FANTAIL_TICKET_TTL", "2s")]).await;
    let (node, redis) = (&cluster.nodes[0], &cluster.redis);
    let alice = token("alice", &["news"]);
    let (used, unused) = (ticket(node, &alice).await, ticket(node, &alice).await);
    assert_eq!(come(node, &used, &[]).await.status, 200);
    let keys = async || -> Vec<String> {
        let mut keys: Vec<String> = redis.ask(&["KEYS", "*ticket*"]).await;
        keys.sort();
        keys
    };
    let known = keys().await;
    assert!(known.len() >= 3, "{known:?}");
    for key in &known {
        // As a copy of the database would have it.
        let dump: Vec<u8> = redis.ask(&["DUMP", key]).await;
        let dump = String::from_utf8_lossy(&dump).into_owned();
        for secret in [&used, &unused, &alice] {
            assert!(!key.contains(secret.as_str()) && !dump.contains(secret.as_str()), "{key}");
        }
        let expires: i64 = redis.ask(&["PTTL", key]).await;
        assert!(expires > 0, "{key} stays for ever");
    }
    until("what waited is gone", async || {
        let left = keys().await;
        (left == ["fantail:{index,}:tickets:used"]).then_some(())
    })
    .await;
}
