//! [`Keyspace`]: the keys of one topic, and what the scripts do to them.
//!
//! `log.lua`, `append.lua`, `open.lua` and `read.lua` step by step, for the model (`tests/model`)
//! and the simulation (`simulation.rs`), which need a log that goes back in time. `script_model_equivalence.rs` runs
//! both against each other.

use std::collections::VecDeque;

use bytes::Bytes;
use fantail::entry::Entry;
use fantail::position::{EPOCHS_KEPT, EPOCHS_MAX, Epoch, LogHistory, Position};

/// The keys of one topic; each may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Keyspace {
    pub seq: Option<u64>,
    /// Never empty: a stream of which everything was trimmed does not occur.
    pub log: Option<VecDeque<Entry>>,
    pub meta: Option<Meta>,
}

/// What `meta` says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    pub epoch: Epoch,
    pub replication_id: u64,
    pub floor: u64,
    /// When it began, and since when nobody can have missed another log before.
    pub begun: (u64, u64),
    /// Newest first.
    pub past: Vec<(Epoch, u64)>,
}

/// One key of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    Seq,
    Log,
    Meta,
}

impl Keyspace {
    /// Whether there is a log; otherwise `open.lua` and `read.lua` make none.
    pub fn is_written(&self) -> bool {
        self.seq.is_some() || self.log.is_some()
    }

    /// `open` of `log.lua`: finds the epoch, or begins `new_epoch`. Says whether it began. A new log
    /// begins at `now`, which is also since when nobody can have missed one.
    pub fn open(&mut self, replication_id: u64, new_epoch: Epoch, now: u64) -> bool {
        if let (Some(seq), Some(meta)) = (self.seq, &self.meta)
            && meta.replication_id == replication_id
            && (self.log.is_some() || seq <= meta.floor)
        {
            return false;
        }
        let last_generated = self.log.as_ref().and_then(|log| Some(log.back()?.position.seq));
        let head = self.seq.or(last_generated).unwrap_or(0);
        let before = self.meta.take();
        let is_left = self.is_written();
        let begun = match &before {
            _ if !is_left => (now, now),
            Some(before) => before.begun,
            None => (1, 0),
        };
        let mut floor = match &before {
            _ if !is_left => 0,
            _ if self.log.is_none() => head,
            Some(before) => before.floor,
            None => 0,
        };
        let mut past = Vec::new();
        if let Some(before) = before
            && is_left
        {
            past.push((before.epoch, head));
            let oldest = self.log.as_ref().and_then(|log| Some(log.front()?.position.seq));
            for (epoch, last) in before.past {
                let last = last.min(head);
                // Whoever stands in it can go on if nothing after its end is gone.
                let is_needed = last + 1 >= oldest.unwrap_or(head + 1);
                if past.len() < if is_needed { EPOCHS_MAX } else { EPOCHS_KEPT } {
                    past.push((epoch, last));
                } else {
                    floor = floor.max(last);
                }
            }
        } else if let Some(log) = &self.log {
            (past, floor) = epochs_of(log);
        }
        self.seq = Some(head);
        self.meta = Some(Meta { epoch: new_epoch, replication_id, floor, begun, past });
        true
    }

    /// `append` of `log.lua`; `open` comes first.
    pub fn append(
        &mut self,
        entries_max: usize,
        bytes_max: usize,
        milliseconds: u64,
        json: bool,
        rest: Bytes,
    ) -> Entry {
        let epoch = self.meta.as_ref().expect("opened before").epoch;
        let seq = self.seq.unwrap_or(0) + 1;
        self.seq = Some(seq);
        let entry = Entry { position: Position { seq, epoch }, milliseconds, json, rest };
        let log = self.log.get_or_insert_default();
        log.push_back(entry.clone());
        while log.len() > entries_max {
            log.pop_front();
        }
        let bytes = |log: &VecDeque<Entry>| log.iter().map(|entry| entry.rest.len()).sum::<usize>();
        if bytes(log) > bytes_max {
            while log.len() > 1 && bytes(log) > bytes_max - bytes_max / 16 {
                log.pop_front();
            }
        }
        entry
    }

    /// `read.lua` and `replies.rs` of a log: `None` if something of it is missing.
    pub fn history(&self) -> Option<LogHistory> {
        let (head, meta) = (self.seq?, self.meta.as_ref()?);
        let oldest = self.log.as_ref().and_then(|log| Some(log.front()?.position.seq));
        Some(LogHistory {
            epoch: meta.epoch,
            past_epochs: meta.past.clone(),
            head,
            oldest: oldest.unwrap_or(head + 1).max(meta.floor + 1),
            unwritten_since: meta.begun.0,
            begun_at: meta.begun.1,
            deleted_through: 0,
        })
    }

    /// The entries with a seq in `after + 1 ..= through`; what is beyond `seq` is not there.
    pub fn entries(&self, after: u64, through: u64) -> impl Iterator<Item = &Entry> {
        let through = through.min(self.seq.unwrap_or(0));
        let within = move |entry: &&Entry| (after + 1..=through).contains(&entry.position.seq);
        self.log.iter().flatten().filter(within)
    }

    /// What an audit asks for.
    pub fn head(&self) -> Option<(Epoch, u64)> {
        match (&self.meta, self.seq) {
            (Some(meta), Some(seq)) => Some((meta.epoch, seq)),
            (None, None) if self.log.is_none() => None,
            // Something is missing: no tail has this.
            _ => Some((Epoch::NONE, 0)),
        }
    }

    /// A key is evicted.
    pub fn lose(&mut self, key: Key) {
        match key {
            Key::Seq => self.seq = None,
            Key::Log => self.log = None,
            Key::Meta => self.meta = None,
        }
    }
}

/// `epochs_of` of `log.lua`: the epochs of a log's entries, and the seq up to which they are too many.
fn epochs_of(log: &VecDeque<Entry>) -> (Vec<(Epoch, u64)>, u64) {
    let mut past: Vec<(Epoch, u64)> = Vec::new();
    for Position { seq, epoch } in log.iter().rev().map(|entry| entry.position) {
        if past.last().is_none_or(|(newest, _)| *newest != epoch) {
            if past.len() == EPOCHS_MAX {
                return (past, seq);
            }
            past.push((epoch, seq));
        }
    }
    (past, 0)
}
