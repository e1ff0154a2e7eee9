//! What it costs to watch topics on which nothing happens.
//!
//! ```sh
//! IDLE_TOPICS=50000 cargo test --release --test promises idle -- --ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::client::open_many_paths;
use crate::harness::{Node, Redis, Stream, epoch, within};

/// Topics on one stream.
const TOPICS_EACH: usize = 100;

/// How long is measured: ten audits.
const MEASURED_FOR: Duration = Duration::from_secs(20);

/// How often an announcement is lost.
const LOST: usize = 20;

/// Seconds of processor time that a process has taken so far.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // The kernel counts in hundredths of a second on every architecture that we know.
    ticks as f64 / 100.0
}

/// How often each command was called.
async fn calls(redis: &Redis) -> BTreeMap<String, u64> {
    let info: String = redis.ask(&["INFO", "commandstats"]).await;
    let lines = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn watching_idle_topics() {
    let count = std::env::var("IDLE_TOPICS").map_or(50_000, |count| count.parse().unwrap());
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let paths: Vec<String> = (0..count / TOPICS_EACH)
        .map(|stream| {
            let topics = (0..TOPICS_EACH).map(|n| format!("t{}", stream * TOPICS_EACH + n));
            format!("/events?topics={}", topics.collect::<Vec<_>>().join(","))
        })
        .collect();
    let began_at = Instant::now();
    let mut streams = open_many_paths(node.address, &paths).await;
    for stream in &mut streams {
        assert!(stream.event().await.is_connected());
    }
    println!("{count} topics on {} streams opened in {:.1?}", streams.len(), began_at.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;

    let of_node = processor_seconds(node.process.pid());
    let of_redis = processor_seconds(redis.pid());
    let before = calls(&redis).await;
    let began_at = Instant::now();
    tokio::time::sleep(MEASURED_FOR).await;
    let seconds = began_at.elapsed().as_secs_f64();
    let after = calls(&redis).await;
    let audits = seconds / fantail::relay::AUDIT_EVERY.as_secs_f64();
    let of_node = processor_seconds(node.process.pid()) - of_node;
    let of_redis = processor_seconds(redis.pid()) - of_redis;
    println!(
        "processor time for each audit period of {:?}: node {:.0} ms, Redis {:.0} ms; node {} MiB",
        fantail::relay::AUDIT_EVERY,
        of_node / audits * 1e3,
        of_redis / audits * 1e3,
        node.memory_kib() >> 10
    );
    let mut sum = 0;
    for (name, calls) in after {
        let calls = calls - before.get(&name).copied().unwrap_or(0);
        sum += calls;
        if calls > 0 {
            println!("  {name:<16} {:8.1} a second", calls as f64 / seconds);
        }
    }
    println!("  all              {:8.1} a second", sum as f64 / seconds);

    // An entry that nobody announces: as if pub/sub had lost it.
    let mut found_after = Vec::new();
    for n in 0..LOST {
        let at = fastrand::usize(..streams.len());
        let topic = format!("t{}", at * TOPICS_EACH + fastrand::usize(..TOPICS_EACH));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..2_000))).await;
        let meta: String = redis.ask(&["GET", &format!("fantail:{{{topic}}}:meta")]).await;
        let epoch = epoch(&format!("0-{}", meta.split(' ').next().unwrap())).to_owned();
        let seq: u64 = redis.ask(&["INCR", &format!("fantail:{{{topic}}}:seq")]).await;
        let lost_at = Instant::now();
        let (log, id) = (format!("fantail:{{{topic}}}:log"), format!("{seq}-0"));
        let rest = format!("data: {n}\n\n");
        let fields = ["XADD", &log, &id, "e", &epoch, "t", "0", "j", "1", "f", &rest];
        redis.ask::<String>(&fields).await;
        let found = within("the audit", next_entry(&mut streams[at])).await;
        assert_eq!(found, n.to_string());
        found_after.push(lost_at.elapsed());
    }
    print("a lost announcement was found", found_after);

    // And what is said while the node has no subscription at all.
    let mut found_after = Vec::new();
    for _ in 0..LOST {
        let at = fastrand::usize(..streams.len());
        let topic = format!("t{}", at * TOPICS_EACH + fastrand::usize(..TOPICS_EACH));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..2_500))).await;
        let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let lost_at = Instant::now();
        node.publish(&topic, "said to nobody").await;
        within("the comparison of heads", next_entry(&mut streams[at])).await;
        found_after.push(lost_at.elapsed());
    }
    print("what was said to a broken subscription came", found_after);
}

fn print(what: &str, mut after: Vec<Duration>) {
    after.sort();
    let (median, worst) = (after[LOST / 2], after[LOST - 1]);
    println!("{what} after {median:.2?} in the median, {worst:.2?} at worst of {LOST}");
}

async fn next_entry(stream: &mut Stream) -> String {
    stream.event().await.data
}
