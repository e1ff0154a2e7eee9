//! How long a node may do without announcements: however its connections to Redis fail, it notices
//! and is subscribed again within [`NOTICE_TIMEOUT`], and everything continues within
//! [`RECOVERY_TIMEOUT`] of the end of an outage (`docs/guarantees.md`, 6).
//!
//! `DEAD_CONNECTIONS_RUNS=10 cargo test --test promises dead_connections -- --nocapture` measures
//! more often; each test prints the median and the worst.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::proxy::{Proxy, Who};
use crate::harness::{Api, Node, Redis, Stream, takes_less_than, until};

/// From the moment at which a subscription stops to bring announcements.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// From the moment at which Redis can be reached again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// One node behind a proxy, and one beside it that has a network of its own.
struct Nodes {
    redis: Redis,
    proxy: Proxy,
    node: Node,
    publisher: Node,
    stream: Stream,
}

impl Nodes {
    async fn start() -> Nodes {
        let redis = Redis::start().await;
        let proxy = Proxy::start(redis.port(), fastrand::u64(..)).await;
        let publisher = Node::start("publisher", Some(&redis), &[]).await;
        let node = Node::start_behind("node-1", &proxy, &[]).await;
        let stream = Stream::open(node.address, "/topics/t/events").await;
        Nodes { redis, proxy, node, publisher, stream }
    }

    async fn reconnects(&self) -> f64 {
        self.node.metric("fantail_redis_reconnects_total", "").await
    }

    /// Injects a fault while the other node publishes, and measures how long it takes until the
    /// node has a subscription that brings what is announced.
    async fn unsubscribed_for(&mut self, fault: impl FnOnce(&Nodes)) -> Duration {
        // At any moment between two canaries.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
        let before = self.reconnects().await;
        let began_at = Instant::now();
        fault(self);
        let id = self.publisher.publish("t", "said to an unsubscribed node").await;
        until("the node has another subscription", async || {
            (self.reconnects().await > before).then_some(())
        })
        .await;
        let unsubscribed_for = began_at.elapsed();
        // Found by an audit, or by the comparison of heads after the reconnect.
        self.stream.until_id(&id).await;
        // What is announced comes sooner than any audit.
        takes_less_than(Duration::from_millis(500), async || {
            let announced_at = Instant::now();
            let id = self.publisher.publish("t", "announced").await;
            self.stream.until_id(&id).await;
            announced_at.elapsed()
        })
        .await;
        unsubscribed_for
    }
}

