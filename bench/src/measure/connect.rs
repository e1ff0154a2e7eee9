//! How fast many clients are taken: after a deploy they all come at once.

use super::{Measured, Settings};
use crate::load::subscribers::{Plan, Subscribers};
use crate::server::Kind;

/// Streams.
const STREAMS: usize = 5_000;

/// The time from the first `connect` to when the last stream has its opening block.
///
/// # Errors
/// When not all streams open.
pub(crate) fn connect(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("connect", kind);
    let (server, run) = settings.start(kind)?;
    server.prepare(&run, 1)?;
    let count = settings.at_most(STREAMS);
    let before = server.cpu_seconds()?[0];
    let (subscribers, took) =
        Subscribers::opened(&server, &run, &Plan::spread(1, count), settings.threads)?;
    let cpu = server.cpu_seconds()?[0] - before;
    let account = subscribers.close_complete(&[0])?;
    let case = format!("{count} streams, 1 topic");
    samples.add(&case, "connections/s", count as f64 / took.as_secs_f64());
    samples.add(&case, "all open after ms", took.as_secs_f64() * 1e3);
    samples.add(&case, "connect to greeting p99 ms", account.openings.milliseconds(0.99));
    samples.add(&case, "CPU s per 1000 connections", cpu / count as f64 * 1e3);
    Ok(samples.all)
}
