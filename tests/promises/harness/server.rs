//! [`Server`]: one topic's log in a Redis that can go back in time, by the rules of the scripts,
//! and what has [truly](super::truth) happened to it.

use bytes::Bytes;
use fantail::entry::Entry;
use fantail::position::{Epoch, Lineage, Position};

use super::keyspace::{Key, Keyspace};
use super::truth::{Moment, Truth};

/// One topic in a Redis process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    pub keys: Keyspace,
    reign: u64,
    /// What has truly happened to this log.
    pub tip: Moment,
}

impl Server {
    pub fn new(tip: Moment) -> Server {
        Server { keys: Keyspace::default(), reign: 0, tip }
    }

    /// A replica that takes over, or a process that starts again from an old file.
    pub fn take_over(&mut self, copy: &Server) {
        *self = Server { reign: self.reign + 1, ..copy.clone() };
    }

    /// As a replica has it.
    pub fn copy(&self) -> Server {
        Server { reign: 0, ..self.clone() }
    }

    pub fn flush(&mut self, truth: &mut Truth) {
        self.keys = Keyspace::default();
        self.tip = truth.anew();
    }

    pub fn lose(&mut self, key: Key, truth: &mut Truth) {
        self.keys.lose(key);
        if self.keys.meta.is_none() {
            let left = self.keys.entries(0, u64::MAX).map(|entry| entry.position.epoch);
            truth.forget_all_but(&left.collect::<Vec<_>>());
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
    pub fn begin(&mut self, truth: &mut Truth) -> bool {
        let is_left = self.keys.seq.is_some() || self.keys.log.is_some();
        let epoch = truth.next_epoch();
        let began = self.keys.open(self.reign, epoch);
        if began {
            if !is_left {
                self.tip = truth.anew();
            }
            self.tip = truth.begin(self.tip, epoch);
        }
        began
    }

    /// Finds the log, or makes it.
    pub fn open(&mut self, truth: &mut Truth) -> Lineage {
        self.begin(truth);
        self.keys.lineage().expect("it is there now")
    }

    /// Appends an entry; `milliseconds` are made of what it is in truth.
    pub fn append(
        &mut self,
        truth: &mut Truth,
        entries_max: usize,
        milliseconds: impl FnOnce(Moment) -> u64,
        json: bool,
        rest: Bytes,
    ) -> Entry {
        let Lineage { epoch, head, .. } = self.open(truth);
        self.tip = truth.append(self.tip, Position { seq: head + 1, epoch });
        self.keys.append(entries_max, milliseconds(self.tip), json, rest)
    }
}
