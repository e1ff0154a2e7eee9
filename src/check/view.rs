//! [`View`]: what one subscriber was delivered of one topic, and whether each step was allowed.
//!
//! A view is made of stretches; a reset ends one and begins the next. Within a stretch the numbers
//! go up by exactly one, and the epoch may change, but never back. Across a reset numbers may come
//! again: the stream goes on with what is retained.

use std::time::Duration;

use super::judge::Reason;
use crate::position::{Epoch, Position};

/// Numbers that followed each other in one epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    epoch: Epoch,
    first: u64,
    last: u64,
}

/// What was delivered between two resets.
#[derive(Debug, Default)]
struct Stretch {
    segments: Vec<Segment>,
}

/// What a reset said.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Why the stream could not go on.
    pub reason: Reason,
    /// Where the client was.
    pub from: Position,
    /// After which place the stream goes on.
    pub resume: Position,
    /// When it came.
    pub at: Duration,
}

/// How an entry continues a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// As promised.
    Next,
    /// These numbers were left out, both included. They may still come, in a wrong order.
    Hole(u64, u64),
    /// It fills a hole: everything came, in a wrong order.
    Late,
    /// The number had been delivered before, or passed.
    Twin,
    /// The next number, in an epoch that the stream had left.
    EpochReturned,
}

/// What one subscriber was delivered of one topic.
#[derive(Debug, Default)]
pub struct View {
    hello: Option<(Duration, Position)>,
    /// The last place, from the opening event, an entry or a reset.
    at: Option<Position>,
    stretches: Vec<Stretch>,
    told: Vec<Told>,
    /// Numbers that were left out in the current stretch and have not come yet.
    holes: Vec<(u64, u64)>,
}

impl View {
    /// Where it stands; `None` before the first opening event.
    pub fn at(&self) -> Option<Position> {
        self.at
    }

    /// When the first opening event came, and the place it said.
    pub fn hello(&self) -> Option<(Duration, Position)> {
        self.hello
    }

    /// An opening event. `false` if the stream stood elsewhere already.
    pub fn open(&mut self, position: Position, now: Duration) -> bool {
        match self.at {
            None => {
                self.hello = Some((now, position));
                self.at = Some(position);
                self.stretches.push(Stretch::default());
                true
            }
            Some(at) => at == position,
        }
    }

    /// An entry. The view must be open.
    pub fn step(&mut self, position: Position) -> Step {
        let (Some(at), Some(stretch)) = (self.at, self.stretches.last_mut()) else {
            self.open(Position { seq: position.seq.saturating_sub(1), ..position }, Duration::ZERO);
            return self.step(position);
        };
        let next = at.seq + 1;
        let step = if position.seq == next {
            let before = &stretch.segments[..];
            let returned =
                position.epoch != at.epoch && before.iter().any(|s| s.epoch == position.epoch);
            if returned { Step::EpochReturned } else { Step::Next }
        } else if position.seq > next {
            self.holes.push((next, position.seq - 1));
            Step::Hole(next, position.seq - 1)
        } else if self.fill(position.seq) {
            Step::Late
        } else {
            return Step::Twin;
        };
        if position.seq > at.seq {
            self.at = Some(position);
        }
        if let Some(stretch) = self.stretches.last_mut() {
            match stretch.segments.last_mut() {
                Some(last) if last.epoch == position.epoch && last.last + 1 == position.seq => {
                    last.last = position.seq;
                }
                _ => stretch.segments.push(Segment {
                    epoch: position.epoch,
                    first: position.seq,
                    last: position.seq,
                }),
            }
        }
        step
    }

    /// Takes a number out of the holes; `false` if it is in none.
    fn fill(&mut self, seq: u64) -> bool {
        let Some(n) = self.holes.iter().position(|&(from, to)| (from..=to).contains(&seq)) else {
            return false;
        };
        let (from, to) = self.holes.swap_remove(n);
        if from < seq {
            self.holes.push((from, seq - 1));
        }
        if seq < to {
            self.holes.push((seq + 1, to));
        }
        true
    }

    /// The holes of the current stretch that nothing filled; they are forgotten.
    pub fn take_holes(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.holes)
    }

    /// Whether there are holes that nothing filled yet.
    pub fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// A reset: the next stretch begins.
    pub fn reset(&mut self, told: Told) {
        self.told.push(told);
        self.at = Some(told.resume);
        self.holes.clear();
        self.stretches.push(Stretch::default());
    }

    /// Whether the entry was delivered, ever.
    pub fn has(&self, position: Position) -> bool {
        self.stretches.iter().rev().any(|stretch| stretch.has(position))
    }

    /// Whether the entry was delivered since the last reset.
    pub fn has_in_this_stretch(&self, position: Position) -> bool {
        self.stretches.last().is_some_and(|stretch| stretch.has(position))
    }

    /// Whether an event that was sent first at that time and acknowledged at that position is due
    /// to this subscriber: it had been told its place before the event was sent, or the event comes
    /// after its place in the same epoch. A log that changed its epoch between an event and a
    /// subscriber that joined after it makes nothing due; those who joined before are witnesses.
    pub fn is_due(&self, position: Position, first_sent: Duration) -> bool {
        self.hello.is_some_and(|(at, start)| {
            first_sent >= at || (position.epoch == start.epoch && position.seq > start.seq)
        })
    }

    /// Whether a reset told this subscriber that a stretch of the log was gone in which the event
    /// lay. `trimmed` names the numbers between two places of one log. `lost` says that everything
    /// is gone that came after the client's place in its incarnation of the log, and whatever else
    /// was sent until then and lies before the place where the stream goes on.
    pub fn was_told(&self, position: Position, first_sent: Duration) -> bool {
        self.told.iter().any(|told| {
            let beyond = position.epoch == told.resume.epoch && position.seq > told.resume.seq;
            let earlier = first_sent <= told.at;
            match told.reason {
                Reason::Trimmed => {
                    earlier && (told.from.seq + 1..=told.resume.seq).contains(&position.seq)
                }
                Reason::Lost | Reason::Unreadable => {
                    !beyond && (earlier || position.epoch == told.from.epoch)
                }
            }
        })
    }

    /// Whether the stream went on in a later epoch at or before this number, without a reset: then
    /// the event's own epoch had ended before it, and the log has lost it. The place where a
    /// stretch starts proves nothing: it is told in the log's current epoch, whatever comes after.
    pub fn was_passed_over(&self, position: Position) -> bool {
        self.stretches.iter().any(|stretch| {
            let mut known = false;
            stretch.segments.iter().any(|segment| {
                known |= segment.epoch == position.epoch;
                known && segment.epoch != position.epoch && segment.first <= position.seq
            })
        })
    }
}

impl Stretch {
    fn has(&self, position: Position) -> bool {
        let holds = |segment: &Segment| {
            segment.epoch == position.epoch
                && (segment.first..=segment.last).contains(&position.seq)
        };
        self.segments.iter().rev().any(holds)
    }
}
