//! [`View`]: what one subscriber was delivered of one topic, and how each entry continued it.
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
pub enum ResetReason {
    /// Entries after the client's position are no longer retained.
    Trimmed,
    /// What the client has seen was lost.
    Lost,
    /// The client's id is no position.
    Unreadable,
}

/// What a reset told a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct ResetNotice {
    /// Why the stream could not go on.
    pub reason: ResetReason,
    /// Where the client was.
    pub from: Position,
    /// After which position the stream goes on.
    pub resume: Position,
    /// When it came.
    pub at: Duration,
}

/// How an entry continues a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// As promised.
    Next,
    /// These numbers were left out, both included. They may still come, in a wrong order.
    Gap(u64, u64),
    /// It fills a gap: everything came, in a wrong order.
    OutOfOrder,
    /// The number had been delivered before, or passed.
    Duplicate,
    /// The next number, in an epoch that the stream had left.
    EpochReturned,
}

/// What one subscriber was delivered of one topic.
#[derive(Debug, Default)]
pub struct View {
    opening: Option<(Duration, Position)>,
    /// The last one, from the opening event, an entry or a reset.
    position: Option<Position>,
    stretches: Vec<Stretch>,
    resets: Vec<ResetNotice>,
    /// Numbers that were left out in the current stretch and have not come yet.
    gaps: Vec<(u64, u64)>,
}

impl View {
    /// Where it stands; `None` before the first opening event.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// When the first opening event came, and the position it said.
    pub fn opening(&self) -> Option<(Duration, Position)> {
        self.opening
    }

    /// An opening event. `false` if the stream stood elsewhere already.
    pub fn open(&mut self, position: Position, now: Duration) -> bool {
        match self.position {
            None => {
                self.opening = Some((now, position));
                self.position = Some(position);
                self.stretches.push(Stretch::default());
                true
            }
            Some(at) => at == position,
        }
    }

    /// An entry. The view must be open.
    pub fn record(&mut self, position: Position) -> Continuity {
        let (Some(at), Some(stretch)) = (self.position, self.stretches.last_mut()) else {
            self.open(Position { seq: position.seq.saturating_sub(1), ..position }, Duration::ZERO);
            return self.record(position);
        };
        let next = at.seq + 1;
        let continuity = if position.seq == next {
            let before = &stretch.segments[..];
            let returned =
                position.epoch != at.epoch && before.iter().any(|s| s.epoch == position.epoch);
            if returned { Continuity::EpochReturned } else { Continuity::Next }
        } else if position.seq > next {
            self.gaps.push((next, position.seq - 1));
            Continuity::Gap(next, position.seq - 1)
        } else if self.fill(position.seq) {
            Continuity::OutOfOrder
        } else {
            return Continuity::Duplicate;
        };
        if position.seq > at.seq {
            self.position = Some(position);
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
        continuity
    }

    /// Takes a number out of the gaps; `false` if it is in none.
    fn fill(&mut self, seq: u64) -> bool {
        let Some(n) = self.gaps.iter().position(|&(from, to)| (from..=to).contains(&seq)) else {
            return false;
        };
        let (from, to) = self.gaps.swap_remove(n);
        if from < seq {
            self.gaps.push((from, seq - 1));
        }
        if seq < to {
            self.gaps.push((seq + 1, to));
        }
        true
    }

    /// The gaps of the current stretch that nothing filled; they are forgotten.
    pub fn take_gaps(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.gaps)
    }

    /// Whether there are gaps that nothing filled yet.
    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// A reset: the next stretch begins.
    pub fn reset(&mut self, notice: ResetNotice) {
        self.resets.push(notice);
        self.position = Some(notice.resume);
        self.gaps.clear();
        self.stretches.push(Stretch::default());
    }

