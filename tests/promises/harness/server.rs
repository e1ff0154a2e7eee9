//! [`Server`]: one topic's log in a Redis that can go back in time, by the rules of the scripts,
//! and what has [truly](super::oracle) happened to it.

use bytes::Bytes;
use fantail::entry::Entry;
use fantail::position::{Epoch, LogHistory, Position};

use super::keyspace::{Key, Keyspace};
use super::oracle::{LogEvent, Oracle};

/// One topic in a Redis process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    pub keys: Keyspace,
    replication_id: u64,
    /// What has truly happened to this log.
    pub tip: LogEvent,
    /// Since when all that was ever written to the topic is here, or was trimmed: its number is the
    /// time of whoever finds no log.
    root: LogEvent,
}

impl Server {
    pub fn new(tip: LogEvent) -> Server {
        Server { keys: Keyspace::default(), replication_id: 0, tip, root: tip }
    }

    /// A replica that takes over, or a process that starts again from an old file.
    pub fn take_over(&mut self, copy: &Server) {
        *self = Server { replication_id: self.replication_id + 1, ..copy.clone() };
    }

    /// As a replica has it.
    pub fn copy(&self) -> Server {
        Server { replication_id: 0, ..self.clone() }
    }

    pub fn flush(&mut self, oracle: &mut Oracle) {
        self.keys = Keyspace::default();
        self.begin_anew(oracle);
    }

    fn begin_anew(&mut self, oracle: &mut Oracle) {
        self.tip = oracle.anew();
        self.root = self.tip;
    }

    /// In the model time is counted in events.
    pub fn unwritten_since(&self) -> u64 {
        u64::from(self.root.0)
    }

    /// `read.lua`: what is told of the log, or of a topic without one; `None` if something is missing.
    pub fn history(&self, oracle: &mut Oracle) -> Option<LogHistory> {
        if self.keys.is_written() {
            return self.keys.history();
        }
        let history = LogHistory::unwritten(self.unwritten_since(), self.unwritten_since());
        oracle.note_unwritten(self.root, history.epoch);
        Some(history)
    }

    pub fn lose(&mut self, key: Key, oracle: &mut Oracle) {
        let was_written = self.keys.is_written();
        self.keys.lose(key);
        if was_written && !self.keys.is_written() {
            self.begin_anew(oracle);
        }
        if self.keys.meta.is_none() {
            let left = self.keys.entries(0, u64::MAX).map(|entry| entry.position.epoch);
            oracle.forget_all_but(&left.collect::<Vec<_>>());
        }
    }

    pub fn head(&self) -> Option<(Epoch, u64)> {
        self.keys.head()
    }

    /// The oldest entry that can be read.
    pub fn oldest(&self) -> u64 {
        let kept = self.keys.log.as_ref().and_then(|log| log.front());
        kept.map_or(self.keys.seq.unwrap_or(0) + 1, |entry| entry.position.seq)
    }

    /// Finds the epoch, or begins one. Says whether one began.
    pub fn begin(&mut self, oracle: &mut Oracle) -> bool {
        let epoch = oracle.next_epoch();
        let began = self.keys.open(self.replication_id, epoch, self.unwritten_since());
        if began {
            self.tip = oracle.begin(self.tip, epoch);
        }
        began
    }

    /// `open.lua`: finds the log, or makes anew what is missing of it. Makes none.
    pub fn open(&mut self, oracle: &mut Oracle) -> LogHistory {
        if self.keys.is_written() {
            self.begin(oracle);
        }
        self.history(oracle).expect("it is whole now")
    }

    /// Appends an entry; `milliseconds` are made of what it is in oracle.
    pub fn append(
        &mut self,
        oracle: &mut Oracle,
        entries_max: usize,
        milliseconds: impl FnOnce(LogEvent) -> u64,
        json: bool,
        rest: Bytes,
    ) -> Entry {
        self.begin(oracle);
        let LogHistory { epoch, head, .. } = self.open(oracle);
        self.tip = oracle.append(self.tip, Position { seq: head + 1, epoch });
        // Tails hold more than histories of so few bytes would, which no node allows.
        self.keys.append(entries_max, usize::MAX, milliseconds(self.tip), json, rest)
    }
}
