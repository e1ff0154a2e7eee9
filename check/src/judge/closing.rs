//! The end of a check: what was due and did not come.

use std::time::Duration;

use super::books::shown;
use super::{Judge, Kind, Reason, Token, View};
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
    pub events: Vec<(Position, Token, Fate)>,
}

/// What became of an event that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody said anything.
    Silence,
    /// A reset said that it was gone.
    Told,
    /// It is older than its subscriber, who wanted everything that was retained and was told that
    /// this no longer was: the log went on while the stream was being opened.
    TooOld,
    /// The log went on without it.
    LostByLog,
}

impl Judge {
    /// Whether every subscriber has, or was told of, the newest acknowledged event of each of its
    /// topics. Cheap; what came before it is [`Judge::missing`]'s question.
    pub fn is_settled(&self) -> bool {
        let settled = |(topic, view): &(usize, View)| {
            self.ledger.newest(*topic).is_none_or(|newest| {
                let event = self.ledger.event_at(*topic, newest);
                let line = event.and_then(|token| self.ledger.line(token));
                line.is_none_or(|line| {
                    let sent = line.first_sent();
                    !view.is_due(newest, sent)
                        || view.has(newest)
                        || view.was_told(newest, sent).is_some()
                })
            })
        };
        self.books.iter().all(|book| book.views.iter().all(settled))
    }

    /// Every acknowledged event that was due to a subscriber and not delivered.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (subscriber, book) in self.books.iter().enumerate() {
            for (topic, view) in &book.views {
                let events = self.ledger.acknowledged(*topic).iter().filter_map(|&token| {
                    let line = self.ledger.line(token)?;
                    let place = line.place()?;
                    let sent = line.first_sent();
                    if view.has(place) || !view.is_due(place, sent) {
                        return None;
                    }
                    let acknowledged = line.acknowledged()?;
                    let joined = view.hello().map(|(at, _)| at);
                    let fate = match view.was_told(place, sent) {
                        Some(Reason::Trimmed) if joined.is_some_and(|at| sent < at) => Fate::TooOld,
                        Some(_) => Fate::Told,
                        None if self.ledger.was_given_again(*topic, place, acknowledged) => {
                            Fate::LostByLog
                        }
                        None => Fate::Silence,
                    };
                    Some((place, token, fate))
                });
                let mut events: Vec<_> = events.collect();
                events.sort_by_key(|(place, ..)| place.seq);
                if !events.is_empty() {
                    missing.push(Missing { subscriber, topic: *topic, events });
                }
            }
        }
        missing
    }

    /// Closes the books: judges what is missing and what is still open.
    pub fn close(&mut self, missing: &[Missing], now: Duration) {
        for subscriber in 0..self.books.len() {
            self.settle_holes(subscriber);
        }
        self.counts.unknown = self.counts.sent - self.counts.acknowledged - self.counts.refused;
        let republished = self.republished.difference(&self.doubled).count();
        self.counts.republished_after_loss = republished as u64;
        for missing in missing {
            let too_old = missing.events.iter().filter(|(.., fate)| *fate == Fate::TooOld);
            self.counts.too_old += too_old.count() as u64;
            for (fate, kind) in [
                (Fate::Silence, Kind::LostInSilence),
                (Fate::Told, Kind::LostAndTold),
                (Fate::LostByLog, Kind::LostByLog),
            ] {
                let events = missing.events.iter().filter(|(.., its)| *its == fate);
                let events: Vec<_> = events.collect();
                let Some(first) = events.first() else { continue };
                let count = events.len() as u64;
                match fate {
                    Fate::Silence => self.counts.lost_in_silence += count,
                    Fate::TooOld => {}
                    Fate::Told => self.counts.lost_and_told += count,
                    Fate::LostByLog => self.counts.lost_by_log += count,
                }
                if fate != Fate::Silence && self.rules.loss_expected {
                    continue;
                }
                let (place, token, _) = first;
                let acknowledged = self.ledger.line(*token).and_then(|line| line.acknowledged());
                let expected = format!(
                    "{count} acknowledged {}, the first {} at {place}, acknowledged at {:.3} s",
                    if count == 1 { "event" } else { "events" },
                    self.show(*token),
                    seconds(acknowledged.unwrap_or_default())
                );
                let at = self.books[missing.subscriber].view(missing.topic).and_then(|v| v.at());
                let came = match fate {
                    Fate::Silence => "no delivery and no reset",
                    Fate::Told | Fate::TooOld => "a reset that told of the loss",
                    Fate::LostByLog => "no delivery; the log went on without it",
                };
                let came = format!("{came}; the stream stands at {}", shown(at));
                let about = self.about(missing.subscriber, Some(missing.topic));
                let mut violation = about.violation(kind, now, &self.topics, expected, came);
                violation.events = count;
                self.keep(violation);
            }
        }
    }
}
