//! The measures: each starts a fresh server, drives it, checks that every stream got every event
//! once and in order, and reports numbers. One that finds anything lost reports none.

use crate::sample::{Sample, Samples};
use crate::server::{Kind, Server};

pub(crate) mod connect;
pub(crate) mod fairness;
pub(crate) mod fanout;
pub(crate) mod heartbeat;
pub(crate) mod limit;
pub(crate) mod memory;
pub(crate) mod publish;
pub(crate) mod replay;

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
}

/// What the names of topics begin with that nobody has used: a server that runs already has topics
/// of earlier runs.
pub(crate) fn new_run() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("bench-{:x}", since.as_micros())
}

/// What a measure returns.
pub(crate) type Measured = Result<Vec<Sample>, String>;
