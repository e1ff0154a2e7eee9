//! Fan-out at a fixed rate: what a delivery costs, and how long it takes.

use std::time::Duration;

use super::{Measured, Settings};
use crate::clock;
use crate::crowd::{Crowd, Plan};
use crate::publisher::{Job, Pace, publish};
use crate::server::Kind;

/// Publishers' connections at most; a topic is published over one of them.
pub const PUBLISHERS: usize = 64;
/// How long opening may take.
pub const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// How long after the last publish the last delivery may come.
const LAST_DELIVERY_WITHIN: Duration = Duration::from_secs(10);
/// At the beginning, before latencies and processor time count.
const WARM_UP_SECONDS: f64 = 1.0;

/// So many streams on each of so many topics.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Topics.
    pub topics: u32,
    /// Streams on each.
    pub subscribers: usize,
    /// Deliveries a second, all together.
    pub rate: f64,
    /// For how long, without the warm-up.
    pub seconds: f64,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} at {}/s", self.topics, self.subscribers, self.rate)
    }
}

/// Latencies in milliseconds, from when a publish was due to when a stream had it, and processor
/// time by million deliveries.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub fn fanout(settings: &Settings, kind: &Kind, shape: Shape) -> Measured {
    let mut samples = settings.samples("fanout", kind);
    let (server, run) = settings.start(kind)?;
    server.prepare(&run, shape.topics)?;
    let streams = shape.topics as usize * shape.subscribers;
    if streams > settings.streams_max {
        return Err(format!("{streams} streams are more than the limit of open files allows"));
    }
    let plans = Plan::spread(shape.topics, streams);
    let crowd = Crowd::open(&server, &run, &plans, settings.threads);
    let opened = crowd.until_open(OPENS_WITHIN);
    if crowd.failed() || opened.is_err() {
        crowd.close()?;
        return Err(opened.err().unwrap_or_default());
    }

    let published_rate = shape.rate / shape.subscribers as f64;
    let begins = clock::now() + 100_000;
    let counts_from = begins + (WARM_UP_SECONDS * 1e6) as u64;
    crowd.count_from(counts_from);
    let pace = Pace::rate(published_rate, shape.seconds + WARM_UP_SECONDS, shape.topics);
    let job = Job {
        server: &server,
        run: &run,
        topics: shape.topics,
        bytes: settings.bytes,
        connections: PUBLISHERS,
        begins,
    };
    let (published, warm) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&job, pace));
        let wait = Duration::from_micros(counts_from.saturating_sub(clock::now()));
        std::thread::sleep(wait);
        let warm = server.cpu_seconds().map(|cpu| (cpu, crowd.delivered(), own_cpu()));
        let published = publisher.join().map_err(|_| "the publisher panicked".to_owned());
        (published.and_then(|result| result), warm)
    });
    let (published, (cpu_before, delivered_before, own_before)) = match (published, warm) {
        (Ok(published), Ok(warm)) => (published, warm),
        (Err(why), _) | (_, Err(why)) => {
            crowd.close()?;
            return Err(why);
        }
    };
    let wanted = published.total() * shape.subscribers as u64;
    let complete = crowd.until_delivered(wanted, LAST_DELIVERY_WITHIN);
    let cpu = server.cpu_seconds()?;
    let million = (crowd.delivered() - delivered_before) as f64 / 1e6;
    let own = own_cpu() - own_before;
    let account = crowd.close_complete(&published.counts)?;
    complete?;

    let case = shape.to_string();
    samples.add(&case, "CPU s per million deliveries", (cpu[0] - cpu_before[0]) / million);
    if server.redis.is_some() {
        samples.add(
            &case,
            "Redis CPU s per million deliveries",
            (cpu[1] - cpu_before[1]) / million,
        );
    }
    samples.add(&case, "generator CPU s per million deliveries", own / million);
    for (metric, share) in [
        ("latency p50 ms", 0.5),
        ("latency p99 ms", 0.99),
        ("latency p99.9 ms", 0.999),
        ("latency max ms", 1.0),
    ] {
        samples.add(&case, metric, account.latencies.milliseconds(share));
    }
    Ok(samples.all)
}

/// What the load itself costs.
fn own_cpu() -> f64 {
    crate::process::cpu_seconds(&[std::process::id()]).unwrap_or_default()
}
