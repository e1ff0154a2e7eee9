//! What a small topic suffers from a large one: its events must not wait behind ten thousand.

use super::fanout::LAST_DELIVERY_TIMEOUT;
use super::{Measured, Settings, new_run};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Account, Plan, Subscribers};
use crate::server::{Kind, Server};

/// Streams of the large topic.
const LARGE: usize = 10_000;
/// Streams of the small one.
const SMALL: usize = 10;
/// Time between two events of a topic, and from the large one's to the small one's, in
/// microseconds.
const EVERY: u64 = 400_000;
const AFTER: u64 = 1_000;

/// Latencies of a small topic by itself, and with an event for ten thousand streams of another
/// topic one millisecond before each of its own.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub(crate) fn fairness(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("fairness", kind);
    let (server, _) = settings.start(kind)?;
    let large = settings.at_most(LARGE);
    for (case, large) in
        [("alone".to_owned(), 0), (format!("1 ms after an event to {large} streams"), large)]
    {
        let [small, big] = drive(settings, &server, large)?;
        let case = format!("topic of {SMALL}, {case}");
        for (metric, share) in
            [("latency p50 ms", 0.5), ("latency p99 ms", 0.99), ("latency max ms", 1.0)]
        {
            samples.add(&case, metric, small.latencies.milliseconds(share));
        }
        if large > 0 {
            let case = format!("topic of {large}");
            samples.add(&case, "latency p50 ms", big.latencies.milliseconds(0.5));
            samples.add(&case, "latency max ms", big.latencies.milliseconds(1.0));
        }
    }
    Ok(samples.all)
}

fn drive(settings: &Settings, server: &Server, large: usize) -> Result<[Account; 2], String> {
    let run = new_run();
    server.prepare(&run, 2)?;
    let plans = |topic: u32, count| vec![Plan::of(topic..topic + 1); count];
    // The small topic's reader has a thread of its own, or it would measure the other's.
    let (small, _) = Subscribers::opened(server, &run, &plans(1, SMALL), 1)?;
    let (big, _) = Subscribers::opened(server, &run, &plans(0, large), settings.threads)?;
    let events = if settings.quick { 5 } else { 25 };
    let mut schedule = Vec::new();
    for n in 0..events {
        if large > 0 {
            schedule.push((n * EVERY, 0));
        }
        schedule.push((n * EVERY + AFTER, 1));
    }
    let begins = clock::now() + 100_000;
    let bytes = settings.bytes;
    let job = Job { server, run: &run, topics: 2, bytes, connections: 2, begins };
    let published = publish(&job, Pace::Schedule(schedule))?;
    small.until_delivered(events * SMALL as u64, LAST_DELIVERY_TIMEOUT)?;
    if large > 0 {
        big.until_delivered(events * large as u64, LAST_DELIVERY_TIMEOUT)?;
    }
    let big = big.close_complete(&published.counts)?;
    Ok([small.close_complete(&published.counts)?, big])
}
