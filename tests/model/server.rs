//! What scripts return in the model, and what is broken in them on purpose.

use bytes::Bytes;
use fantail::frame::Frame;
use fantail::position::LogHistory;
use fantail::wire::sse;

use crate::broken::Break;
use crate::harness::keyspace::Key;
use crate::harness::oracle::{LogEvent, Oracle};
use crate::harness::server::Server;

/// What a script returned, and the oracle at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// `None` if the topic has no log.
    pub page: Option<Page>,
    pub tip: LogEvent,
    /// The oldest entry that could be read.
    pub oldest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Page {
    pub history: LogHistory,
    pub frames: Vec<Frame>,
}

impl Answer {
    /// An answer of this moment, with this page.
    pub fn now(log: &Server, page: Option<Page>) -> Answer {
        Answer { page, tip: log.tip, oldest: log.oldest() }
    }

    /// Whether a repair has to open the topic anew.
    pub fn log_is_gone(&self) -> bool {
        let epoch = self.page.as_ref().map(|page| page.history.epoch);
        epoch.is_none_or(|epoch| epoch.unwritten_time().is_some())
    }

    /// What `read.lua` returns of everything after `after`.
    pub fn read(log: &mut Server, oracle: &mut Oracle, after: u64) -> Answer {
        let page = log.history(oracle).map(|history| {
            let frames = log.keys.entries(after, u64::MAX).map(sse::frame).collect();
            Page { history, frames }
        });
        Answer::now(log, page)
    }

    /// What `open.lua` returns.
    pub fn open(log: &mut Server, oracle: &mut Oracle, broken: Option<Break>) -> Answer {
        if log.keys.is_written() {
            begin(log, oracle, broken);
        }
        let history = log.open(oracle);
        Answer::now(log, Some(Page { history, frames: Vec::new() }))
    }
}

pub fn has(log: &Server, key: Key) -> bool {
    match key {
        Key::Seq => log.keys.seq.is_some(),
        Key::Log => log.keys.log.is_some(),
        Key::Meta => log.keys.meta.is_some(),
    }
}

/// `append.lua`: the entry, as it is announced.
pub fn append(
    log: &mut Server,
    oracle: &mut Oracle,
    entries_max: usize,
    broken: Option<Break>,
) -> Frame {
    begin(log, oracle, broken);
    // The time of an entry tells which one it is.
    let name = |log_event: LogEvent| u64::from(log_event.0);
    let rest = Bytes::from_static(b"data:\n\n");
    sse::frame(&log.append(oracle, entries_max, name, false, rest))
}

/// Which entry a frame is.
pub fn log_event(frame: &Frame) -> LogEvent {
    LogEvent(frame.milliseconds as u16)
}

fn begin(log: &mut Server, oracle: &mut Oracle, broken: Option<Break>) {
    if !log.begin(oracle) {
        return;
    }
    let Some(meta) = &mut log.keys.meta else { return };
    for (_, end) in &mut meta.past {
        match broken {
            Some(Break::EndNotedTooFar) => *end += 1,
            Some(Break::EndNotedTooEarly) => *end = end.saturating_sub(1),
            _ => {}
        }
    }
    if broken == Some(Break::PastForgotten) {
        meta.past.clear();
    }
}
