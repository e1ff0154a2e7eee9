//! Every fault that we could think of, and the promises under each of them.
//!
//! A [`FaultCluster`] of three nodes, each with a proxy of its own before Redis; publishers and roaming
//! subscribers of [`fantail_check`], which keep books of everything; a [`Fault`] in the middle;
//! the verdict at the end. Nothing acknowledged is lost in silence, nothing comes twice or out of
//! order, nobody is reset without a loss.
//!
//! ```sh
//! cargo test --test promises faults                     # each fault once, for some seconds
//! make soak                                             # each for longer, then all at random
//! SOAK_SECONDS=120 SOAK_MIXED_SECONDS=900 SEED=7 make soak
//! ```

use std::time::{Duration, Instant};

use fantail_check::{Check, Kind, Plan, Verdict};

use crate::harness::fault::{Cost, Fault};
use crate::harness::fault_cluster::FaultCluster;
use crate::harness::proxy::{Channels, PubsubFaults};
use crate::harness::{Api, plan_of_check};

/// After a fault, or during one that must be bridged, everybody is delivered something new within
/// this time. Closer bounds are asserted in [`crate::dead_connections`]; this
/// leaves room for a subscriber's own wait before it comes back, and for a busy machine.
const CONTINUES_WITHIN: Duration = Duration::from_secs(5);

/// After a fault, streams that were held are opened within this time (`docs/guarantees.md`, 6).
const OPENS_WITHIN: Duration = Duration::from_secs(2);

/// What one fault has led to.
struct Suffered {
    fault: &'static str,
    verdict: Verdict,
    /// From the fault, or its end, to the moment at which everybody had something new.
    times: Vec<Duration>,
}

fn plan(cluster: &FaultCluster, cost: Cost, time: Duration) -> Plan {
    plan_of_check(&cluster.nodes, cost == Cost::Loss, time.max(Duration::from_secs(2)))
}

/// Lets a fault inject the cluster once; how long after it, or its end, everybody is served.
async fn once(
    fault: Fault,
    lasts: Duration,
    cluster: &mut FaultCluster,
    check: &Check,
) -> Duration {
    let began_at = Instant::now();
    let apis: Vec<Api> = cluster.nodes.iter().map(|node| node.operators().clone()).collect();
    let inject = fault.inject(cluster, lasts, check.topics());
    if fault.leaves_nodes_alone() {
        tokio::select! {
            () = inject => {}
            never = assert_none_leaves(&apis) => match never {},
        }
    } else {
        inject.await;
    }
    let since = if fault.is_bridged() { began_at } else { Instant::now() };
    let served = tokio::time::timeout(Duration::from_secs(30), check.next_delivery_after(since));
    served.await.unwrap_or(Duration::MAX)
}

