//! The end of a check: what was due and did not come.

use std::time::Duration;

use super::records::describe_position;
use super::{Checker, EventId, Kind, ResetReason, View};
use crate::position::Position;
use crate::violation::seconds;

/// Acknowledged events that a subscriber should have been delivered and was not.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Who.
    pub subscriber: usize,
    /// Index of the topic.
    pub topic: usize,
    /// Positions, and what is known of each.
    pub events: Vec<(Position, EventId, MissingCause)>,
}

/// Why an event was not delivered, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingCause {
    /// No reset said that it was gone.
    Unannounced,
    /// A reset said that it was gone.
    Announced,
    /// It is older than its subscriber, who wanted everything that was retained and was told that
    /// this no longer was: the log went on while the stream was being opened.
    TooOld,
    /// The log went on without it.
    LostByLog,
}

impl Checker {
    /// Whether every subscriber has, or was told of, the newest acknowledged event of each of its
    /// topics. Cheap; what came before it is [`Checker::missing`]'s question.
    pub fn is_settled(&self) -> bool {
        let settled = |(topic, view): &(usize, View)| {
            self.publish_log.newest(*topic).is_none_or(|newest| {
                let event = self.publish_log.event_at(*topic, newest);
                let published = event.and_then(|event| self.publish_log.get(event));
                published.is_none_or(|published| {
                    let sent = published.first_sent();
                    !view.is_due(newest, sent)
                        || view.has(newest)
                        || view.reset_reason(newest, sent).is_some()
                })
            })
        };
        self.subscribers.iter().all(|record| record.views.iter().all(settled))
    }

    /// Every acknowledged event that was due to a subscriber and not delivered.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (subscriber, record) in self.subscribers.iter().enumerate() {
            for (topic, view) in &record.views {
                let events = self.publish_log.acknowledged(*topic).iter().filter_map(|&event| {
                    let published = self.publish_log.get(event)?;
                    let position = published.position()?;
                    let sent = published.first_sent();
                    if view.has(position) || !view.is_due(position, sent) {
                        return None;
                    }
                    let acknowledged = published.acknowledged()?;
                    let joined = view.opening().map(|(at, _)| at);
                    let cause = match view.reset_reason(position, sent) {
                        Some(ResetReason::Trimmed) if joined.is_some_and(|at| sent < at) => {
                            MissingCause::TooOld
                        }
                        Some(_) => MissingCause::Announced,
                        None if self.publish_log.number_was_reused(
                            *topic,
                            position,
                            acknowledged,
                        ) =>
                        {
                            MissingCause::LostByLog
                        }
                        None => MissingCause::Unannounced,
                    };
                    Some((position, event, cause))
                });
                let mut events: Vec<_> = events.collect();
                events.sort_by_key(|(position, ..)| position.seq);
                if !events.is_empty() {
                    missing.push(Missing { subscriber, topic: *topic, events });
                }
            }
        }
        missing
    }

    /// Ends the check: judges what is missing and what is still open.
    pub fn close(&mut self, missing: &[Missing], now: Duration) {
        for subscriber in 0..self.subscribers.len() {
            self.settle_gaps(subscriber);
        }
        self.counts.unknown = self.counts.sent - self.counts.acknowledged - self.counts.refused;
        let republished = self.republished.difference(&self.duplicated).count();
        self.counts.republished_after_loss = republished as u64;
        for missing in missing {
            let too_old =
                missing.events.iter().filter(|(.., cause)| *cause == MissingCause::TooOld);
            self.counts.too_old += too_old.count() as u64;
            for (cause, kind) in [
                (MissingCause::Unannounced, Kind::LostInSilence),
                (MissingCause::Announced, Kind::LostAndTold),
                (MissingCause::LostByLog, Kind::LostByLog),
            ] {
                let events = missing.events.iter().filter(|(.., its)| *its == cause);
                let events: Vec<_> = events.collect();
                let Some(first) = events.first() else { continue };
                let count = events.len() as u64;
                match cause {
                    MissingCause::Unannounced => self.counts.lost_in_silence += count,
                    MissingCause::TooOld => {}
                    MissingCause::Announced => self.counts.lost_and_told += count,
                    MissingCause::LostByLog => self.counts.lost_by_log += count,
                }
                if cause != MissingCause::Unannounced && self.rules.loss_expected {
                    continue;
                }
                let (position, event, _) = first;
                let acknowledged =
                    self.publish_log.get(*event).and_then(|published| published.acknowledged());
                let expected = format!(
                    "{count} acknowledged {}, the first {} at {position}, acknowledged at {:.3} s",
                    if count == 1 { "event" } else { "events" },
                    self.describe(*event),
                    seconds(acknowledged.unwrap_or_default())
                );
                let came = match cause {
                    MissingCause::Unannounced => "no delivery and no reset",
                    MissingCause::Announced | MissingCause::TooOld => {
                        "a reset that told of the loss"
                    }
                    MissingCause::LostByLog => "no delivery; the log went on without it",
                };
                let at = self.position_of(missing.subscriber, missing.topic);
                let came = format!("{came}; the stream stands at {}", describe_position(at));
                let context = self.context_of(missing.subscriber, Some(missing.topic));
                let mut violation = context.violation(kind, now, &self.topics, expected, came);
                violation.events = count;
                self.store(violation);
            }
        }
    }
}
