//! What an idle stream of several topics takes of memory, if others have the same topics: pages
//! that show some boards each, or tell of an account's notifications beside them.

use super::{Measured, Settings, warm_up};
use crate::load::subscribers::{Plan, Subscribers};
use crate::server::Kind;

/// Streams.
const STREAMS: usize = 10_000;
/// Topics of a stream: all streams have the same.
pub(crate) const TOPICS: [u32; 4] = [1, 2, 5, 100];

/// Memory by stream, in bytes, with so many topics on each, which all streams share.
///
/// # Errors
/// When not all streams open, or one of them fails.
pub(crate) fn shared_topics(settings: &Settings, kind: &Kind, topics: u32) -> Measured {
    let mut samples = settings.samples("shared-topics", kind);
    let (server, run) = settings.start(kind)?;
    let count = settings.at_most(if settings.quick { STREAMS / 2 } else { STREAMS });
    warm_up(settings, &server, &run)?;
    std::thread::sleep(settings.rest());
    let before = server.memory_bytes()?;
    let plans = Plan::spread_groups(topics, topics, count);
    let (subscribers, took) = Subscribers::opened(&server, &run, &plans, settings.threads)?;
    std::thread::sleep(settings.rest());
    let each = (server.memory_bytes()? - before) / count as f64;
    subscribers.close_complete(&vec![0; topics as usize])?;
    let plural = if topics == 1 { "" } else { "s" };
    let case = format!("{count} idle streams of {topics} shared topic{plural}");
    samples.add(&case, "user memory bytes per stream", each);
    samples.add(&case, "connections/s", count as f64 / took.as_secs_f64());
    Ok(samples.all)
}
