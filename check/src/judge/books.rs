//! [`Book`]: what the judge keeps of each subscriber, and how it becomes evidence.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::{Judge, Kind, Token, View, Violation};
use crate::position::Position;
use crate::violation::seconds;

/// Violations that are kept with their evidence; the others are counted.
pub const VIOLATIONS_MAX: usize = 1_000;

/// How many of the last things a subscriber saw go with a violation.
const RECENT_MAX: usize = 8;

/// Something that a subscriber saw.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    Asked(String),
    Hello(Position),
    Entry(Position, Option<Token>),
    Reset(String),
    Ended(String),
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) views: Vec<(usize, View)>,
    pub(super) url: String,
    pub(super) connection: u32,
    pub(super) recent: VecDeque<(Duration, Option<usize>, Seen)>,
    /// Holes that may still be filled: topic, first and last number, and what they would be told as.
    pub(super) drafts: Vec<(usize, u64, u64, Violation)>,
    pub(super) longest_wait: Duration,
    /// Some of its deliveries: milliseconds since the start, and which event.
    pub(super) series: Vec<(u32, Token)>,
    pub(super) step_ends: Duration,
}

impl Judge {
    pub(super) fn about(&self, subscriber: usize, topic: Option<usize>) -> About {
        let book = &self.books[subscriber];
        About {
            topic,
            subscriber: Some(subscriber),
            url: Some(book.url.clone()),
            connection: Some(book.connection),
            recent: book.recent.iter().map(|seen| self.show_seen(seen)).collect(),
        }
    }

    pub(super) fn accuse(
        &mut self,
        kind: Kind,
        now: Duration,
        subscriber: usize,
        topic: usize,
        expected: String,
        came: String,
    ) {
        let about = self.about(subscriber, Some(topic));
        self.violate(kind, now, about, expected, came);
    }

    pub(super) fn violate(
        &mut self,
        kind: Kind,
        now: Duration,
        about: About,
        expected: String,
        came: String,
    ) {
        let violation = about.violation(kind, now, &self.topics, expected, came);
        self.keep(violation);
    }

    pub(super) fn keep(&mut self, violation: Violation) {
        self.counts.violations += 1;
        *self.kinds.entry(violation.kind).or_default() += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    pub(super) fn show(&self, token: Token) -> String {
        match self.ledger.line(token) {
            Some(line) => format!("event {} of publisher {}", token.0, line.publisher()),
            None => format!("event {}, which was never sent,", token.0),
        }
    }

    fn show_seen(&self, (at, topic, seen): &(Duration, Option<usize>, Seen)) -> String {
        let topic = topic.map_or(String::new(), |topic| format!("{} ", self.topics[topic]));
        let what = match seen {
            Seen::Asked(url) => format!("asked {url} for a stream"),
            Seen::Hello(place) => format!("opening event at {place}"),
            Seen::Entry(place, Some(token)) => format!("{place} {}", self.show(*token)),
            Seen::Entry(place, None) => format!("{place}, no event of this check"),
            Seen::Reset(text) => format!("reset {text}"),
            Seen::Ended(why) => format!("stream ended: {why}"),
        };
        format!("{:9.3} s  {topic}{what}", at.as_secs_f64())
    }
}

pub(super) fn shown(place: Option<Position>) -> impl fmt::Display {
    place.map_or_else(|| "nowhere".to_owned(), |place| place.to_string())
}

impl Book {
    pub(super) fn view(&mut self, topic: usize) -> Option<&mut View> {
        self.views.iter_mut().find(|(its, _)| *its == topic).map(|(_, view)| view)
    }

    pub(super) fn note(&mut self, now: Duration, topic: Option<usize>, seen: Seen) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, topic, seen));
    }
}

/// Whom and what a violation is about.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) topic: Option<usize>,
    pub(super) subscriber: Option<usize>,
    pub(super) url: Option<String>,
    pub(super) connection: Option<u32>,
    pub(super) recent: Vec<String>,
}

impl About {
    pub(super) const NOBODY: About =
        About { topic: None, subscriber: None, url: None, connection: None, recent: Vec::new() };

    pub(super) fn violation(
        self,
        kind: Kind,
        now: Duration,
        topics: &[String],
        expected: String,
        came: String,
    ) -> Violation {
        Violation {
            kind,
            at_seconds: seconds(now),
            topic: self.topic.map(|topic| topics[topic].clone()),
            subscriber: self.subscriber,
            url: self.url,
            connection: self.connection,
            expected,
            came,
            events: 1,
            recent: self.recent,
        }
    }
}
