//! [`View`]: what one subscriber was delivered of one topic, and whether each step was allowed.
//!
//! A view is made of stretches; a reset ends one and begins the next. Within a stretch the numbers
//! go up by exactly one, and the epoch may change, but never back. Across a reset numbers may come
//! again: the stream goes on with what is retained.

use std::time::Duration;

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

/// Why a stream said that it could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Entries after the client's place are no longer retained.
    Trimmed,
    /// What the client has seen was lost.
    Lost,
    /// The client's id is no position.
    Unreadable,
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

    /// Whether there was a reset.
    pub fn was_reset(&self) -> bool {
        !self.told.is_empty()
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

    /// Why a reset told this subscriber, if one did, that a stretch of the log was gone in which the event
    /// lay. `trimmed` names the numbers between two places of one log. `lost` says that everything
    /// is gone that came after the client's place in its incarnation of the log, and whatever else
    /// was sent until then and lies before the place where the stream goes on.
    pub fn was_told(&self, position: Position, first_sent: Duration) -> Option<Reason> {
        let told = self.told.iter().find(|told| {
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
        });
        told.map(|told| told.reason)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn place(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn opened(at: &str) -> View {
        let mut view = View::default();
        assert!(view.open(place(at), Duration::ZERO));
        view
    }

    #[test]
    fn numbers_go_up_by_one_and_the_epoch_may_change_but_not_back() {
        let mut view = opened("3-aaaa");
        for (entry, step) in [
            ("4-aaaa", Step::Next),
            ("5-bbbb", Step::Next),
            ("6-aaaa", Step::EpochReturned),
            ("7-bbbb", Step::EpochReturned),
            ("10-bbbb", Step::Hole(8, 9)),
            ("9-bbbb", Step::Late),
            ("9-bbbb", Step::Twin),
            ("3-aaaa", Step::Twin),
            ("11-bbbb", Step::Next),
        ] {
            assert_eq!(view.step(place(entry)), step, "{entry}");
        }
        assert_eq!(view.take_holes(), [(8, 8)]);
        assert!(view.has(place("5-bbbb")) && !view.has(place("5-aaaa")));
    }

    #[test]
    fn a_resumed_stream_opens_where_it_was() {
        let mut view = opened("3-aaaa");
        view.step(place("4-aaaa"));
        assert!(view.open(place("4-aaaa"), Duration::ZERO));
        assert!(!view.open(place("3-aaaa"), Duration::ZERO));
        assert_eq!(view.at(), Some(place("4-aaaa")));
    }

    #[test]
    fn what_comes_after_the_own_place_or_was_sent_after_joining_is_due() {
        let mut view = View::default();
        let at = Duration::from_secs;
        assert!(!view.is_due(place("9-aaaa"), at(9)));
        view.open(place("3-aaaa"), at(5));
        assert!(view.is_due(place("4-aaaa"), at(1)));
        assert!(!view.is_due(place("3-aaaa"), at(1)));
        assert!(!view.is_due(place("4-bbbb"), at(1)), "nobody can say");
        assert!(view.is_due(place("1-bbbb"), at(5)));
        assert!(view.is_due(place("2-aaaa"), at(6)), "a place that was told too far ahead");
    }

    #[test]
    fn a_reset_covers_what_it_says_to_be_gone_and_nothing_else() {
        let at = Duration::from_secs;
        let told = |reason, from: &str, resume: &str| {
            let mut view = opened("0-aaaa");
            view.reset(Told { reason, from: place(from), resume: place(resume), at: at(5) });
            view
        };
        let trimmed = told(Reason::Trimmed, "3-aaaa", "7-aaaa");
        for (event, sent, covered) in [
            ("4-aaaa", 1, true),
            ("7-aaaa", 1, true),
            ("7-aaaa", 6, false),
            ("3-aaaa", 1, false),
            ("8-aaaa", 1, false),
        ] {
            assert_eq!(
                trimmed.was_told(place(event), at(sent)).is_some(),
                covered,
                "{event} {sent}"
            );
        }
        let lost = told(Reason::Lost, "9-aaaa", "4-bbbb");
        for (event, sent, covered) in [
            ("10-aaaa", 1, true),
            ("10-aaaa", 6, true), // by a deposed master
            ("4-bbbb", 1, true),
            ("5-bbbb", 1, false),
            ("2-bbbb", 6, false),
            ("2-cccc", 1, true),
            ("2-cccc", 6, false),
        ] {
            assert_eq!(lost.was_told(place(event), at(sent)).is_some(), covered, "{event} {sent}");
        }
    }

    proptest! {
        #[test]
        fn steps_are_those_of_a_set_of_numbers(
            start in 0..5_u64,
            entries in proptest::collection::vec((0..20_u64, 0..10_u8), 0..60),
        ) {
            let at = |seq| Position { seq, epoch: "aaaa".parse().unwrap() };
            let mut view = View::default();
            view.open(at(start), Duration::ZERO);
            // Since the last reset, and ever.
            let (mut begin, mut seen, mut ever) = (start, BTreeSet::new(), BTreeSet::new());
            for (seq, reset) in entries {
                if reset == 0 {
                    let resume = at(seq);
                    let from = view.at().unwrap();
                    let told = Told { reason: Reason::Lost, from, resume, at: Duration::ZERO };
                    view.reset(told);
                    (begin, seen) = (seq, BTreeSet::new());
                    continue;
                }
                let last: u64 = seen.last().copied().unwrap_or(begin).max(begin);
                let expected = if seq == last + 1 {
                    Step::Next
                } else if seq > last {
                    Step::Hole(last + 1, seq - 1)
                } else if seq <= begin || seen.contains(&seq) {
                    Step::Twin
                } else {
                    Step::Late
                };
                prop_assert_eq!(view.step(at(seq)), expected);
                if expected != Step::Twin {
                    seen.insert(seq);
                    ever.insert(seq);
                }
                prop_assert_eq!(view.at(), Some(at(last.max(seq))));
            }
            for seq in 0..20 {
                prop_assert_eq!(view.has(at(seq)), ever.contains(&seq));
                prop_assert_eq!(view.has_in_this_stretch(at(seq)), seen.contains(&seq));
            }
            let holes: BTreeSet<u64> =
                view.take_holes().into_iter().flat_map(|(from, to)| from..=to).collect();
            let last = seen.last().copied().unwrap_or(begin);
            let expected: BTreeSet<u64> =
                (begin + 1..=last).filter(|seq| !seen.contains(seq)).collect();
            prop_assert_eq!(holes, expected);
        }
    }
}
