//! What an idle stream takes of memory: the server's own, and the kernel's.

use super::fanout::LAST_DELIVERY_TIMEOUT;
use super::{Measured, Settings, warm_up};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::process;
use crate::server::Kind;

/// Streams, one step after the other; the last as many as the limit of open files allows.
const STEPS: [usize; 3] = [1_000, 10_000, 50_000];
/// Events after which memory is read once more.
const EVENTS: u32 = 10;

/// Memory by stream, in bytes, with all streams on one topic, or each on its own.
///
/// # Errors
/// When not all streams open, or one of them fails.
pub(crate) fn memory(settings: &Settings, kind: &Kind, one_topic: bool) -> Measured {
    let mut samples = settings.samples("memory", kind);
    let rest = settings.rest();
    let (server, run) = settings.start(kind)?;
    let mut steps: Vec<usize> = STEPS.iter().map(|&step| settings.at_most(step)).collect();
    if settings.quick {
        steps.truncate(1);
    }
    steps.dedup();
    let topics = if one_topic { 1 } else { steps.iter().copied().max().unwrap_or(1) as u32 };
    server.prepare(&run, topics)?;
    warm_up(settings, &server, &run)?;
    std::thread::sleep(rest);

    let readings = || {
        Ok::<_, String>([
            server.memory_bytes()?,
            process::kernel_bytes(),
            process::socket_buffer_bytes(),
        ])
    };
    let before = readings()?;
    let mut groups = Vec::new();
    let mut open = 0;
    let how = if one_topic { "1 topic" } else { "a topic each" };
    for step in steps {
        let spread = Plan::spread(topics, step);
        let (subscribers, _) =
            Subscribers::opened(&server, &run, &spread[open..], settings.threads)?;
        groups.push(subscribers);
        open = step;
        std::thread::sleep(rest);
        let after = readings()?;
        let each = |n: usize| (after[n] - before[n]) / step as f64;
        let case = format!("{step} idle streams, {how}");
        samples.add(&case, "user memory bytes per stream", each(0));
        samples.add(&case, "kernel slab bytes per stream, both ends", each(1));
        samples.add(&case, "socket buffer bytes per stream, both ends", each(2));
    }
    let mut published = vec![0; topics as usize];
    if one_topic {
        // Buffers that appear with the first events and stay are part of what a stream takes.
        let schedule = (0..EVENTS).map(|n| (u64::from(n) * 200_000, 0)).collect();
        let job = Job {
            server: &server,
            run: &run,
            topics: 1,
            bytes: settings.bytes,
            connections: 1,
            begins: clock::now(),
        };
        published = publish(&job, Pace::Schedule(schedule))?.counts;
        for subscribers in &groups {
            let wanted = subscribers.streams() as u64 * u64::from(EVENTS);
            subscribers.until_delivered(wanted, LAST_DELIVERY_TIMEOUT)?;
        }
        std::thread::sleep(rest);
        let each = (server.memory_bytes()? - before[0]) / open as f64;
        let case = format!("{open} idle streams, {how}");
        samples.add(&case, "user memory bytes per stream, after 10 events", each);
    }
    for subscribers in groups {
        subscribers.close_complete(&published)?;
    }
    Ok(samples.all)
}
