//! [`PublishLog`]: what was published, how it was answered, and which event each position stands
//! for.
//!
//! Compact, because a long check at a high rate makes hundreds of thousands of records: 64 bytes
//! an event, and some 40 for its position.

use std::collections::HashMap;
use std::time::Duration;

use crate::position::{Epoch, Position};

/// An event of this check, by its number: 0 for the first that was sent, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub u32);

/// How far the publication of an event got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishState {
    /// It was sent and not answered, or not yet.
    Open,
    /// It was acknowledged with a position.
    Acknowledged,
    /// It was refused for good, so it is in no log.
    Refused,
}

/// What is known of one event. Times are microseconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct PublishRecord {
    first_sent: u64,
    last_sent: u64,
    acknowledged: u64,
    /// 32 bytes with the mark that there is none.
    position: Option<Position>,
    topic: u16,
    publisher: u16,
    attempts: u16,
    state: PublishState,
}

impl PublishRecord {
    /// Index of its topic.
    pub fn topic(&self) -> usize {
        usize::from(self.topic)
    }

    /// Number of its publisher.
    pub fn publisher(&self) -> usize {
        usize::from(self.publisher)
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u16 {
        self.attempts
    }

    /// When it was sent first.
    pub fn first_sent(&self) -> Duration {
        Duration::from_micros(self.first_sent)
    }

    /// When it was sent last.
    pub fn last_sent(&self) -> Duration {
        Duration::from_micros(self.last_sent)
    }

    /// When it was acknowledged, if it was.
    pub fn acknowledged(&self) -> Option<Duration> {
        (self.state == PublishState::Acknowledged).then(|| Duration::from_micros(self.acknowledged))
    }

    /// The first position it was known to have.
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}

/// What a position and an event say of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// Nothing that contradicts what is known.
    Agrees,
    /// The position stands for another event.
    Conflict(EventId),
    /// The event has these positions too.
    Elsewhere(Vec<Position>),
}

/// What is known of the events of one topic.
#[derive(Debug, Default)]
struct TopicEvents {
    events: HashMap<Position, EventId>,
    /// Every epoch that a position was seen in.
    epochs: Vec<Epoch>,
    acknowledged: Vec<EventId>,
    newest: Option<Position>,
}

/// What was published and where it is.
#[derive(Debug)]
pub struct PublishLog {
    records: Vec<PublishRecord>,
    topics: Vec<TopicEvents>,
    /// Further positions of events that have more than one: rare.
    elsewhere: HashMap<EventId, Vec<Position>>,
}

fn microseconds(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

impl PublishLog {
    /// An empty log for this many topics.
    pub fn new(topics: usize) -> PublishLog {
        let topics = std::iter::repeat_with(TopicEvents::default).take(topics).collect();
        PublishLog { records: Vec::new(), topics, elsewhere: HashMap::new() }
    }

    /// Notes that an event is about to be sent for the first time.
    pub fn add(&mut self, topic: usize, publisher: usize, now: Duration) -> EventId {
        let event = EventId(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        self.records.push(PublishRecord {
            first_sent: microseconds(now),
            last_sent: microseconds(now),
            acknowledged: 0,
            position: None,
            topic: u16::try_from(topic).unwrap_or(u16::MAX),
            publisher: u16::try_from(publisher).unwrap_or(u16::MAX),
            attempts: 1,
            state: PublishState::Open,
        });
        event
    }

    /// What is known of an event, `None` if this check sent no such one.
    pub fn get(&self, event: EventId) -> Option<&PublishRecord> {
        self.records.get(event.0 as usize)
    }

    /// How many events were sent.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was sent yet.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Notes that the event is sent again.
    pub fn attempt(&mut self, event: EventId, now: Duration) {
        if let Some(published) = self.records.get_mut(event.0 as usize) {
            published.attempts = published.attempts.saturating_add(1);
            published.last_sent = microseconds(now);
        }
    }

    /// Notes that the event was refused for good.
    pub fn refuse(&mut self, event: EventId) {
        if let Some(published) = self.records.get_mut(event.0 as usize) {
            published.state = PublishState::Refused;
        }
    }

    /// Notes that the event was acknowledged at this position.
    pub fn acknowledge(&mut self, event: EventId, position: Position, now: Duration) -> Agreement {
        let Some(published) = self.records.get_mut(event.0 as usize) else {
            return Agreement::Agrees;
        };
        published.state = PublishState::Acknowledged;
        published.acknowledged = microseconds(now);
        let topic = published.topic();
        let agreement = self.observe(topic, position, event);
        // What must be delivered is what the answer said, also if a stream said otherwise before.
        self.records[event.0 as usize].position = Some(position);
        let of_topic = &mut self.topics[topic];
        of_topic.acknowledged.push(event);
        let is_newer =
            |newest: Position| newest.epoch != position.epoch || newest.seq < position.seq;
        if of_topic.newest.is_none_or(is_newer) {
            of_topic.newest = Some(position);
        }
        agreement
    }

    /// Notes that the event was seen at this position, and says whether that can be.
    pub fn observe(&mut self, topic: usize, position: Position, event: EventId) -> Agreement {
        let Some(published) = self.records.get_mut(event.0 as usize) else {
            return Agreement::Agrees;
        };
        let of_topic = &mut self.topics[topic];
        if !of_topic.epochs.contains(&position.epoch) {
            of_topic.epochs.push(position.epoch);
        }
        let known = *of_topic.events.entry(position).or_insert(event);
        if known != event {
            return Agreement::Conflict(known);
        }
        let first = *published.position.get_or_insert(position);
        if first == position && !self.elsewhere.contains_key(&event) {
            return Agreement::Agrees;
        }
        let others = self.elsewhere.entry(event).or_insert_with(|| vec![first]);
        if !others.contains(&position) {
            others.push(position);
        }
        Agreement::Elsewhere(others.iter().copied().filter(|&other| other != position).collect())
    }

    /// The events of a topic that were acknowledged, in the order of the answers.
    pub fn acknowledged(&self, topic: usize) -> &[EventId] {
        &self.topics[topic].acknowledged
    }

    /// The newest position of a topic that was acknowledged.
    pub fn newest(&self, topic: usize) -> Option<Position> {
        self.topics[topic].newest
    }

    /// The event at this position, as far as known.
    pub fn event_at(&self, topic: usize, position: Position) -> Option<EventId> {
        self.topics[topic].events.get(&position).copied()
    }

    /// Whether the number of an acknowledged event was given to another one that was sent later:
    /// numbers are given once, so the log has lost the first.
    pub fn number_was_reused(
        &self,
        topic: usize,
        position: Position,
        acknowledged: Duration,
    ) -> bool {
        let of_topic = &self.topics[topic];
        let others = of_topic.epochs.iter().filter(|epoch| **epoch != position.epoch);
        others.copied().any(|epoch| {
            let other = of_topic.events.get(&Position { epoch, ..position });
            let other = other.and_then(|event| self.get(*event));
            other.is_some_and(|published| published.first_sent() >= acknowledged)
        })
    }
}
