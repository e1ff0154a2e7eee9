//! A master that sentinels watch: whatever becomes of it, what was acknowledged is told or there,
//! and everything goes on as soon as the sentinels have another one (`docs/guarantees.md`, 2, 3, 6).
//!
//! `SENTINEL_RUNS=10 cargo test --test promises sentinel -- --nocapture` measures more often how long
//! it takes; each test prints the median and the worst.

use std::time::{Duration, Instant};

use fantail_check::{Check, Verdict};
use serde_json::json;

use crate::harness::certificates::Authority;
use crate::harness::process::{TempDir, free_port};
use crate::harness::sentinels::{Doors, NAME, Sentinel, Watched, url};
use crate::harness::{Node, OPERATORS, Redis, Stream, plan_of_check, until};

/// From the moment at which a sentinel names another master to a delivery to everybody.
const CONTINUES_WITHIN: Duration = Duration::from_secs(3);

/// In which one that is fine does it.
const CONTINUES_USUALLY_WITHIN: Duration = Duration::from_secs(1);

const SETTINGS: [(&str, &str); 4] = [
    ("FANTAIL_DRAIN", "500ms"),
    ("FANTAIL_RETRY", "200ms"),
    ("FANTAIL_HISTORY_SIZE", "100000"),
    OPERATORS,
];

async fn node(id: &str, url: &str) -> Node {
    let node = Node::start_at(id, "127.0.0.1:0", Some(url), &SETTINGS).await;
    until_ready(&node).await;
    node
}

async fn until_ready(node: &Node) {
    until("a node is ready", async || {
        let ready = node.send("GET", "/readyz", None).await;
        (ready.status == 200 && ready.body["status"] == "ready").then_some(())
    })
    .await;
}

