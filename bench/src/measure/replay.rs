//! The stampede after a deploy: thousands of clients come back at once, each for what it missed.

use std::sync::Arc;
use std::time::Duration;

use super::{Measured, Settings};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::server::Kind;

/// Clients.
const STREAMS: usize = 10_000;
/// Events that there are.
const EVENTS: u32 = 1_000;
/// Events that a client missed; with different positions, on average.
const MISSED: u32 = 100;
/// How long it may take until all have everything.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(120);

/// The time from the first `connect` until every client has what it missed, and what Redis was
/// asked for it. A gateway with Redis has just started and has nothing in memory.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub(crate) fn replay(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("replay", kind);
    let clients = settings.at_most(if settings.quick { 2_000 } else { STREAMS });
    for different in [false, true] {
        let (mut server, run) = settings.start(kind)?;
        let begins = clock::now();
        let bytes = settings.bytes;
        let job = Job { server: &server, run: &run, topics: 1, bytes, connections: 1, begins };
        let published = publish(&job, Pace::Schedule(vec![(0, 0); EVENTS as usize]))?;
        let (_, epoch) = published.last_id.split_once('-').ok_or("publishing returned no id")?;
        if kind.has_redis() {
            server = kind.start_on(server.end(), settings.pid)?;
        }
        let plan = |n: usize| {
            let missed = if different { 1 + n as u32 % (2 * MISSED - 1) } else { MISSED };
            let position = EVENTS - missed;
            let id = Arc::from(format!("{position}-{epoch}"));
            Plan { first: position + 1, last_event_id: Some(id), ..Plan::of(0..1) }
        };
        let plans: Vec<Plan> = (0..clients).map(plan).collect();
        let wanted = plans.iter().map(|plan| u64::from(EVENTS + 1 - plan.first)).sum();
        if let Some(redis) = &server.redis {
            redis.ask(&["CONFIG", "RESETSTAT"])?;
        }
        let before = server.cpu_seconds()?[0];
        let began = clock::now();
        let subscribers = Subscribers::open(&server, &run, &plans, settings.threads);
        let complete = subscribers.until_delivered(wanted, COMPLETE_TIMEOUT);
        let took = clock::now() - began;
        let cpu = server.cpu_seconds()?[0] - before;
        subscribers.close_complete(&published.counts)?;
        complete?;
        let positions = if different { "different positions" } else { "the same position" };
        let case = format!("{clients} clients, {positions}");
        samples.add(&case, "all complete after ms", took as f64 / 1e3);
        samples.add(&case, "CPU s per million replayed events", cpu / wanted as f64 * 1e6);
        if let Some(redis) = &server.redis {
            samples.add(&case, "Redis XRANGE calls", redis.calls("xrange")?);
            samples.add(&case, "Redis script calls", redis.calls("evalsha")?);
        }
    }
    Ok(samples.all)
}
