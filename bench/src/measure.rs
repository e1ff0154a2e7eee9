//! The measures: each starts a fresh server, drives it, checks that every stream got every event
//! once and in order, and reports numbers. One that finds anything lost reports none.

use crate::sample::{Sample, Samples};
use crate::server::{Kind, Server};

pub mod fanout;

/// What all measures are told.
#[derive(Debug, Clone)]
pub struct Settings {
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
    pub fn start(&self, kind: &Kind) -> Result<(Server, String), String> {
        let server = kind.start(self.pid)?;
        // A server that runs already has topics of earlier runs.
        let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Ok((server, format!("bench-{:x}", seconds.as_millis())))
    }

    /// Nothing collected yet.
    pub fn samples(&self, measure: &'static str, kind: &Kind) -> Samples {
        Samples::new(measure, &kind.name, self.run)
    }
}

/// What a measure returns.
pub type Measured = Result<Vec<Sample>, String>;
