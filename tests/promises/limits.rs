//! What one client may have and do, and what all of them may: under each limit nothing is noticed,
//! above it the refusal says what it is, and afterwards all is as before.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::raw::read_answer;
use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Answer, Api, Backend, Node, Stream, on_both_logs, until, within};

const KEY: (&str, &str) = ("FANTAIL_JWT_SECRET", SECRET);

/// The tests' own machine may say for whom it asks.
const TRUSTED: (&str, &str) = ("FANTAIL_TRUSTED_PROXIES", "127.0.0.1");

fn token(subject: Option<&str>, id: &str) -> String {
    let mut claims = json!({
        "jti": id, "exp": in_seconds(600),
        "fantail": { "subscribe": ["*"], "publish": ["*"], "admin": true },
    });
    if let Some(subject) = subject {
        claims["sub"] = subject.into();
    }
    Signer::with_secret("HS256", SECRET).token(&claims)
}

/// A request of the client at this address.
async fn send_as(
    node: &Api,
    client: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Answer {
    node.send_with(method, path, &[("x-forwarded-for", client)], body).await
}

/// Opens a stream of the client at this address, or is refused.
async fn stream_as(node: &Node, client: &str, path: &str) -> Stream {
    Stream::request_with(node.address, path, &[&format!("X-Forwarded-For: {client}")]).await
}

/// Asserts that a stream was refused in a way that an `EventSource` behind a proxy survives, and
/// returns the type of the problem and when to come again.
fn refused(answer: &Answer) -> (String, u32) {
    let kind = answer.problem(503);
    (kind, answer.header("retry-after").parse().expect("a number of seconds"))
}

/// What was refused, by this reason.
async fn count_refused(node: &Api, reason: &str) -> f64 {
    node.metric("fantail_connections_refused_total", &format!("reason=\"{reason}\"")).await
}

/// So many names that nobody else has, divided by commas.
fn names(count: usize) -> String {
    let name = || (0..36).map(|_| fastrand::alphanumeric()).collect::<String>();
    std::iter::repeat_with(name).take(count).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_subject_has_as_many_streams_as_it_may_by_whatever_token_and_from_wherever() {
    let settings = [KEY, TRUSTED, ("FANTAIL_MAX_CONNECTIONS_PER_SUBJECT", "2")];
    let node = Backend::Embedded.start(&settings).await;
    let open = async |token: &str, client: &str| {
        let lines =
            [format!("Authorization: Bearer {token}"), format!("X-Forwarded-For: {client}")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        Stream::request_with(node.address, "/topics/t/events", &lines).await
    };
    let [alice, again, bob] = [("alice", "1"), ("alice", "2"), ("bob", "3")]
        .map(|(subject, id)| token(Some(subject), id));
    let operator = node.with_token(&bob);
    let first = open(&alice, "192.0.2.1").await;
    let second = open(&again, "192.0.2.2").await;
    assert_eq!([first.status, second.status], [200, 200]);
    let answer = node.with_token(&again).send("GET", "/topics/t/events", None).await;
    let (kind, seconds) = refused(&answer);
    assert!(kind == "full" && (1..=5).contains(&seconds), "{answer:?}");
    // With a ticket, too, which is not used up by that.
    let ticket = node.with_token(&alice).send("POST", "/tickets", None).await;
    let ticket = ticket.body["ticket"].as_str().unwrap().to_owned();
    let by_ticket = format!("/topics/t/events?ticket={ticket}");
    for resumes in ["", "1-k3f9"] {
        let position = [("last-event-id", resumes)];
        let refused = node.send_with("GET", &by_ticket, &position, None).await;
        assert_eq!(refused.problem(503), "full");
    }
    assert_eq!(count_refused(&operator, "subject").await, 3.0);
    // Others are not meant, and those without a name are not counted.
    let nameless = token(None, "4");
    let mut others = vec![open(&bob, "192.0.2.1").await];
    for _ in 0..3 {
        others.push(open(&nameless, "192.0.2.1").await);
    }
    assert!(others.iter().all(|stream| stream.status == 200));
    // Everything else still works.
    assert_eq!(node.with_token(&alice).send("GET", "/boards", None).await.status, 200);
    drop(first);
    until("there is a place again", async || {
        (Stream::request(node.address, &by_ticket, "").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(node.send("GET", &by_ticket, None).await.problem(401), "unauthorized");
}

on_both_logs! {
    async fn a_node_follows_as_many_topics_as_it_may(backend: Backend) {
        let node = backend.start(&[("FANTAIL_MAX_WATCHED_TOPICS", "10")]).await;
        let nine = Stream::open(node.address, "/events?topics=a,b,c,d,e,f,g,h,i").await;
        let tenth = Stream::open(node.address, "/boards/board-1/events").await;
        for path in ["/topics/j/events", "/events?topics=a,b,j", &format!("/events?topics={}", names(99))] {
            let answer = node.send("GET", path, None).await;
            assert_eq!(refused(&answer).0, "full", "{path}");
        }
        assert_eq!(count_refused(&node, "topics").await, 3.0);
        // Nothing is left of them, and what is followed can be followed by more.
        assert_eq!(node.metric("fantail_connections", "").await, 2.0);
        assert_eq!(node.metric("fantail_topics", "").await, 10.0);
        let mut more = Stream::open(node.address, "/events?topics=a,i,board-1").await;
        node.publish("i", 7).await;
        assert_eq!(more.event().await.json(), json!(7));
        // A topic that nobody follows here can be published to and read.
        node.publish("j", 1).await;
        assert_eq!(node.get("/topics/j/history").await["entries"].as_array().unwrap().len(), 1);
        drop((nine, tenth, more));
        until("there is room again", async || {
            let stream = Stream::request(node.address, "/topics/j/events", "").await;
            (stream.status == 200).then_some(())
        })
        .await;
    }

    async fn ever_new_names_from_one_address_are_bounded_and_others_do_not_notice(backend: Backend) {
        let node = backend.start(&[TRUSTED, ("FANTAIL_MAX_NEW_TOPICS", "1000/1h")]).await;
        let keys_before = match &node.redis {
            Some(redis) => redis.ask::<usize>(&["DBSIZE"]).await,
            None => 0,
        };
        let mut statuses = Vec::new();
        for _ in 0..100 {
            // Gone at once, as who only wants to make them is.
            let stream = stream_as(&node, "192.0.2.1", &format!("/events?topics={}", names(100))).await;
            statuses.push(stream.status);
        }
        assert_eq!(statuses[..10], [200; 10]);
        assert_eq!(statuses[10..], [503; 90]);
        let path = format!("/events?topics={}", names(100));
        let answer = send_as(&node, "192.0.2.1", "GET", &path, None).await;
        let (kind, seconds) = refused(&answer);
        // A hundred come back in a tenth of an hour.
        assert!(kind == "too-fast" && (300..=360).contains(&seconds), "{answer:?}");
        let limit = json!({
            "of": "newTopics", "count": 1000, "windowSeconds": 3600.0, "retryAfterSeconds": seconds,
        });
        assert_eq!(answer.body["limit"], limit);
        assert_eq!(count_refused(&node, "new_topics").await, 91.0);
        assert!(node.metric("fantail_topics", "").await <= 1000.0);
        if let Some(redis) = &node.redis {
            let keys = redis.ask::<usize>(&["DBSIZE"]).await - keys_before;
            assert!(keys <= 2_100, "{keys} keys");
        }
        // What others follow already costs nothing, and others have their own share.
        let _other = stream_as(&node, "192.0.2.2", "/events?topics=a,b").await;
        let known = stream_as(&node, "192.0.2.1", "/events?topics=b,a").await;
        assert_eq!(known.status, 200);
        assert_eq!(stream_as(&node, "192.0.2.1", "/topics/c/events").await.status, 503);
        // This machine's own are not counted.
        for _ in 0..15 {
            let own = Stream::open(node.address, &format!("/events?topics={}", names(100))).await;
            assert_eq!(own.status, 200);
        }
    }
}

#[tokio::test]
async fn the_streams_of_one_address_follow_as_many_topics_as_they_may() {
    let settings = [TRUSTED, ("FANTAIL_MAX_WATCHED_TOPICS_PER_ADDRESS", "150")];
    for reactors in ["1", "0"] {
        let settings = [&settings[..], &[("FANTAIL_REACTORS", reactors)]].concat();
        let node = Backend::Embedded.start(&settings).await;
        let topics = names(100);
        let path = format!("/events?topics={topics}");
        let first = stream_as(&node, "2001:db8::1", &path).await;
        // The same topics: it is what is held for the client that counts.
        let answer = send_as(&node, "2001:db8::2", "GET", &path, None).await;
        assert_eq!(refused(&answer).0, "full");
        let half = stream_as(&node, "2001:db8::2", &format!("/events?topics={}", names(50))).await;
        assert_eq!([first.status, half.status], [200, 200]);
        assert_eq!(stream_as(&node, "2001:db8::1", "/topics/t/events").await.status, 503);
        assert_eq!(stream_as(&node, "2001:db8:0:1::1", &path).await.status, 200);
        assert!(count_refused(&node, "address_topics").await >= 2.0);
        drop(first);
        until("there is room again", async || {
            (stream_as(&node, "2001:db8::1", &path).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_asks_as_often_as_it_may_and_health_answers_always() {
    let node = Backend::Embedded.start(&[TRUSTED, ("FANTAIL_MAX_REQUESTS", "20/1h")]).await;
    for n in 0..20 {
        let path = ["/boards", "/", "/no/such/path", "/topics/t/history"][n % 4];
        let answer = send_as(&node, "192.0.2.1", "GET", path, None).await;
        assert_ne!(answer.status, 429, "{n}");
    }
    for (method, path) in [
        ("GET", "/boards"),
        ("GET", "/"),
        ("POST", "/tasks"),
        ("GET", "/nowhere"),
        ("HEAD", "/events"),
    ] {
        let answer = send_as(&node, "192.0.2.1", method, path, None).await;
        assert_eq!(answer.status, 429, "{method} {path}");
        let seconds: u32 = answer.header("retry-after").parse().unwrap();
        // Twenty in an hour: one in three minutes.
        assert!((170..=180).contains(&seconds), "{seconds}");
        if method == "GET" {
            assert_eq!(answer.problem(429), "too-fast");
            let limit = json!({
                "of": "requests", "count": 20, "windowSeconds": 3600.0,
                "retryAfterSeconds": seconds,
            });
            assert_eq!(answer.body["limit"], limit);
        }
    }
    // A stream is refused as an `EventSource` can bear it; also as the first request of a connection.
    let answer = send_as(&node, "192.0.2.1", "GET", "/topics/t/events", None).await;
    assert_eq!(refused(&answer).0, "too-fast");
    let first = stream_as(&node, "192.0.2.1", "/topics/t/events").await;
    assert_eq!(first.status, 503);
    assert_eq!(count_refused(&node, "requests").await, 2.0);
    assert_eq!(node.metric("fantail_requests_limited_total", "requests").await, 5.0);
    for path in ["/healthz", "/readyz"] {
        for _ in 0..50 {
            assert_eq!(send_as(&node, "192.0.2.1", "GET", path, None).await.status, 200);
        }
    }
    // Others do not notice, nor does this machine.
    assert_eq!(send_as(&node, "192.0.2.2", "GET", "/boards", None).await.status, 200);
    for _ in 0..30 {
        assert_eq!(node.send("GET", "/boards", None).await.status, 200);
    }
}

#[tokio::test]
async fn streams_that_a_reactor_takes_count_as_requests() {
    let node = Backend::Embedded.start(&[TRUSTED, ("FANTAIL_MAX_REQUESTS", "5/1h")]).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(stream_as(&node, "192.0.2.1", "/topics/t/events").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503, 503]);
    // One that is refused costs its connection.
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let head = "GET /topics/t/events HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut socket).await.header("connection"), "close");
}

#[tokio::test]
async fn who_waits_as_long_as_told_is_served_again() {
    let node = Backend::Embedded.start(&[TRUSTED, ("FANTAIL_MAX_REQUESTS", "10/5s")]).await;
    let mut served = 0;
    let answer = loop {
        let answer = send_as(&node, "192.0.2.1", "GET", "/boards", None).await;
        match answer.status {
            200 => served += 1,
            _ => break answer,
        }
        assert!(served < 1_000, "there is a limit");
    };
    assert!(served >= 10);
    assert_eq!(answer.problem(429), "too-fast");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert_eq!(seconds, 1);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(send_as(&node, "192.0.2.1", "GET", "/boards", None).await.status, 200);
}

#[tokio::test]
async fn subjects_have_their_rates_wherever_they_are_and_others_behind_their_address_have_theirs() {
    let settings = [KEY, TRUSTED, ("FANTAIL_MAX_REQUESTS", "10/1h")];
    let node = Backend::Embedded.start(&settings).await;
    let [alice, again, bob] =
        [("alice", "1"), ("alice", "2"), ("bob", "3")].map(|(name, id)| token(Some(name), id));
    for n in 0..10 {
        let api = node.with_token(if n % 2 == 0 { &alice } else { &again });
        let client = format!("192.0.2.{n}");
        assert_eq!(send_as(&api, &client, "GET", "/boards", None).await.status, 200);
    }
    let alice = node.with_token(&alice);
    // Also from this machine.
    assert_eq!(alice.send("GET", "/boards", None).await.problem(429), "too-fast");
    let bob = node.with_token(&bob);
    assert_eq!(send_as(&bob, "192.0.2.1", "GET", "/boards", None).await.status, 200);
    // Who shows nothing, or nothing that is right, is their address.
    let liar = node.with_token("a.b.c");
    for n in 0..10 {
        let api = if n % 2 == 0 { &liar } else { &node.api };
        assert_eq!(send_as(api, "192.0.2.1", "GET", "/boards", None).await.status, 401);
    }
    for api in [&liar, &node.api] {
        assert_eq!(send_as(api, "192.0.2.1", "GET", "/boards", None).await.status, 429);
    }
    assert_eq!(send_as(&bob, "192.0.2.1", "GET", "/boards", None).await.status, 200);
}

#[tokio::test]
async fn by_default_only_those_without_a_token_have_a_rate_and_only_where_there_is_a_key() {
    let with_key = Backend::Embedded.start(&[KEY, TRUSTED]).await;
    let open = Backend::Embedded.start(&[TRUSTED]).await;
    let somebody = token(Some("somebody"), "1");
    let flood = async |base: &str, headers: &[(&str, &str)]| {
        let api = Api::keeping_alive(base);
        let headers = [&[("x-forwarded-for", "192.0.2.1")], headers].concat();
        let began_at = Instant::now();
        let mut limited = 0;
        for _ in 0..1_200 {
            let answer = api.send_with("GET", "/topics/t/history", &headers, None).await;
            limited += usize::from(answer.status == 429);
        }
        // What came back meanwhile.
        let more = began_at.elapsed().as_secs_f64() * 100.0;
        (limited, more)
    };
    let bearer = format!("Bearer {somebody}");
    let bearer = [("authorization", bearer.as_str())];
    let ((strangers, more), (known, _), (own, _)) = tokio::join!(
        flood(&with_key.base, &[]),
        flood(&with_key.base, &bearer),
        flood(&open.base, &[]),
    );
    // A slow machine is slower than the rate.
    assert!(strangers > 0 || more > 150.0, "{strangers} of 1,200, and {more} came back");
    assert_eq!([known, own], [0, 0]);
}

#[tokio::test]
async fn a_client_publishes_as_much_as_it_may_and_each_event_of_a_batch_counts() {
    let node = Backend::Embedded.start(&[TRUSTED, ("FANTAIL_MAX_PUBLISHED", "100/1h")]).await;
    let path = "/topics/t/events";
    let batch = |count: usize| Some(Value::Array(vec![json!({ "data": 1 }); count]));
    let publish =
        async |client: &str, count| send_as(&node, client, "POST", path, batch(count)).await;
    assert_eq!(publish("192.0.2.1", 60).await.status, 201);
    let answer = publish("192.0.2.1", 60).await;
    assert_eq!(answer.problem(429), "too-fast");
    assert_eq!(answer.body["limit"]["of"], "published");
    // Twenty that lack come back in a fifth of an hour. What was refused has cost nothing, and is nowhere.
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!((700..=720).contains(&seconds), "{seconds}");
    assert_eq!(publish("192.0.2.1", 38).await.status, 201);
    let task = json!({ "title": "t", "listId": "list-todo" });
    let created = send_as(&node, "192.0.2.1", "POST", "/tasks", Some(task)).await;
    assert_eq!(created.status, 201);
    let task = format!("/tasks/{}", created.body["id"].as_str().unwrap());
    let renamed = send_as(&node, "192.0.2.1", "PATCH", &task, Some(json!({ "title": "u" }))).await;
    assert_eq!(renamed.status, 200);
    let board = json!({ "name": "b" });
    for (method, path, body) in [
        ("DELETE", task.as_str(), None),
        ("POST", path, batch(1)),
        ("POST", "/boards", Some(board)),
        ("POST", "/boards/board-1/lists", Some(json!({ "title": "l" }))),
    ] {
        let answer = send_as(&node, "192.0.2.1", method, path, body).await;
        assert_eq!(answer.problem(429), "too-fast", "{method} {path}");
    }
    assert_eq!(node.metric("fantail_requests_limited_total", "published").await, 5.0);
    let history = node.get("/topics/t/history").await;
    assert!(history["head"].as_str().unwrap().starts_with("98-"), "{history}");
    // Reading costs nothing of it, and more than fits at once is possible for who did nothing before.
    assert_eq!(send_as(&node, "192.0.2.1", "GET", "/boards", None).await.status, 200);
    assert_eq!(publish("192.0.2.2", 500).await.status, 201);
    let answer = publish("192.0.2.2", 1).await;
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!((14_000..=14_436).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn at_the_operators_door_nobody_is_counted() {
    let settings = [TRUSTED, crate::harness::OPERATORS, ("FANTAIL_MAX_REQUESTS", "1/1h")];
    let node = Backend::Embedded.start(&settings).await;
    for _ in 0..20 {
        let answer =
            within("metrics", send_as(node.operators(), "192.0.2.1", "GET", "/metrics", None));
        assert_eq!(answer.await.status, 200);
    }
}
