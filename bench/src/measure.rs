//! The measures: each starts a fresh server, drives it, checks that every stream got every event
//! once and in order, and reports numbers. One that finds anything lost reports none.

use std::time::Duration;

use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::sample::{Sample, Samples};
use crate::server::{Kind, Server};

pub(crate) mod append;
pub(crate) mod compression;
pub(crate) mod connect;
pub(crate) mod fairness;
pub(crate) mod fanout;
pub(crate) mod heartbeat;
pub(crate) mod large_answers;
pub(crate) mod large_entries;
pub(crate) mod limit;
pub(crate) mod memory;
pub(crate) mod publish;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod shared_topics;
pub(crate) mod unread;
pub(crate) mod watched_topics;

/// What all measures are told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Streams that one process can have at most, for its limit of open files.
    pub streams_max: usize,
    /// Threads that read streams.
    pub threads: usize,
    /// Bytes of an event's data.
    pub bytes: usize,
    /// Shorter and smaller, to see that everything works.
    pub quick: bool,
    /// The process of a server that runs already.
    pub pid: Option<u32>,
    /// Which repetition, from 1 on.
    pub run: usize,
}

impl Settings {
    /// A server for one measure, and what the names of its topics begin with.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(&self, kind: &Kind) -> Result<(Server, String), String> {
        Ok((kind.start(self.pid)?, new_run()))
    }

    /// Nothing collected yet.
    pub(crate) fn samples(&self, measure: &'static str, kind: &Kind) -> Samples {
        Samples::new(measure, &kind.name, self.run)
    }

    /// As many streams as were asked for, or as many as can be.
    pub(crate) fn at_most(&self, streams: usize) -> usize {
        streams.min(self.streams_max)
    }

    /// How long memory may take to come to rest.
    pub(crate) fn rest(&self) -> Duration {
        if self.quick { Duration::from_millis(500) } else { Duration::from_secs(2) }
    }
}

/// What the names of topics begin with that nobody has used: a server that runs already has topics
/// of earlier runs.
pub(crate) fn new_run() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("bench-{:x}", since.as_micros())
}

/// Opens some streams, publishes to them and closes them: what serving the first of them loads is
/// not the streams'.
///
/// # Errors
/// When a stream did not get everything, once and in order.
pub(crate) fn warm_up(settings: &Settings, server: &Server, run: &str) -> Result<(), String> {
    const STREAMS: usize = 50;
    const EVENTS: usize = 10;
    let run = format!("{run}-first");
    server.prepare(&run, 1)?;
    let plans = Plan::spread(1, STREAMS);
    let (subscribers, _) = Subscribers::opened(server, &run, &plans, settings.threads)?;
    let (bytes, begins) = (settings.bytes, clock::now());
    let job = Job { server, run: &run, topics: 1, bytes, connections: 1, begins };
    let published = publish(&job, Pace::Schedule(vec![(0, 0); EVENTS]))?;
    subscribers.until_delivered((STREAMS * EVENTS) as u64, fanout::LAST_DELIVERY_TIMEOUT)?;
    subscribers.close_complete(&published.counts)?;
    Ok(())
}

/// What a measure returns.
pub(crate) type Measured = Result<Vec<Sample>, String>;
