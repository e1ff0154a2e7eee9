//! [`Oracle`]: everything that ever happened to the log, and which position belongs to which event.
//!
//! For the properties of the model (`tests/model`) and the judge of the simulation (`simulation.rs`);
//! no node and no client ever looks at it.

use fantail::position::{Epoch, Position};

/// One event in the life of a log: an entry was appended, an epoch began, or it was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogEvent(pub u16);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Past {
    before: Option<LogEvent>,
    seq: u64,
    /// Of an entry: the epoch it was written in.
    epoch: Option<Epoch>,
}

/// All events, as a tree: where a server goes back in time, a new branch begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Oracle {
    events: Vec<Past>,
    /// When each epoch began.
    begins: Vec<(Epoch, LogEvent)>,
    /// Positions of these cannot be judged any more: the memory of them was evicted, and no entry
    /// is left that bears witness of them. Their holders are told that they were lost.
    forgotten: Vec<Epoch>,
}

impl Oracle {
    /// A log that has no past.
    pub fn anew(&mut self) -> LogEvent {
        self.add(Past { before: None, seq: 0, epoch: None })
    }

    /// An epoch begins after `tip`.
    pub fn begin(&mut self, tip: LogEvent, epoch: Epoch) -> LogEvent {
        let seq = self.past(tip).seq;
        let begin = self.add(Past { before: Some(tip), seq, epoch: None });
        self.begins.push((epoch, begin));
        begin
    }

    /// An entry is appended after `tip`.
    pub fn append(&mut self, tip: LogEvent, position: Position) -> LogEvent {
        self.add(Past { before: Some(tip), seq: position.seq, epoch: Some(position.epoch) })
    }

    /// Whoever finds no log now stands here, in this epoch.
    pub fn note_unwritten(&mut self, root: LogEvent, epoch: Epoch) {
        if !self.begins.contains(&(epoch, root)) {
            self.begins.push((epoch, root));
        }
    }

    /// The name of the next epoch: no two are the same, whatever is lost.
    pub fn next_epoch(&self) -> Epoch {
        format!("e{:03}", self.begins.len()).parse().expect("four characters")
    }

    /// The memory of all epochs until now is evicted; entries of these are left.
    pub fn forget_all_but(&mut self, left: &[Epoch]) {
        let epochs = self.begins.iter().map(|&(epoch, _)| epoch);
        self.forgotten.extend(epochs.filter(|epoch| !left.contains(epoch)));
        self.forgotten.sort();
        self.forgotten.dedup();
    }

    /// What has happened when a reader stands at `position`; `None` if no log ever gave it out.
    pub fn at(&self, position: Position) -> Option<LogEvent> {
        let is_it = |past: &Past| past.epoch == Some(position.epoch) && past.seq == position.seq;
        if let Some(entry) = self.events.iter().position(is_it) {
            return Some(LogEvent(entry as u16));
        }
        let &(_, begin) = self.begins.iter().find(|(epoch, _)| *epoch == position.epoch)?;
        let mut log_event = begin;
        while self.past(log_event).seq > position.seq {
            log_event = self.past(log_event).before?;
        }
        (self.past(log_event).seq == position.seq).then_some(log_event)
    }

    /// The newest entry, or beginning of everything, that is part of the history up to this event: an epoch that
    /// begins changes nothing for a reader.
    pub fn entry(&self, log_event: LogEvent) -> LogEvent {
        match self.past(log_event) {
            Past { epoch: None, before: Some(before), .. } => self.entry(*before),
            _ => log_event,
        }
    }

    /// Whether nothing had been written by then.
    pub fn is_empty(&self, log_event: LogEvent) -> bool {
        self.past(self.entry(log_event)).before.is_none()
    }

    /// Whether a reader that stands at `reader` has seen everything before the entry of `log_event`
    /// and nothing else.
    pub fn is_next(&self, reader: LogEvent, log_event: LogEvent) -> bool {
        let before = self.past(log_event).before;
        before.is_some_and(|before| self.entry(before) == self.entry(reader))
    }

    /// Whether `position` can be continued on a log whose history ends with `tip` and which still
    /// has the entries from `oldest` on. One of an epoch whose beginning was lost cannot, even if
    /// all entries before it are there: the log has never heard of it.
    pub fn continues(&self, position: Position, tip: LogEvent, oldest: u64) -> bool {
        let begin = self.begins.iter().find(|(epoch, _)| *epoch == position.epoch);
        let (Some(log_event), Some(&(_, begin))) = (self.at(position), begin) else { return false };
        self.is_part(log_event, tip) && self.is_part(begin, tip) && oldest <= position.seq + 1
    }

    /// Whether `log_event` is part of the history that ends with `tip`.
    fn is_part(&self, log_event: LogEvent, tip: LogEvent) -> bool {
        let before = |at: &LogEvent| self.past(*at).before;
        std::iter::successors(Some(tip), before).any(|at| at == log_event)
    }

    /// Whether the memory of the epoch was evicted.
    pub fn is_forgotten(&self, epoch: Epoch) -> bool {
        self.forgotten.contains(&epoch)
    }

    fn add(&mut self, past: Past) -> LogEvent {
        self.events.push(past);
        LogEvent(self.events.len() as u16 - 1)
    }

    fn past(&self, log_event: LogEvent) -> &Past {
        &self.events[usize::from(log_event.0)]
    }
}
