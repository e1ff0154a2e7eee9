//! What an idle stream takes of memory: the server's own, and the kernel's.

use std::time::Duration;

use super::fanout::LAST_DELIVERY_WITHIN;
use super::{Measured, Settings};
use crate::clock;
use crate::crowd::{Crowd, Plan};
use crate::process;
use crate::publisher::{Job, Pace, publish};
use crate::server::Kind;

/// Streams, one step after the other; the last as many as the limit of open files allows.
const STEPS: [usize; 3] = [1_000, 10_000, 50_000];
/// Events after which memory is read once more.
const EVENTS: u32 = 10;
/// How long memory may take to come to rest.
const REST: Duration = Duration::from_secs(2);
const REST_QUICK: Duration = Duration::from_millis(500);

/// Memory by stream, in bytes, with all streams on one topic, or each on its own.
///
/// # Errors
/// When not all streams open, or one of them fails.
pub(crate) fn memory(settings: &Settings, kind: &Kind, one_topic: bool) -> Measured {
    let mut samples = settings.samples("memory", kind);
    let rest = if settings.quick { REST_QUICK } else { REST };
    let (server, run) = settings.start(kind)?;
    let mut steps: Vec<usize> = STEPS.iter().map(|&step| settings.at_most(step)).collect();
    if settings.quick {
        steps.truncate(1);
    }
    steps.dedup();
    let topics = if one_topic { 1 } else { steps.iter().copied().max().unwrap_or(1) as u32 };
    server.prepare(&run, topics)?;
    // What serving the first stream and the first publish loads is not the streams'.
    let first = format!("{run}-first");
    server.prepare(&first, 1)?;
    let (crowd, _) = Crowd::opened(&server, &first, &Plan::spread(1, 50), settings.threads)?;
    let job = |run, topics| Job {
        server: &server,
        run,
        topics,
        bytes: settings.bytes,
        connections: 1,
        begins: clock::now(),
    };
    let published = publish(&job(&first, 1), Pace::Schedule(vec![(0, 0); EVENTS as usize]))?;
    crowd.until_delivered(50 * u64::from(EVENTS), LAST_DELIVERY_WITHIN)?;
    crowd.close_complete(&published.counts)?;
    std::thread::sleep(rest);

    let readings = || {
        Ok::<_, String>([
            server.memory_bytes()?,
            process::kernel_bytes(),
            process::socket_buffer_bytes(),
        ])
    };
    let before = readings()?;
    let mut crowds = Vec::new();
    let mut open = 0;
    let how = if one_topic { "1 topic" } else { "a topic each" };
    for step in steps {
        let spread = Plan::spread(topics, step);
        let (crowd, _) = Crowd::opened(&server, &run, &spread[open..], settings.threads)?;
        crowds.push(crowd);
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
        published = publish(&job(&run, 1), Pace::Schedule(schedule))?.counts;
        let wanted = |crowd: &Crowd| crowd.streams() as u64 * u64::from(EVENTS);
        for crowd in &crowds {
            crowd.until_delivered(wanted(crowd), LAST_DELIVERY_WITHIN)?;
        }
        std::thread::sleep(rest);
        let each = (server.memory_bytes()? - before[0]) / open as f64;
        let case = format!("{open} idle streams, {how}");
        samples.add(&case, "user memory bytes per stream, after 10 events", each);
    }
    for crowd in crowds {
        crowd.close_complete(&published)?;
    }
    Ok(samples.all)
}
