//! What streams cost on which nothing happens: a comment every 15 s.

use std::time::Duration;

use super::{Measured, Settings};
use crate::load::subscribers::{Plan, Subscribers};
use crate::server::Kind;

/// Streams, or as many as the limit of open files allows.
const STREAMS: usize = 50_000;
/// Silence after which every server here is set to send something, in seconds.
const HEARTBEAT_SECONDS: u64 = 15;

/// Processor time of idle streams.
///
/// # Errors
/// When a stream fails, or heartbeats are missing.
pub(crate) fn heartbeat(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("heartbeat", kind);
    let (server, run) = settings.start(kind)?;
    server.prepare(&run, 1)?;
    let count = settings.at_most(STREAMS);
    let seconds = if settings.quick { HEARTBEAT_SECONDS } else { 2 * HEARTBEAT_SECONDS };
    let (subscribers, _) =
        Subscribers::opened(&server, &run, &Plan::spread(1, count), settings.threads)?;
    std::thread::sleep(Duration::from_secs(1));
    let (before, reads_before) = (server.cpu_seconds()?, subscribers.reads());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, reads) = (server.cpu_seconds()?, subscribers.reads() - reads_before);
    subscribers.close_complete(&[0])?;
    // The interval is not cut to the microsecond by any of them.
    let wanted = count as u64 * (seconds / HEARTBEAT_SECONDS);
    if reads < wanted * 9 / 10 {
        return Err(format!("only {reads} of {wanted} heartbeats came"));
    }
    let case = format!("{count} idle streams, {seconds} s");
    let milliseconds = |n: usize| (after[n] - before[n]) / seconds as f64 * 1e3;
    samples.add(&case, "CPU ms per second", milliseconds(0));
    if server.redis.is_some() {
        samples.add(&case, "Redis CPU ms per second", milliseconds(1));
    }
    Ok(samples.all)
}
