//! [`LogHistory`]: what a log knows of its own past, and what that says about a position.

use super::{Epoch, Position};

/// How many past epochs of one log are remembered at most; a position of an older one counts as
/// unknown. A log keeps these many only while entries that followed on each are still there: a hash
/// slot that goes back and forth between two servers makes one at every turn.
pub const EPOCHS_MAX: usize = 256;

/// How many past epochs are remembered even if nobody can go on from them any more: whoever comes back
/// to one is told that entries were trimmed, and not that they were lost.
pub const EPOCHS_KEPT: usize = 64;

/// What a log knows of itself: its current epoch, how far the earlier ones reached, and what it
/// still holds. Every judgement about a position needs this and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogHistory {
    /// The current incarnation.
    pub epoch: Epoch,
    /// Earlier incarnations, newest first, each with the last seq of it that this log holds.
    pub past_epochs: Vec<(Epoch, u64)>,
    /// Seq of the newest entry; 0 while the log is empty.
    pub head: u64,
    /// Seq of the oldest entry that can still be read; `head + 1` when none can.
    pub oldest: u64,
    /// The number that the last deletion of everything before took, 0 if there was none; less than
    /// `oldest`.
    pub deleted_through: u64,
    /// Milliseconds since 1970, by the log's clock. Whoever found no log of this name between then and
    /// the beginning of this one has missed none.
    pub unwritten_since: u64,
    /// When it began; of a topic without a log, when that was found. Whoever found none later knows of
    /// another log.
    pub begun_at: u64,
}

/// What a [`LogHistory`] says about a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to this log's past, and everything after it can still be read.
    Continues,
    /// It belongs to this log's past, but entries after it are gone.
    Trimmed,
    /// It belongs to this log's past, and everything up to then was deleted on purpose.
    Deleted,
    /// What its holder has seen was lost, or belongs to another incarnation of the log.
    Lost,
}

impl LogHistory {
    /// The last seq of `epoch` that this log holds; `None` for an epoch it does not know.
    pub fn last_seq_of(&self, epoch: Epoch) -> Option<u64> {
        if epoch == self.epoch {
            return Some(self.head);
        }
        // When there was no log yet, nothing of it had been written.
        let before = self.unwritten_since..=self.begun_at;
        if epoch.unwritten_time().is_some_and(|at| before.contains(&at)) {
            return Some(0);
        }
        self.past_epochs.iter().find(|(past, _)| *past == epoch).map(|&(_, end)| end)
    }

    /// Judges a position. Final only if this history was read after the position was
    /// handed out: an older one can be behind.
    pub fn judge(&self, position: Position) -> Verdict {
        match self.last_seq_of(position.epoch) {
            Some(end) if position.seq > end => Verdict::Lost,
            None => Verdict::Lost,
            Some(_) if position.seq < self.deleted_through => Verdict::Deleted,
            Some(_) if position.seq + 1 < self.oldest => Verdict::Trimmed,
            Some(_) => Verdict::Continues,
        }
    }

    /// Of a topic that nobody has written to, found so at `now`.
    pub fn unwritten(now: u64, unwritten_since: u64) -> LogHistory {
        let epoch = Epoch::unwritten_at(now);
        let past_epochs = Vec::new();
        LogHistory {
            epoch,
            past_epochs,
            head: 0,
            oldest: 1,
            deleted_through: 0,
            unwritten_since,
            begun_at: now,
        }
    }

    /// Whether there is a log: somebody has written to it.
    pub fn is_written(&self) -> bool {
        self.epoch.unwritten_time().is_none()
    }

    /// Whether the newest entry is the one at `position`, which may be of an earlier epoch that no
    /// entry followed.
    pub fn is_head(&self, position: Position) -> bool {
        position.seq == self.head
            && self.last_seq_of(position.epoch).is_some_and(|end| end >= self.head)
    }

    /// The place at `seq`, in the current epoch.
    pub fn at(&self, seq: u64) -> Position {
        Position { seq, epoch: self.epoch }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_history_judges_as_what_happened(
            // Epochs as (entries that survived, entries lost at their end), oldest first.
            ended_epochs in proptest::collection::vec((0..20_u64, 0..5_u64), 1..10),
            trimmed in 0..30_u64,
            deleted in 0..30_u64,
            unwritten_since in 0..1_000_u64,
            before_the_log in 0..1_000_u64,
            begun_at in 0..1_000_u64,
        ) {
            let name = |n: usize| epoch(&format!("e{n:03}"));
            let mut head = 0;
            let mut ends = Vec::new();
            for (n, &(kept, lost)) in ended_epochs.iter().enumerate() {
                let last = n + 1 == ended_epochs.len();
                head += kept;
                ends.push((name(n), head, if last { 0 } else { lost }));
            }
            let deleted_through = deleted.min(head);
            let oldest = trimmed.min(head).max(deleted_through) + 1;
            let past_epochs = ends.iter().rev().skip(1).map(|&(epoch, end, _)| (epoch, end)).collect();
            let epoch_now = ends[ends.len() - 1].0;
            let history =
                LogHistory {
                    epoch: epoch_now, past_epochs, head, oldest, deleted_through, unwritten_since,
                    begun_at,
                };
            for (epoch, end, lost) in ends {
                for seq in 0..=end + lost {
                    let expected = if seq > end {
                        Verdict::Lost
                    } else if seq < deleted_through {
                        Verdict::Deleted
                    } else if seq + 1 < oldest {
                        Verdict::Trimmed
                    } else {
                        Verdict::Continues
                    };
                    prop_assert_eq!(history.judge(Position { seq, epoch }), expected);
                }
            }
            let at = Position { seq: 0, epoch: Epoch::unwritten_at(before_the_log) };
            let expected = match () {
                () if before_the_log < unwritten_since || before_the_log > begun_at => Verdict::Lost,
                () if deleted_through > 0 => Verdict::Deleted,
                () if oldest > 1 => Verdict::Trimmed,
                () => Verdict::Continues,
            };
            prop_assert_eq!(history.judge(at), expected);
            prop_assert_eq!(history.judge(Position { seq: 1, ..at }), Verdict::Lost);
            prop_assert_eq!(
                history.judge(Position { seq: 0, epoch: epoch("zzzz") }), Verdict::Lost
            );
        }
    }
}
