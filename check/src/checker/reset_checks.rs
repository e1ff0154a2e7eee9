//! [`Question`]: what the checker cannot decide alone, because only the log knows whether it still
//! has what a gateway claimed, or led somebody to believe, to be gone.

use std::time::Duration;

use super::records::describe_position;
use super::{Checker, Kind, Observation, ResetNotice, ResetReason, Violation};
use crate::position::Position;

/// The data of a `reset` event, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
    /// The client's position, as the server understood it.
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
    /// What a gateway claimed.
    pub claim: Claim,
    /// What it is if the log refutes the claim.
    violation: Violation,
}

/// What a gateway claimed, by what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A reset told a client at this position that it could not go on.
    Reset {
        /// The client's position.
        from: Position,
        /// The head of the log, as the reset told it.
        head: Option<Position>,
    },
    /// A stream was asked for from the oldest entry on, and opened here.
    Earliest {
        /// Where it opened.
        position: Position,
        /// When it was asked for.
        requested_at: Duration,
    },
}

/// What the log says of a [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It has what was told, or left out, as if it were gone; what was read says so.
    Refutes(String),
    /// It has not.
    Supports,
    /// It could not be asked.
    Unknown,
}

impl Checker {
    /// A reset came, with an id that says after which position the stream goes on.
    pub fn reset(
        &mut self,
        subscriber: usize,
        topic: usize,
        reset: &Reset,
        resume: Position,
        now: Duration,
    ) -> Option<Question> {
        self.counts.resets += 1;
        self.settle_gaps(subscriber);
        let text = format!("{:?} from {} to after {resume}", reset.reason, reset.from);
        self.subscribers[subscriber].note(now, Some(topic), Observation::Reset(text.clone()));
        let view = self.subscribers[subscriber].view(topic)?;
        let from = view.position()?;
        let wrong = if reset.from != from.to_string() {
            Some(format!("the client's position {from}"))
        } else if reset.oldest.is_some_and(|oldest| oldest.seq != resume.seq + 1) {
            Some(format!("an id just before the oldest entry {}", describe_position(reset.oldest)))
        } else if reset.reason == ResetReason::Trimmed && resume.seq <= from.seq {
            Some(format!("an oldest entry beyond {}", from.seq + 1))
        } else {
            None
        };
        view.reset(ResetNotice { reason: reset.reason, from, resume, at: now });
        if let Some(expected) = wrong {
            self.report_by_subscriber(
                Kind::BadReset,
                now,
                subscriber,
                topic,
                expected,
                text.clone(),
            );
        }
        let context = self.context_of(subscriber, Some(topic));
        let expected = format!("no reset: the log has {from} and everything after it");
        let violation = context.violation(Kind::SpuriousReset, now, &self.topics, expected, text);
        Some(Question { topic, claim: Claim::Reset { from, head: reset.head }, violation })
    }

    /// A subscriber that wanted everything that is retained was opened a stream here.
    pub fn earliest_requested(
        &mut self,
        subscriber: usize,
        topic: usize,
        position: Position,
        requested_at: Duration,
        now: Duration,
    ) -> Option<Question> {
        if position.seq == 0 {
            return None;
        }
        let context = self.context_of(subscriber, Some(topic));
        let expected = "the position before the oldest entry that is retained".to_owned();
        let came = format!("{position}, for a stream from the earliest on");
        let violation = context.violation(Kind::Gap, now, &self.topics, expected, came);
        Some(Question { topic, claim: Claim::Earliest { position, requested_at }, violation })
    }

    /// The log was asked.
    pub fn answer_question(&mut self, question: Question, evidence: &Evidence) {
        if let Claim::Reset { .. } = question.claim {
            match evidence {
                Evidence::Refutes(_) => self.counts.resets_spurious += 1,
                Evidence::Supports => self.counts.resets_justified += 1,
                Evidence::Unknown => self.counts.resets_unjudged += 1,
            }
        }
        if let Evidence::Refutes(history) = evidence {
            let mut violation = question.violation;
            violation.expected = format!("{}; {history}", violation.expected);
            self.store(violation);
        }
    }

    /// Whether the event at this position was acknowledged before that time.
    pub fn was_acknowledged_before(
        &self,
        topic: usize,
        position: Position,
        time: Duration,
    ) -> bool {
        let event = self.publish_log.event_at(topic, position);
        let published = event.and_then(|event| self.publish_log.get(event));
        published.and_then(|published| published.acknowledged()).is_some_and(|at| at < time)
    }
}
