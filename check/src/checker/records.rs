//! [`SubscriberRecord`]: what the checker keeps of each subscriber, and how it becomes the evidence
//! of a [`Violation`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::{Checker, EventId, Kind, View, Violation};
use crate::position::Position;
use crate::violation::seconds;

/// Violations that are kept with their evidence; the others are counted.
pub const VIOLATIONS_MAX: usize = 1_000;

/// How many of the last things a subscriber saw go with a violation.
const RECENT_MAX: usize = 8;

/// Something that a subscriber saw.
#[derive(Debug, Clone)]
pub(super) enum Observation {
    /// It asked this gateway for a stream.
    Requested(String),
    Opening(Position),
    Entry(Position, Option<EventId>),
    Reset(String),
    Ended(String),
}

/// What one subscriber saw, and how its deliveries went.
#[derive(Debug, Default)]
pub(super) struct SubscriberRecord {
    /// By the index of the topic.
    pub(super) views: Vec<(usize, View)>,
    /// The gateway it asked last, and how often it has asked for a stream.
    pub(super) url: String,
    pub(super) connection: u32,
    /// The last things it saw: when, in which topic, what.
    pub(super) recent: VecDeque<(Duration, Option<usize>, Observation)>,
    /// Gaps that may still be filled: topic, first and last number, and the violation that
    /// one is if nothing fills it.
    pub(super) pending_gaps: Vec<(usize, u64, u64, Violation)>,
    pub(super) longest_wait: Duration,
    /// Some of its deliveries: milliseconds since the start, and which event.
    pub(super) delivery_times: Vec<(u32, EventId)>,
    /// Until then a delivery replaces the last one in `delivery_times`.
    pub(super) step_ends_at: Duration,
}

impl Checker {
    pub(super) fn context_of(&self, subscriber: usize, topic: Option<usize>) -> ViolationContext {
        let record = &self.subscribers[subscriber];
        ViolationContext {
            topic,
            subscriber: Some(subscriber),
            url: Some(record.url.clone()),
            connection: Some(record.connection),
            recent: record.recent.iter().map(|seen| self.describe_observation(seen)).collect(),
        }
    }

    pub(super) fn report_by_subscriber(
        &mut self,
        kind: Kind,
        now: Duration,
        subscriber: usize,
        topic: usize,
        expected: String,
        came: String,
    ) {
        let context = self.context_of(subscriber, Some(topic));
        self.report(kind, now, context, expected, came);
    }

    pub(super) fn report(
        &mut self,
        kind: Kind,
        now: Duration,
        context: ViolationContext,
        expected: String,
        came: String,
    ) {
        let violation = context.violation(kind, now, &self.topics, expected, came);
        self.store(violation);
    }

    pub(super) fn store(&mut self, violation: Violation) {
        self.counts.violations += 1;
        *self.kinds.entry(violation.kind).or_default() += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    pub(super) fn describe(&self, event: EventId) -> String {
        match self.publish_log.get(event) {
            Some(published) => format!("event {} of publisher {}", event.0, published.publisher()),
            None => format!("event {}, which was never sent,", event.0),
        }
    }

    fn describe_observation(
        &self,
        (at, topic, seen): &(Duration, Option<usize>, Observation),
    ) -> String {
        let topic = topic.map_or(String::new(), |topic| format!("{} ", self.topics[topic]));
        let what = match seen {
            Observation::Requested(url) => format!("asked {url} for a stream"),
            Observation::Opening(position) => format!("opening event at {position}"),
            Observation::Entry(position, Some(event)) => {
                format!("{position} {}", self.describe(*event))
            }
            Observation::Entry(position, None) => format!("{position}, no event of this check"),
            Observation::Reset(text) => format!("reset {text}"),
            Observation::Ended(why) => format!("stream ended: {why}"),
        };
        format!("{:9.3} s  {topic}{what}", at.as_secs_f64())
    }
}

pub(super) fn describe_position(position: Option<Position>) -> impl fmt::Display {
    position.map_or_else(|| "nowhere".to_owned(), |position| position.to_string())
}

impl SubscriberRecord {
    pub(super) fn view(&mut self, topic: usize) -> Option<&mut View> {
        self.views.iter_mut().find(|(its, _)| *its == topic).map(|(_, view)| view)
    }

    pub(super) fn note(&mut self, now: Duration, topic: Option<usize>, seen: Observation) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, topic, seen));
    }
}

/// Whom and what a violation is about.
#[derive(Debug, Clone)]
pub(super) struct ViolationContext {
    pub(super) topic: Option<usize>,
    pub(super) subscriber: Option<usize>,
    pub(super) url: Option<String>,
    pub(super) connection: Option<u32>,
    pub(super) recent: Vec<String>,
}

impl ViolationContext {
    /// About the answer to a publisher.
    pub(super) fn of_answer(topic: Option<usize>, url: &str) -> ViolationContext {
        ViolationContext {
            topic,
            subscriber: None,
            url: Some(url.to_owned()),
            connection: None,
            recent: Vec::new(),
        }
    }

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
