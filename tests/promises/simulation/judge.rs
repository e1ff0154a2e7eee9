//! [`Judge`]: holds every event of one client against what truly happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fantail::position::{Cursor, Position, ResumePoint};
use fantail::topic::Topic;

use super::Simulation;
use crate::harness::client;
use crate::harness::oracle::LogEvent;

/// What the judge knows of one client and one topic.
struct Seen {
    position: Position,
    oracle: LogEvent,
    /// How often the log had changed by then.
    since: usize,
}

/// Holds every event of one client against the oracle.
pub(super) struct Judge {
    pub(super) simulation: Arc<Simulation>,
    pub(super) name: String,
    pub(super) topics: Vec<Topic>,
    seen: BTreeMap<Topic, Seen>,
    pub(super) resets: u64,
}

impl Judge {
    pub(super) fn new(simulation: Arc<Simulation>, name: String, topics: Vec<Topic>) -> Judge {
        Judge { simulation, name, topics, seen: BTreeMap::new(), resets: 0 }
    }

    pub(super) fn take(&mut self, event: &client::Event) {
        self.simulation.tell((&self.name, &event.kind, &event.id, &event.data));
        let positions = self.positions(&event.id);
        if event.is_connected() {
            for (topic, position) in positions {
                match self.seen.get(&topic) {
                    Some(seen) => assert_eq!(seen.position, position, "{}: {event:?}", self.who()),
                    None => self.stand(&topic, position),
                }
            }
            return;
        }
        let is_new = |(topic, position): &(Topic, Position)| {
            self.seen.get(topic).is_none_or(|seen| seen.position != *position)
        };
        let mut moved: Vec<(Topic, Position)> = positions.into_iter().filter(is_new).collect();
        match event.kind.as_str() {
            "reset" => self.take_reset(event, moved),
            "message" => {
                assert_eq!(moved.len(), 1, "{}: not one of its topics: {event:?}", self.who());
                let (topic, position) = moved.remove(0);
                self.take_entry(event, &topic, position);
            }
            _ => panic!("{}: {event:?}", self.who()),
        }
    }

    fn take_entry(&mut self, event: &client::Event, topic: &Topic, position: Position) {
        let seen = &self.seen[topic];
        self.simulation.log.records(topic, |records| {
            let log_event = records.oracle.at(position);
            let log_event =
                log_event.unwrap_or_else(|| panic!("{}: never was: {event:?}", self.who()));
            let log_event = records.oracle.entry(log_event);
            let is_next = records.oracle.is_next(seen.oracle, log_event);
            assert!(is_next, "{}: a hole or a twin after {}: {event:?}", self.who(), seen.position);
            assert_eq!(
                records.data.get(&log_event),
                Some(&event.data),
                "{}: {event:?}",
                self.who()
            );
        });
        self.stand(topic, position);
    }

    fn take_reset(&mut self, event: &client::Event, moved: Vec<(Topic, Position)>) {
        let told = event.json();
        let topic = Topic::new(told["topic"].as_str().unwrap()).unwrap();
        assert!(moved.iter().all(|(other, _)| *other == topic), "{}: {event:?}", self.who());
        let seen = &self.seen[&topic];
        assert_eq!(told["from"], seen.position.to_string(), "{}: {event:?}", self.who());
        self.simulation.log.records(&topic, |records| {
            let oracle = &records.oracle;
            let since = &records.states[seen.since.saturating_sub(1)..];
            let mut whole =
                since.iter().map(|&(tip, oldest)| oracle.continues(seen.position, tip, oldest));
            let justified =
                oracle.is_forgotten(seen.position.epoch) || whole.any(|continues| !continues);
            assert!(justified, "{}: a reset in vain: {event:?}", self.who());
        });
        let position = self.positions(&event.id).remove(&topic).unwrap();
        self.stand(&topic, position);
        self.resets += 1;
    }

    fn stand(&mut self, topic: &Topic, position: Position) {
        let (oracle, since) = self.simulation.log.records(topic, |records| {
            let oracle = records.oracle.at(position);
            let never = || panic!("{}: nobody was ever at {position} of {topic}", self.who());
            (oracle.unwrap_or_else(never), records.states.len())
        });
        self.seen.insert(topic.clone(), Seen { position, oracle, since });
    }

    fn positions(&self, id: &str) -> BTreeMap<Topic, Position> {
        let cursor = Cursor::read(id, &self.topics);
        let position = |topic: &Topic| match cursor.resume_point(topic) {
            Some(ResumePoint::Position(position)) => (topic.clone(), *position),
            _ => panic!("{}: no position of {topic} in {id:?}", self.who()),
        };
        self.topics.iter().map(position).collect()
    }

    pub(super) fn has_everything(&self) -> bool {
        let has = |topic: &Topic| {
            self.simulation.log.records(topic, |records| {
                let seen = self.seen.get(topic);
                let oracle = &records.oracle;
                let newest = oracle.entry(records.log.tip);
                // A replica that takes over may be from before a flush. Who has found nothing since
                // then, and finds nothing there, is told nothing.
                let both_empty = |seen| oracle.is_empty(seen) && oracle.is_empty(newest);
                seen.is_some_and(|seen| {
                    oracle.entry(seen.oracle) == newest || both_empty(seen.oracle)
                })
            })
        };
        self.simulation.settled.load(Ordering::Relaxed) && self.topics.iter().all(has)
    }

    fn who(&self) -> String {
        format!("seed {}, {}", self.simulation.seed, self.name)
    }
}
