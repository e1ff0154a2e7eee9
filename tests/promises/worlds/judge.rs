//! [`Judge`]: holds every event of one client against what truly happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fantail::position::{Claim, Cursor, Position};
use fantail::topic::Topic;

use super::World;
use crate::harness::client;
use crate::harness::truth::Moment;

/// What the judge knows of one client and one topic.
struct Seen {
    position: Position,
    truth: Moment,
    /// How often the log had changed by then.
    since: usize,
}

/// Holds every event of one client against the truth.
pub(super) struct Judge {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) topics: Vec<Topic>,
    seen: BTreeMap<Topic, Seen>,
    pub(super) resets: u64,
}

impl Judge {
    pub(super) fn new(world: Arc<World>, name: String, topics: Vec<Topic>) -> Judge {
        Judge { world, name, topics, seen: BTreeMap::new(), resets: 0 }
    }

    pub(super) fn take(&mut self, event: &client::Event) {
        self.world.tell((&self.name, &event.kind, &event.id, &event.data));
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
        self.world.log.records(topic, |records| {
            let moment = records.truth.at(position);
            let moment = moment.unwrap_or_else(|| panic!("{}: never was: {event:?}", self.who()));
            let moment = records.truth.entry(moment);
            let is_next = records.truth.is_next(seen.truth, moment);
            assert!(is_next, "{}: a hole or a twin after {}: {event:?}", self.who(), seen.position);
            assert_eq!(records.data.get(&moment), Some(&event.data), "{}: {event:?}", self.who());
        });
        self.stand(topic, position);
    }

    fn take_reset(&mut self, event: &client::Event, moved: Vec<(Topic, Position)>) {
        let told = event.json();
        let topic = Topic::new(told["topic"].as_str().unwrap()).unwrap();
        assert!(moved.iter().all(|(other, _)| *other == topic), "{}: {event:?}", self.who());
        let seen = &self.seen[&topic];
        assert_eq!(told["from"], seen.position.to_string(), "{}: {event:?}", self.who());
        self.world.log.records(&topic, |records| {
            let truth = &records.truth;
            let since = &records.states[seen.since.saturating_sub(1)..];
            let mut whole =
                since.iter().map(|&(tip, oldest)| truth.continues(seen.position, tip, oldest));
            let justified =
                truth.is_forgotten(seen.position.epoch) || whole.any(|continues| !continues);
            assert!(justified, "{}: a reset in vain: {event:?}", self.who());
        });
        let position = self.positions(&event.id).remove(&topic).unwrap();
        self.stand(&topic, position);
        self.resets += 1;
    }

    fn stand(&mut self, topic: &Topic, position: Position) {
        let (truth, since) = self.world.log.records(topic, |records| {
            let truth = records.truth.at(position);
            let never = || panic!("{}: nobody was ever at {position} of {topic}", self.who());
            (truth.unwrap_or_else(never), records.states.len())
        });
        self.seen.insert(topic.clone(), Seen { position, truth, since });
    }

    fn positions(&self, id: &str) -> BTreeMap<Topic, Position> {
        let cursor = Cursor::read(id, &self.topics);
        let position = |topic: &Topic| match cursor.claim(topic) {
            Some(Claim::Position(position)) => (topic.clone(), *position),
            _ => panic!("{}: no position of {topic} in {id:?}", self.who()),
        };
        self.topics.iter().map(position).collect()
    }

    pub(super) fn has_everything(&self) -> bool {
        let has = |topic: &Topic| {
            self.world.log.records(topic, |records| {
                let seen = self.seen.get(topic);
                let newest = records.truth.entry(records.log.tip);
                seen.is_some_and(|seen| records.truth.entry(seen.truth) == newest)
            })
        };
        self.world.settled.load(Ordering::Relaxed) && self.topics.iter().all(has)
    }

    fn who(&self) -> String {
        format!("seed {}, {}", self.world.seed, self.name)
    }
}