/// The reason that operators see.
async fn until_reason(node: &Node, part: &str) -> String {
    until(&format!("operators are told {part:?}"), async || {
        let ready = node.operators().send("GET", "/readyz", None).await;
        let reason = ready.body["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains(part).then_some(reason)
    })
    .await
}

/// Publishes until it is acknowledged, however often it is refused.
async fn publish(node: &Node, topic: &str, key: &str) -> String {
    let path = format!("/topics/{topic}/events");
    until("a publish is acknowledged", async || {
        let headers = [("idempotency-key", key)];
        let answer = node.send_with("POST", &path, &headers, Some(json!({ "data": key }))).await;
        (answer.status == 201).then(|| answer.position())
    })
    .await
}

/// Everybody publishes and listens through two nodes while the master is taken away, again and
/// again. What is acknowledged arrives, or its loss is told; nobody is reset without a loss.
async fn assert_goes_on(what: &str, fault: impl AsyncFn(&mut Watched, usize) -> Instant) {
    let runs = std::env::var("SENTINEL_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let mut times = Vec::new();
    for _ in 0..runs {
        times.push(went_on_after(&fault).await);
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: goes on after median {median:.2?}, worst {worst:.2?} of {}", times.len());
    assert!(worst < CONTINUES_WITHIN, "{times:?}");
    assert!(runs < 3 || median < CONTINUES_USUALLY_WITHIN, "{times:?}");
}

/// How long it took. That streams are open in time has three tries, as in
/// [`takes_less_than`](crate::harness::takes_less_than).
async fn went_on_after(fault: &impl AsyncFn(&mut Watched, usize) -> Instant) -> Duration {
    for is_last in [false, false, true] {
        let (after, verdict) = suffered(fault).await;
        assert!(verdict.is_kept(), "{verdict}");
        if verdict.never_opened == 0 {
            return after;
        }
        assert!(!is_last, "{verdict}");
    }
    unreachable!("the last one has returned or failed")
}

async fn suffered(fault: &impl AsyncFn(&mut Watched, usize) -> Instant) -> (Duration, Verdict) {
    let mut watched = Watched::start().await;
    let nodes = [node("node-1", &watched.url()).await, node("node-2", &watched.url()).await];
    // What replicas did not have yet, and what a deposed master took before anybody knew, may be lost.
    let plan = plan_of_check(&nodes, true, Duration::from_secs(2));
    let check = Check::start(plan).await.unwrap();
    let before = watched.master().await;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(300..1_000))).await;
    let named_at = fault(&mut watched, before).await;
    let served = tokio::time::timeout(Duration::from_secs(30), check.next_delivery_after(named_at));
    let after = served.await.unwrap_or(Duration::MAX);
    for node in &nodes {
        until_ready(node).await;
        assert!(node.metric("fantail_redis_failovers_total", "").await >= 1.0);
    }
    // Streams that were held are open by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    (after, check.finish().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_is_followed_by_another() {
    assert_goes_on("a killed master", async |watched: &mut Watched, before| {
        watched.redis[before].kill();
        watched.until_failed_over(before).await.1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_hand_is_followed_although_the_old_master_lives() {
    assert_goes_on("a failover by hand", async |watched: &mut Watched, before| {
        let _: String = watched.sentinels[0].ask(&["SENTINEL", "FAILOVER", NAME]).await;
        watched.until_failed_over(before).await.1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_that_comes_back_is_not_believed() {
    assert_goes_on("a frozen master", async |watched: &mut Watched, before| {
        watched.redis[before].freeze();
        let (_, named_at) = watched.until_failed_over(before).await;
        watched.redis[before].thaw();
        named_at
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_after_a_frozen_master_came_back_is_in_the_log_of_its_successor() {
    let watched = Watched::start().await;
    let node = node("node-1", &watched.url()).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let first = publish(&node, "t", "before").await;
    assert_eq!(stream.event().await.id, first);
    let before = watched.master().await;
    // What no replica has would be lost with the master, and told.
    for redis in &watched.redis {
        until("it is everywhere", async || {
            let there: u64 = redis.ask(&["EXISTS", "fantail:{t}:log"]).await;
            (there == 1).then_some(())
        })
        .await;
    }
    watched.redis[before].freeze();
    let (after, _) = watched.until_failed_over(before).await;
    watched.redis[before].thaw();
    // It says that it is the master, and takes writes, until it is told otherwise.
    let old = &watched.redis[before];
    let info: String = old.ask(&["INFO", "replication"]).await;
    assert!(info.contains("role:master"), "{info}");
    let (mut acknowledged, thawed_at) = (0, Instant::now());
    while thawed_at.elapsed() < Duration::from_secs(2) {
        let id = publish(&node, "after", &format!("key-{acknowledged}")).await;
        acknowledged += 1;
        assert_eq!(crate::harness::seq(&id), acknowledged);
        let id = publish(&node, "t", &format!("t-{acknowledged}")).await;
        assert_eq!(stream.event().await.id, id);
    }
    let info: String = old.ask(&["INFO", "replication"]).await;
    assert!(info.contains("role:master"), "it was told before the test had begun: {info}");
    let there: u64 = old.ask(&["EXISTS", "fantail:{after}:seq"]).await;
    assert_eq!(there, 0, "something was written to a master that was deposed");
    let kept: u64 = watched.redis[after].ask(&["XLEN", "fantail:{after}:log"]).await;
    assert_eq!(kept, acknowledged);
    // Nor does anybody listen there any more.
    let words = ["PUBSUB", "NUMSUB", "fantail:{t}", "fantail:{index,}:canary:node-1"];
    let listeners: Vec<redis::Value> = old.ask(&words).await;
    let numbers: Vec<i64> =
        listeners.into_iter().filter_map(|value| redis::from_redis_value(value).ok()).collect();
    assert_eq!(numbers, [0, 0]);
    let id = publish(&node, "t", "last").await;
    assert_eq!(stream.event().await.id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sentinel_of_three_is_enough_to_start_and_to_go_on() {
    let mut watched = Watched::start().await;
    let first = node("node-1", &watched.url()).await;
    watched.sentinels[0].kill();
    watched.sentinels[1].kill();
    let mut stream = Stream::open(first.address, "/topics/t/events").await;
    let second = node("node-2", &watched.url()).await;
    let id = publish(&second, "t", "by-one").await;
    assert_eq!(stream.event().await.id, id);
    // Without any, what was known holds.
    watched.sentinels[2].kill();
    let id = publish(&second, "t", "by-none").await;
    assert_eq!(stream.event().await.id, id);
    until("the node says that it is on its own", async || {
        let lines = first.log();
        lines.iter().any(|line| line.contains("going on with the master of before")).then_some(())
    })
    .await;
    until_ready(&first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_missed_the_failover_is_not_believed_though_it_stands_first() {
    let mut watched = Watched::start().await;
    let before = watched.master().await;
    watched.redis[before].kill();
    let (after, _) = watched.until_failed_over(before).await;
    // It knows of nobody but the master that is gone, and nobody tells it anything else.
    let stale = Sentinel::start(
        watched.redis[before].port(),
        1,
        Duration::from_millis(500),
        &Doors::default(),
    )
    .await;
    assert_eq!(stale.master().await, watched.redis[before].port());
    let ports: Vec<u16> =
        [&stale].into_iter().chain(&watched.sentinels).map(Sentinel::port).collect();
    let node = node("node-1", &url(&ports)).await;
    let id = publish(&node, "t", "x").await;
    let written: Option<u64> = watched.redis[after].ask(&["GET", "fantail:{t}:seq"]).await;
    assert_eq!((written, crate::harness::seq(&id)), (Some(1), 1));
    // Nor when all others are silent.
    for sentinel in &watched.sentinels {
        sentinel.freeze();
    }
    let silent_since = Instant::now();
    let mut expected = 1;
    while silent_since.elapsed() < Duration::from_secs(3) {
        publish(&node, "t", &format!("key-{expected}")).await;
        expected += 1;
        let written: Option<u64> = watched.redis[after].ask(&["GET", "fantail:{t}:seq"]).await;
        assert_eq!(written, Some(expected));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    watched.sentinels.iter().for_each(Sentinel::thaw);
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_are_not_there_yet_are_waited_for() {
    let mut watched = Watched::start().await;
    watched.sentinels.iter_mut().for_each(Sentinel::kill);
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&watched.url()), &SETTINGS).await;
    let reason = until_reason(&node, "none of 3 sentinels").await;
    assert!(reason.contains("nothing listens"), "{reason}");
    assert_eq!(node.send("GET", "/readyz", None).await.status, 503);
    let mut held = Stream::request(node.address, "/topics/t/events", "").await;
    assert_eq!(held.status, 200);
    let write = node.send("POST", "/topics/t/events", Some(json!({ "data": 1 }))).await;
    assert_eq!(write.problem(503), "log-unavailable");
    for sentinel in &mut watched.sentinels {
        sentinel.restart().await;
    }
    assert!(held.event().await.is_connected());
    let id = publish(&node, "t", "x").await;
    assert_eq!(held.event().await.id, id);
    until_ready(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_sentinel_knows_is_told_and_the_node_goes_on_when_one_does() {
    let watched = Watched::start().await;
    let wrong = watched.url().replace(NAME, "hunter2");
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&wrong), &SETTINGS).await;
    let reason = until_reason(&node, "knows no master by the name").await;
    assert!(!reason.contains("hunter2"), "{reason}");
    let port = watched.redis[0].port().to_string();
    let words = ["SENTINEL", "MONITOR", "hunter2", "127.0.0.1", &port, "1"];
    let _: String = watched.sentinels[1].ask(&words).await;
    until_ready(&node).await;
}

/// The user of sentinels that docs/operations.md recommends, as a line of their configuration.
fn documented_line() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once("`user gateway on >").expect("the page has it");
    format!("user gateway on >{}", rest.split('`').next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_ask_for_a_user_of_their_own_who_may_do_no_more_than_is_needed() {
    let documented = documented_line();
    let password = documented.split(" >").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let doors = Doors {
        lines: vec![
            "user default off".to_owned(),
            "user all on >of-all +@all ~* &*".to_owned(),
            "sentinel sentinel-user all".to_owned(),
            "sentinel sentinel-pass of-all".to_owned(),
            documented,
        ],
        credentials: "all:of-all@".to_owned(),
    };
    let mut watched = Watched::start_with(&doors).await;
    let dir = TempDir::new();
    let file = dir.0.join("sentinel-password");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "hunter2\n").unwrap();
    let user = ("FANTAIL_REDIS_SENTINEL_USER", "gateway");
    let of_file = ("FANTAIL_REDIS_SENTINEL_PASSWORD_FILE", path);
    let trace = ("FANTAIL_LOG", "trace");
    let settings = [&SETTINGS[..], &[user, of_file, trace]].concat();
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&watched.url()), &settings).await;
    let reason = until_reason(&node, "FANTAIL_REDIS_SENTINEL_PASSWORD_FILE").await;
    assert!(reason.contains("refuses the user or the password for sentinels"), "{reason}");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    until_ready(&node).await;
    // The same by a variable.
    let by_variable = ("FANTAIL_REDIS_SENTINEL_PASSWORD", password.as_str());
    let settings = [&SETTINGS[..], &[user, by_variable, trace]].concat();
    let other = Node::start_at("node-2", "127.0.0.1:0", Some(&watched.url()), &settings).await;
    until_ready(&other).await;
    let mut stream = Stream::open(other.address, "/topics/t/events").await;
    let before = watched.master().await;
    watched.redis[before].kill();
    watched.until_failed_over(before).await;
    let id = publish(&node, "t", "by-another").await;
    assert_eq!(stream.event().await.id, id);
    for node in [&node, &other] {
        let log = node.log().join("\n");
        assert!(!log.contains("hunter2") && !log.contains(&password), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_master_are_reached_by_tls_and_known_by_their_certificates() {
    let (authority, dir) = (Authority::new(), TempDir::new());
    authority.write(&dir.0, "ca");
    Authority::new().write(&dir.0, "other");
    authority.server(&["127.0.0.1"]).write(&dir.0, "server");
    let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    let words = |port: u16| {
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", file("server.pem")),
            ("tls-key-file", file("server.key")),
            ("tls-ca-cert-file", file("ca.pem")),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    };
    let (redis_port, sentinel_port) = (free_port(), free_port());
    let arguments: Vec<String> = words(redis_port)
        .into_iter()
        .flat_map(|(word, value)| [format!("--{word}"), value])
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _redis = Redis::start_unwatched(&arguments).await;
    let lines = words(sentinel_port).map(|(word, value)| format!("{word} {value}"));
    let doors = Doors { lines: lines.to_vec(), credentials: String::new() };
    let _sentinel = Sentinel::start(redis_port, 1, Duration::from_secs(60), &doors).await;
    let url = url(&[sentinel_port]).replacen("redis-sentinel://", "redis-sentinels://", 1);
    for (ca, is_trusted) in [("other.pem", false), ("ca.pem", true)] {
        let ca = file(ca);
        let settings = [&SETTINGS[..], &[("FANTAIL_REDIS_CA", ca.as_str())]].concat();
        let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
        if is_trusted {
            until_ready(&node).await;
            let mut stream = Stream::open(node.address, "/topics/t/events").await;
            let id = publish(&node, "t", "x").await;
            assert_eq!(stream.event().await.id, id);
        } else {
            until_reason(&node, "signed by nobody who is trusted here").await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_right_stops_the_start_with_one_line() {
    use std::process::Command;
    for (url, settings, told) in [
        ("redis-sentinel://:hunter2@h", &[][..], "names no master"),
        ("redis-sentinel://a:hunter2,b/0#m", &[], "cannot be read as a URL"),
        ("redis-cluster://:hunter2@h", &[], "Redis Cluster is not supported"),
        ("redis://h", &[("FANTAIL_REDIS_SENTINEL_PASSWORD", "hunter2")], "redis-sentinel://"),
        ("redis-sentinel://h#m", &[("FANTAIL_REDIS_SENTINEL_USER", "me")], "needs a password"),
        (
            "redis-sentinel://h#m",
            &[("FANTAIL_REDIS_SENTINEL_PASSWORD_FILE", "/nowhere/at/all")],
            "cannot be read",
        ),
        (
            "redis-sentinel://h#m",
            &[
                ("FANTAIL_REDIS_SENTINEL_PASSWORD", "hunter2"),
                ("FANTAIL_REDIS_SENTINEL_PASSWORD_FILE", "/nowhere/at/all"),
            ],
            "both given",
        ),
        ("redis-sentinel://h#m", &[("FANTAIL_REDIS_CA", "/nowhere/at/all")], "redis-sentinels://"),
    ] {
        let port = free_port();
        let output = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .env("FANTAIL_LISTEN", format!("127.0.0.1:{port}"))
            .env("FANTAIL_REDIS_URL", url)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && line.contains(told), "{url}: {line}");
        assert!(line.trim().lines().count() == 1 && !line.contains("hunter2"), "{line}");
    }
}
