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
}

impl Server {
    pub fn new(tip: LogEvent) -> Server {
        Server { keys: Keyspace::default(), replication_id: 0, tip }
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
        self.tip = oracle.anew();
    }

    pub fn lose(&mut self, key: Key, oracle: &mut Oracle) {
        self.keys.lose(key);
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
        let is_left = self.keys.seq.is_some() || self.keys.log.is_some();
        let epoch = oracle.next_epoch();
        let began = self.keys.open(self.replication_id, epoch);
        if began {
            if !is_left {
                self.tip = oracle.anew();
            }
            self.tip = oracle.begin(self.tip, epoch);
        }
        began
    }

    /// Finds the log, or makes it.
    pub fn open(&mut self, oracle: &mut Oracle) -> LogHistory {
        self.begin(oracle);
        self.keys.history().expect("it is there now")
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
        let LogHistory { epoch, head, .. } = self.open(oracle);
        self.tip = oracle.append(self.tip, Position { seq: head + 1, epoch });
        self.keys.append(entries_max, milliseconds(self.tip), json, rest)
    }
}