/// Asserts that it takes less than the bound, or measures it as often as is wanted and prints
/// median and worst.
async fn assert_within(what: &str, bound: Duration, mut measured: impl AsyncFnMut() -> Duration) {
    let Ok(runs) = std::env::var("DEAD_CONNECTIONS_RUNS") else {
        return takes_less_than(bound, measured).await;
    };
    let mut times = Vec::new();
    for _ in 0..runs.parse().unwrap() {
        times.push(measured().await);
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {median:.2?}, worst {worst:.2?} of {}", times.len());
    assert!(worst < bound, "{what}: {times:?}");
}

async fn assert_noticed(what: &str, fault: impl Fn(&Nodes)) {
    let mut nodes = Nodes::start().await;
    assert_within(what, NOTICE_TIMEOUT, async || nodes.unsubscribed_for(&fault).await).await;
}

#[tokio::test]
async fn a_subscription_through_which_nothing_passes_is_noticed_and_replaced() {
    assert_noticed("a black-holed subscription", |nodes| nodes.proxy.freeze(Who::Subscriptions))
        .await;
}

#[tokio::test]
async fn a_subscription_that_redis_has_closed_without_a_word_is_noticed_and_replaced() {
    assert_noticed("a half-open subscription", |nodes| nodes.proxy.half_open(Who::Subscriptions))
        .await;
}

#[tokio::test]
async fn connections_that_die_all_at_once_without_a_word_are_noticed_and_replaced() {
    assert_noticed("all connections black-holed", |nodes| nodes.proxy.freeze(Who::All)).await;
}

#[tokio::test]
async fn connections_that_are_all_half_open_are_noticed_and_replaced() {
    assert_noticed("all connections half-open", |nodes| nodes.proxy.half_open(Who::All)).await;
}

#[tokio::test]
async fn a_node_turns_from_a_demoted_master_to_its_successor() {
    assert_within("a demoted master", NOTICE_TIMEOUT, async || {
        let mut nodes = Nodes::start().await;
        let port = nodes.redis.port().to_string();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
        let first = nodes.publisher.publish("t", 0).await;
        nodes.stream.until_id(&first).await;
        until("the replica has everything", async || {
            let seq: Option<u64> = replica.ask(&["GET", "fantail:{t}:seq"]).await;
            (seq == Some(1)).then_some(())
        })
        .await;
        let _: String = replica.ask(&["REPLICAOF", "NO", "ONE"]).await;
        // Somebody who has found the new master already.
        let publisher = Node::start("successor", Some(&replica), &[]).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
        let began_at = Instant::now();
        nodes.proxy.lead_to(replica.port());
        let replicas = replica.port().to_string();
        let _: String = nodes.redis.ask(&["REPLICAOF", "127.0.0.1", &replicas]).await;
        let id = publisher.publish("t", "by the replica").await;
        let before_subscribed = nodes.stream.until_id(&id).await;
        assert!(before_subscribed.iter().all(|event| event.kind != "reset"));
        until("its canaries are heard there", async || {
            let subscribers: Vec<redis::Value> =
                replica.ask(&["PUBSUB", "CHANNELS", "*node-1"]).await;
            (!subscribers.is_empty()).then_some(())
        })
        .await;
        began_at.elapsed()
    })
    .await;
}

/// Publishes at `api` until it is taken.
async fn publish_as_soon_as_possible(api: &Api) -> String {
    until("a publish is taken", async || {
        let body = json!({ "data": "as soon as possible" });
        let answer = api.try_send("POST", "/topics/t/events", Some(body)).await.ok()?;
        (answer.status == 201).then(|| answer.position())
    })
    .await
}

/// How long after the end of an outage a publish at the node has reached the node's own
/// subscriber; and what another node said during the outage.
async fn assert_continues(what: &str, fault: impl Fn(&Proxy)) {
    let mut nodes = Nodes::start().await;
    assert_within(what, RECOVERY_TIMEOUT, async || {
        fault(&nodes.proxy);
        let during = nodes.publisher.publish("t", "during").await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..3_500))).await;
        nodes.proxy.mend();
        let mended_at = Instant::now();
        nodes.stream.until_id(&during).await;
        let told_after = mended_at.elapsed();
        let id = publish_as_soon_as_possible(&nodes.node).await;
        nodes.stream.until_id(&id).await;
        println!("{what}: what was missed after {told_after:.2?}");
        mended_at.elapsed()
    })
    .await;
}

#[tokio::test]
async fn after_a_black_hole_everything_continues() {
    assert_continues("healed after a black hole", |proxy| proxy.black_hole(Who::All)).await;
}

#[tokio::test]
async fn after_a_black_hole_that_no_connection_outlives_everything_continues() {
    assert_continues("healed for new connections after a black hole", |proxy| {
        proxy.freeze(Who::All);
        proxy.black_hole(Who::All);
    })
    .await;
}

#[tokio::test]
async fn after_a_cut_everything_continues() {
    assert_continues("healed after a cut", Proxy::cut).await;
}

#[tokio::test]
async fn after_silence_in_one_direction_everything_continues() {
    use crate::harness::proxy::Direction;
    assert_continues("healed after answers were lost", |proxy| {
        proxy.one_way(Who::All, Direction::ToNode);
    })
    .await;
    assert_continues("healed after commands were lost", |proxy| {
        proxy.one_way(Who::All, Direction::ToRedis);
    })
    .await;
}

/// What is under way is not begun again because a heartbeat is due.
#[tokio::test]
async fn reads_that_take_longer_than_a_heartbeat_arrive() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port(), fastrand::u64(..)).await;
    let node = Node::start_behind("node-1", &proxy, &[("FANTAIL_HEARTBEAT", "200ms")]).await;
    for n in 0..19 {
        node.publish("t", n).await;
    }
    node.create("card", "list-todo").await;
    proxy.slow(Duration::from_millis(300), 10_000_000);
    let reads = node.metric("fantail_replay_reads_total", "").await;
    for path in ["/topics/t/events?from=earliest", "/events?topics=t,u&from=earliest"] {
        let mut stream = Stream::open(node.address, path).await;
        for n in 1..=19 {
            assert!(stream.event().await.id.contains(&format!("{n}-")), "{path}");
        }
    }
    let mut board = Stream::open(node.address, "/boards/board-1/events?snapshot=true").await;
    assert_eq!(board.event().await.kind, "snapshot");
    let reads = node.metric("fantail_replay_reads_total", "").await - reads;
    assert!(reads <= 10.0, "{reads} reads for three streams");
}