/// A short outage takes no node out of service: it says that it is degraded, and since when
/// (`docs/guarantees.md`, 8).
async fn assert_none_leaves(apis: &[Api]) -> std::convert::Infallible {
    loop {
        for api in apis {
            let ready = api.send("GET", "/readyz", None).await;
            assert_eq!(ready.status, 200, "{ready:?}");
            let age = ready.body["canaryAgeSeconds"].as_f64().expect("an age");
            // The canary's freshness is five seconds; less than one passes on the way here.
            let expected = if age <= 5.0 { "ready" } else { "degraded" };
            assert!(ready.body["status"] == expected || age < 6.0, "{ready:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same fault again and again for `time`, at least once.
async fn suffer(fault: Fault, time: Duration) -> Suffered {
    let seed = seed();
    let mut cluster = if fault == Fault::ClocksWrong {
        FaultCluster::with_clocks(seed).await
    } else {
        FaultCluster::start(seed).await
    };
    let check = Check::start(plan(&cluster, fault.cost(), time)).await.unwrap();
    let mut times = Vec::new();
    let began_at = Instant::now();
    loop {
        cluster.pause(Duration::from_millis(200), Duration::from_millis(800)).await;
        let lasts = Duration::from_millis(cluster.random.u64(1_000..2_500));
        times.push(once(fault, lasts, &mut cluster, &check).await);
        if began_at.elapsed() >= time {
            break;
        }
    }
    tokio::join!(cluster.until_ready(), tokio::time::sleep(OPENS_WITHIN));
    let verdict = check.finish().await;
    Suffered { fault: fault.text(), verdict, times }
}

fn seed() -> u64 {
    std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap())
}

/// What is lost is lost. How long something takes has three tries, as in
/// [`takes_less_than`](crate::harness::takes_less_than).
async fn assert_survived(fault: Fault) {
    for is_last in [false, false, true] {
        let suffered = suffer(fault, Duration::ZERO).await;
        println!("{HEAD}\n{suffered}");
        let Suffered { verdict, times, .. } = suffered;
        assert!(verdict.is_kept(), "{verdict}");
        let is_in_time = times.iter().all(|time| *time < CONTINUES_WITHIN);
        if verdict.never_opened == 0 && is_in_time {
            return;
        }
        assert!(!is_last, "{times:?}\n{verdict}");
    }
}

macro_rules! survived {
    ($($name:ident: $fault:ident;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                assert_survived(Fault::$fault).await;
            }
        )+

        #[test]
        fn every_fault_has_its_test() {
            let tested = [$(Fault::$fault),+];
            for fault in Fault::ALL {
                assert!(tested.contains(fault), "{fault:?}");
            }
        }
    };
}

survived! {
    a_killed_node: NodeKilled;
    a_frozen_node: NodeFrozen;
    a_rolling_restart: NodesRestarted;
    a_node_without_descriptors: NodeWithoutDescriptors;
    killed_subscriptions: SubscriptionsKilled;
    killed_connections: ConnectionsKilled;
    a_frozen_redis: RedisFrozen;
    a_crashed_redis: RedisCrashed;
    an_emptied_redis: RedisEmptied;
    a_flushed_redis: RedisFlushed;
    a_full_redis: RedisFull;
    evicted_keys: RedisEvicting;
    a_read_only_redis: RedisReadOnly;
    a_failover: RedisFailedOver;
    a_failover_with_loss: RedisFailedOverWithLoss;
    a_redis_that_loads: RedisLoading;
    a_busy_redis: RedisBusy;
    overflowing_subscriptions: SubscriptionsOverflow;
    a_cut_network: Cut;
    a_black_hole: BlackHole;
    a_black_hole_before_one_node: BlackHoleOfOne;
    dead_connections: DeadConnections;
    dead_command_connections: DeadCommandConnections;
    half_open_connections: HalfOpen;
    lost_answers: AnswersLost;
    lost_commands: CommandsLost;
    a_slow_network: Slow;
    a_dribbling_network: Dribble;
    dropped_announcements: AnnouncementsDropped;
    dropped_topic_announcements: TopicAnnouncementsDropped;
    dropped_canaries: CanariesDropped;
    doubled_announcements: AnnouncementsDoubled;
    reordered_announcements: AnnouncementsReordered;
    abusive_clients: AbusiveClients;
    wrong_clocks: ClocksWrong;
}

// --- The long version ------------------------------------------------------------------------

const HEAD: &str = "| fault | times | acknowledged | sent again | outcome unknown | delivered | lost in silence | \
                    lost and told | duplicates | resets justified | spurious | continued after, median | worst |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|---|";

impl std::fmt::Display for Suffered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.times.clone();
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let (counts, verdict) = (self.verdict.counts, &self.verdict);
        let duplicates = counts.duplicate_appends + verdict.count(Kind::Duplicate);
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} s | {:.2} s |",
            self.fault,
            times.len(),
            counts.acknowledged,
            counts.retries,
            counts.unknown,
            counts.delivered,
            counts.lost_in_silence,
            counts.lost_and_told + counts.lost_by_log,
            duplicates,
            counts.resets_justified,
            counts.resets_spurious,
            median.as_secs_f64(),
            worst.as_secs_f64(),
        )
    }
}

fn seconds_of(name: &str, otherwise: u64) -> Duration {
    Duration::from_secs(std::env::var(name).map_or(otherwise, |text| text.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as one wants: make soak"]
async fn soak() {
    let only = std::env::var("SOAK_ONLY").unwrap_or_default();
    let (each, mixed) = (seconds_of("SOAK_SECONDS", 60), seconds_of("SOAK_MIXED_SECONDS", 300));
    println!("{HEAD}");
    let mut violated = Vec::new();
    for &fault in Fault::ALL.iter().filter(|fault| fault.text().contains(&only)) {
        let suffered = suffer(fault, each).await;
        println!("{suffered}");
        violated.extend((!suffered.verdict.is_kept()).then_some(suffered));
    }
    if !mixed.is_zero() {
        let (suffered, seed) = suffer_everything(mixed).await;
        println!("{suffered}\n\nall at random: SEED={seed}");
        violated.extend((!suffered.verdict.is_kept()).then_some(suffered));
    }
    for suffered in &violated {
        println!("\n{}\n{}", suffered.fault, suffered.verdict);
    }
    assert!(violated.is_empty(), "{} faults were not survived", violated.len());
}

/// All faults in random order.
async fn suffer_everything(time: Duration) -> (Suffered, u64) {
    let seed = seed();
    let mut cluster = FaultCluster::with_clocks(seed).await;
    let check = Check::start(plan(&cluster, Cost::Loss, time)).await.unwrap();
    let mut times = Vec::new();
    let began_at = Instant::now();
    while began_at.elapsed() < time {
        let fault = Fault::ALL[cluster.random.usize(..Fault::ALL.len())];
        let lasts = Duration::from_millis(cluster.random.u64(200..6_000));
        print!("<!-- {:.1?}: {fault:?} for {lasts:?}, ", began_at.elapsed());
        let mut often = || if cluster.random.bool() { 0.0 } else { cluster.random.f64() };
        let (drop, duplicate, reorder) = (often(), often(), often());
        // Until the next mending, which a fault of the network ends with.
        cluster.announcements(PubsubFaults {
            channels: Channels::Topics,
            drop,
            duplicate,
            reorder,
        });
        let after = once(fault, lasts, &mut cluster, &check).await;
        println!("everybody served after {after:.1?} -->");
        times.push(after);
        cluster.pause(Duration::ZERO, Duration::from_secs(2)).await;
    }
    tokio::join!(cluster.until_ready(), tokio::time::sleep(OPENS_WITHIN));
    (Suffered { fault: "all at random", verdict: check.finish().await, times }, seed)
}
