//! Fan-out at a fixed rate: what a delivery costs, and how long it takes.

use std::time::Duration;

use super::{Measured, Settings, new_run};
use crate::clock;
use crate::histogram::Histogram;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Account, Plan, Subscribers};
use crate::server::{Kind, Server};

/// Publishers' connections at most; a topic is published over one of them.
pub(crate) const PUBLISHERS: usize = 64;
/// How long after the last publish the last delivery may come.
pub(crate) const LAST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// So many streams on each of so many topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Topics.
    pub topics: u32,
    /// Streams on each.
    pub subscribers: usize,
    /// Topics of one stream.
    pub topics_each: u32,
    /// Deliveries a second, all together.
    pub rate: f64,
    /// Events that are due at the same moment.
    pub burst: u32,
    /// For how long, without the warm-up.
    pub seconds: f64,
    /// At the beginning, before latencies and processor time count.
    pub warm_up_seconds: f64,
}

impl Shape {
    /// Streams of one topic each, for four seconds after one that does not count.
    pub(crate) fn of(topics: u32, subscribers: usize, rate: f64) -> Shape {
        Shape {
            topics,
            subscribers,
            topics_each: 1,
            rate,
            burst: 1,
            seconds: 4.0,
            warm_up_seconds: 1.0,
        }
    }

    fn streams(&self) -> usize {
        self.topics as usize * self.subscribers / self.topics_each as usize
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { topics, subscribers, topics_each, rate, burst, .. } = self;
        write!(f, "{topics} × {subscribers}, ")?;
        if *topics_each > 1 {
            write!(f, "{topics_each} topics a stream, ")?;
        }
        write!(f, "{rate:.0}/s")?;
        if *burst > 1 { write!(f, ", {burst} at a time") } else { Ok(()) }
    }
}

/// What a shape cost; processor time without the warm-up.
pub(crate) struct Cost {
    /// What the streams got.
    pub account: Account,
    /// From when a publish was due to when it was sent, if it did not have to wait for an answer.
    pub lateness: Histogram,
    /// Deliveries that the processor time is for.
    pub delivered: u64,
    /// How often streams had something to read for them.
    pub reads: u64,
    /// Seconds of the server and of its Redis.
    pub cpu: [f64; 2],
    /// Seconds of the load.
    pub own_cpu: f64,
}

/// Drives one shape.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub(crate) fn drive(settings: &Settings, server: &Server, shape: Shape) -> Result<Cost, String> {
    let run = new_run();
    server.prepare(&run, shape.topics)?;
    let streams = shape.streams();
    if streams > settings.streams_max {
        return Err(format!("{streams} streams are more than the limit of open files allows"));
    }
    let plans = Plan::spread_groups(shape.topics, shape.topics_each, streams);
    let (subscribers, _) = Subscribers::opened(server, &run, &plans, settings.threads)?;

    let begins = clock::now() + 100_000;
    let counts_from = begins + (shape.warm_up_seconds * 1e6) as u64;
    subscribers.count_from(counts_from);
    let seconds = shape.seconds + shape.warm_up_seconds;
    let rate = shape.rate / shape.subscribers as f64;
    let pace = Pace::bursts(shape.burst, rate, seconds, shape.topics);
    let job = Job {
        server,
        run: &run,
        topics: shape.topics,
        bytes: settings.bytes,
        connections: PUBLISHERS,
        begins,
    };
    let usage =
        || Ok((server.cpu_seconds()?, subscribers.delivered(), subscribers.reads(), own_cpu()));
    let (published, warm) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&job, pace));
        std::thread::sleep(Duration::from_micros(counts_from.saturating_sub(clock::now())));
        let warm: Result<_, String> = usage();
        let published = publisher.join().map_err(|_| "the publisher panicked".to_owned());
        (published.and_then(|result| result), warm)
    });
    // A stream that failed says more than the publisher that fails for it.
    let (published, warm) = match (published, warm) {
        (Ok(published), Ok(warm)) => (published, warm),
        (Err(why), _) | (_, Err(why)) => return Err(subscribers.close().err().unwrap_or(why)),
    };
    let wanted = published.total() * shape.subscribers as u64;
    let complete = subscribers.until_delivered(wanted, LAST_DELIVERY_TIMEOUT);
    let end = usage()?;
    let account = subscribers.close_complete(&published.counts)?;
    complete?;
    Ok(Cost {
        account,
        lateness: published.lateness,
        delivered: end.1 - warm.1,
        reads: end.2 - warm.2,
        cpu: [end.0[0] - warm.0[0], end.0[1] - warm.0[1]],
        own_cpu: end.3 - warm.3,
    })
}

/// Latencies in milliseconds, from when a publish was due to when a stream had it, and processor
/// time by million deliveries.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub(crate) fn fanout(settings: &Settings, kind: &Kind, shape: Shape) -> Measured {
    let mut samples = settings.samples("fanout", kind);
    let (server, _) = settings.start(kind)?;
    let cost = drive(settings, &server, shape)?;
    let case = shape.to_string();
    let million = cost.delivered as f64 / 1e6;
    samples.add(&case, "CPU s per million deliveries", cost.cpu[0] / million);
    if server.redis.is_some() {
        samples.add(&case, "Redis CPU s per million deliveries", cost.cpu[1] / million);
    }
    samples.add(&case, "generator CPU s per million deliveries", cost.own_cpu / million);
    samples.add(&case, "generator late p99 ms", cost.lateness.milliseconds(0.99));
    // Below 1 if a server, or the generator's reading, took several events together.
    samples.add(&case, "reads per delivery", cost.reads as f64 / cost.delivered as f64);
    for (metric, share) in [
        ("latency p50 ms", 0.5),
        ("latency p99 ms", 0.99),
        ("latency p99.9 ms", 0.999),
        ("latency max ms", 1.0),
    ] {
        samples.add(&case, metric, cost.account.latencies.milliseconds(share));
    }
    Ok(samples.all)
}

/// What the load itself costs.
fn own_cpu() -> f64 {
    crate::process::cpu_seconds(&[std::process::id()]).unwrap_or_default()
}
