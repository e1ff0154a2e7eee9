//! What the judge cannot decide alone: whether the log still has what somebody was told, or led to
//! believe, to be gone.

use std::time::Duration;

use super::books::shown;
use super::{Judge, Kind, Reason, Seen, Told, Violation};
use crate::position::Position;

/// The data of a `reset` event, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: Reason,
    /// The client's place, as the server understood it.
    pub from: String,
    /// The oldest entry that is retained.
    pub oldest: Option<Position>,
    /// The newest entry.
    pub head: Option<Position>,
}

/// Something that only the log itself can decide.
#[derive(Debug, Clone)]
pub struct Question {
    /// Index of the topic.
    pub topic: usize,
    /// What is in doubt.
    pub doubt: Doubt,
    accusation: Violation,
}

/// What is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A reset told a client at this place that it could not go on.
    Reset {
        /// The client's place.
        from: Position,
        /// The head of the log, as the reset told it.
        head: Option<Position>,
    },
    /// A stream was asked for from the oldest entry on, and opened here.
    Earliest {
        /// Where it opened.
        place: Position,
        /// When it was asked for.
        asked_at: Duration,
    },
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The log has what was told, or left out, as if it were gone.
    Accuses,
    /// It has not.
    Excuses,
    /// The log could not be asked.
    Unknown,
}

impl Judge {
    /// A reset came, with an id that says after which place the stream goes on.
    pub fn reset(
        &mut self,
        subscriber: usize,
        topic: usize,
        reset: &Reset,
        resume: Position,
        now: Duration,
    ) -> Option<Question> {
        self.counts.resets += 1;
        self.settle_holes(subscriber);
        let text = format!("{:?} from {} to after {resume}", reset.reason, reset.from);
        self.books[subscriber].note(now, Some(topic), Seen::Reset(text.clone()));
        let view = self.books[subscriber].view(topic)?;
        let from = view.at()?;
        let wrong = if reset.from != from.to_string() {
            Some(format!("the client's place {from}"))
        } else if reset.oldest.is_some_and(|oldest| oldest.seq != resume.seq + 1) {
            Some(format!("an id just before the oldest entry {}", shown(reset.oldest)))
        } else if reset.reason == Reason::Trimmed && resume.seq <= from.seq {
            Some(format!("an oldest entry beyond {}", from.seq + 1))
        } else {
            None
        };
        view.reset(Told { reason: reset.reason, from, resume, at: now });
        if let Some(expected) = wrong {
            self.accuse(Kind::BadReset, now, subscriber, topic, expected, text.clone());
        }
        let about = self.about(subscriber, Some(topic));
        let expected = format!("no reset: the log has {from} and everything after it");
        let accusation = about.violation(Kind::ResetInVain, now, &self.topics, expected, text);
        Some(Question { topic, doubt: Doubt::Reset { from, head: reset.head }, accusation })
    }

    /// A subscriber that wanted everything that is retained was opened a stream here.
    pub fn wanted_earliest(
        &mut self,
        subscriber: usize,
        topic: usize,
        place: Position,
        asked_at: Duration,
        now: Duration,
    ) -> Option<Question> {
        if place.seq == 0 {
            return None;
        }
        let about = self.about(subscriber, Some(topic));
        let expected = "the place before the oldest entry that is retained".to_owned();
        let came = format!("{place}, for a stream from the earliest on");
        let accusation = about.violation(Kind::Hole, now, &self.topics, expected, came);
        Some(Question { topic, doubt: Doubt::Earliest { place, asked_at }, accusation })
    }

    /// The log was asked.
    pub fn answer(&mut self, question: Question, finding: Finding, evidence: &str) {
        if let Doubt::Reset { .. } = question.doubt {
            match finding {
                Finding::Accuses => self.counts.resets_in_vain += 1,
                Finding::Excuses => self.counts.resets_justified += 1,
                Finding::Unknown => self.counts.resets_unjudged += 1,
            }
        }
        if finding == Finding::Accuses {
            let mut violation = question.accusation;
            violation.expected = format!("{}; {evidence}", violation.expected);
            self.keep(violation);
        }
    }

    /// Whether the event at this place was acknowledged before that time.
    pub fn was_acknowledged_before(&self, topic: usize, place: Position, time: Duration) -> bool {
        let line = self.ledger.event_at(topic, place).and_then(|token| self.ledger.line(token));
        line.and_then(|line| line.acknowledged()).is_some_and(|at| at < time)
    }
}
