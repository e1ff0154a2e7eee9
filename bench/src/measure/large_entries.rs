//! What a node takes of memory when every topic that is watched has a large entry: what it keeps of
//! each must have a bound over all of them.

use super::fanout::LAST_DELIVERY_TIMEOUT;
use super::{Measured, Settings};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::process;
use crate::server::Kind;

/// Topics, each with a stream.
const TOPICS: u32 = 800;
const TOPICS_QUICK: u32 = 200;
/// Bytes of an entry's data: together with what is around it, the largest body that is taken.
const ENTRY_BYTES: usize = (1 << 20) - 256;
/// Entries a second.
const RATE: f64 = 40.0;
const MIB: f64 = (1 << 20) as f64;

/// Memory of the node, all of it, after 800 watched topics got an entry of 1 MiB each, and the most
/// that it has had meanwhile.
///
/// # Errors
/// When a stream did not get its entry.
pub(crate) fn large_entries(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("large-entries", kind);
    let (server, run) = settings.start(kind)?;
    let topics = if settings.quick { TOPICS_QUICK } else { TOPICS };
    let plans = Plan::spread(topics, topics as usize);
    let (subscribers, _) = Subscribers::opened(&server, &run, &plans, settings.threads)?;
    let job = Job {
        server: &server,
        run: &run,
        topics,
        bytes: ENTRY_BYTES,
        connections: 8,
        begins: clock::now(),
    };
    let published = publish(&job, Pace::rate(RATE, f64::from(topics) / RATE, topics))?;
    subscribers.until_delivered(u64::from(topics), LAST_DELIVERY_TIMEOUT)?;
    std::thread::sleep(settings.rest());
    let pid = *server.pids().first().ok_or("whose memory? name its --pid")?;
    let [_, peak] = process::resident_and_peak(pid)?;
    let case = format!("{topics} watched topics with 1 entry of 1 MiB each");
    samples.add(&case, "user memory of the node MiB", server.memory_bytes()? / MIB);
    samples.add(&case, "user memory of the node MiB, most", peak / MIB);
    let account = subscribers.close_complete(&published.counts)?;
    samples.add(&case, "latency p99 ms", account.latencies.milliseconds(0.99));
    Ok(samples.all)
}