    /// Whether there was a reset.
    pub fn was_reset(&self) -> bool {
        !self.resets.is_empty()
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
    /// to this subscriber: the stream had opened before the event was sent, or the event comes
    /// after the position at which it opened, in the same epoch. A log that changed its epoch
    /// between an event and a subscriber that joined after it makes nothing due; those who joined
    /// before are witnesses.
    pub fn is_due(&self, position: Position, first_sent: Duration) -> bool {
        self.opening.is_some_and(|(at, start)| {
            first_sent >= at || (position.epoch == start.epoch && position.seq > start.seq)
        })
    }

    /// The reason of the reset, if there was one, that told this subscriber that a stretch of the
    /// log was gone in which the event lay. `trimmed` names the numbers between two positions of
    /// one log. `lost` says that everything is gone that came after the client's position in its
    /// incarnation of the log, and whatever else was sent until then and lies before the position
    /// at which the stream goes on.
    pub fn reset_reason(&self, position: Position, first_sent: Duration) -> Option<ResetReason> {
        let covers = |notice: &&ResetNotice| {
            let ResetNotice { reason, from, resume, at } = **notice;
            let beyond = position.epoch == resume.epoch && position.seq > resume.seq;
            let earlier = first_sent <= at;
            match reason {
                ResetReason::Trimmed => {
                    earlier && (from.seq + 1..=resume.seq).contains(&position.seq)
                }
                ResetReason::Lost | ResetReason::Unreadable => {
                    !beyond && (earlier || position.epoch == from.epoch)
                }
            }
        };
        self.resets.iter().find(covers).map(|notice| notice.reason)
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

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn opened(at: &str) -> View {
        let mut view = View::default();
        assert!(view.open(position(at), Duration::ZERO));
        view
    }

    #[test]
    fn numbers_go_up_by_one_and_the_epoch_may_change_but_not_back() {
        let mut view = opened("3-aaaa");
        for (entry, continuity) in [
            ("4-aaaa", Continuity::Next),
            ("5-bbbb", Continuity::Next),
            ("6-aaaa", Continuity::EpochReturned),
            ("7-bbbb", Continuity::EpochReturned),
            ("10-bbbb", Continuity::Gap(8, 9)),
            ("9-bbbb", Continuity::OutOfOrder),
            ("9-bbbb", Continuity::Duplicate),
            ("3-aaaa", Continuity::Duplicate),
            ("11-bbbb", Continuity::Next),
        ] {
            assert_eq!(view.record(position(entry)), continuity, "{entry}");
        }
        assert_eq!(view.take_gaps(), [(8, 8)]);
        assert!(view.has(position("5-bbbb")) && !view.has(position("5-aaaa")));
    }

    #[test]
    fn a_resumed_stream_opens_where_it_was() {
        let mut view = opened("3-aaaa");
        view.record(position("4-aaaa"));
        assert!(view.open(position("4-aaaa"), Duration::ZERO));
        assert!(!view.open(position("3-aaaa"), Duration::ZERO));
        assert_eq!(view.position(), Some(position("4-aaaa")));
    }

    #[test]
    fn what_comes_after_the_own_position_or_was_sent_after_joining_is_due() {
        let mut view = View::default();
        let at = Duration::from_secs;
        assert!(!view.is_due(position("9-aaaa"), at(9)));
        view.open(position("3-aaaa"), at(5));
        assert!(view.is_due(position("4-aaaa"), at(1)));
        assert!(!view.is_due(position("3-aaaa"), at(1)));
        assert!(!view.is_due(position("4-bbbb"), at(1)), "nobody can say");
        assert!(view.is_due(position("1-bbbb"), at(5)));
        assert!(view.is_due(position("2-aaaa"), at(6)), "a position that was told too far ahead");
    }

    #[test]
    fn a_reset_covers_what_it_says_to_be_gone_and_nothing_else() {
        let at = Duration::from_secs;
        let after_reset = |reason, from: &str, resume: &str| {
            let mut view = opened("0-aaaa");
            view.reset(ResetNotice {
                reason,
                from: position(from),
                resume: position(resume),
                at: at(5),
            });
            view
        };
        let trimmed = after_reset(ResetReason::Trimmed, "3-aaaa", "7-aaaa");
        for (event, sent, covered) in [
            ("4-aaaa", 1, true),
            ("7-aaaa", 1, true),
            ("7-aaaa", 6, false),
            ("3-aaaa", 1, false),
            ("8-aaaa", 1, false),
        ] {
            assert_eq!(
                trimmed.reset_reason(position(event), at(sent)).is_some(),
                covered,
                "{event} {sent}"
            );
        }
        let lost = after_reset(ResetReason::Lost, "9-aaaa", "4-bbbb");
        for (event, sent, covered) in [
            ("10-aaaa", 1, true),
            ("10-aaaa", 6, true), // by a deposed master
            ("4-bbbb", 1, true),
            ("5-bbbb", 1, false),
            ("2-bbbb", 6, false),
            ("2-cccc", 1, true),
            ("2-cccc", 6, false),
        ] {
            assert_eq!(
                lost.reset_reason(position(event), at(sent)).is_some(),
                covered,
                "{event} {sent}"
            );
        }
    }

    proptest! {
        #[test]
        fn gaps_and_duplicates_are_those_of_a_set_of_numbers(
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
                    let from = view.position().unwrap();
                    let at = Duration::ZERO;
                    view.reset(ResetNotice { reason: ResetReason::Lost, from, resume, at });
                    (begin, seen) = (seq, BTreeSet::new());
                    continue;
                }
                let last: u64 = seen.last().copied().unwrap_or(begin).max(begin);
                let expected = if seq == last + 1 {
                    Continuity::Next
                } else if seq > last {
                    Continuity::Gap(last + 1, seq - 1)
                } else if seq <= begin || seen.contains(&seq) {
                    Continuity::Duplicate
                } else {
                    Continuity::OutOfOrder
                };
                prop_assert_eq!(view.record(at(seq)), expected);
                if expected != Continuity::Duplicate {
                    seen.insert(seq);
                    ever.insert(seq);
                }
                prop_assert_eq!(view.position(), Some(at(last.max(seq))));
            }
            for seq in 0..20 {
                prop_assert_eq!(view.has(at(seq)), ever.contains(&seq));
                prop_assert_eq!(view.has_in_this_stretch(at(seq)), seen.contains(&seq));
            }
            let gaps: BTreeSet<u64> =
                view.take_gaps().into_iter().flat_map(|(from, to)| from..=to).collect();
            let last = seen.last().copied().unwrap_or(begin);
            let expected: BTreeSet<u64> =
                (begin + 1..=last).filter(|seq| !seen.contains(seq)).collect();
            prop_assert_eq!(gaps, expected);
        }
    }
}
