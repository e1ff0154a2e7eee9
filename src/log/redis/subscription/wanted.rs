//! [`Wanted`]: the topics that a subscription shall hear, of which there may be a quarter of a
//! million.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::topic::Topic;

/// Parts of the set: each grows, and is copied, by itself. All at once that would take some 20 ms,
/// in which nothing else could be wanted or heard.
const PARTS: usize = 64;

/// A set of topics, in parts.
pub(super) struct Wanted {
    parts: [HashSet<Topic>; PARTS],
    hasher: RandomState,
}

impl Wanted {
    pub(super) fn new() -> Wanted {
        Wanted { parts: std::array::from_fn(|_| HashSet::new()), hasher: RandomState::new() }
    }

    pub(super) fn insert(&mut self, topic: &Topic) {
        self.part_of(topic).insert(topic.clone());
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        self.part_of(topic).remove(topic);
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.parts[self.part_index(topic)].contains(topic)
    }

    /// The topics of one part, copied; nothing after the last one.
    pub(super) fn part(&self, part: usize) -> Option<Vec<Topic>> {
        self.parts.get(part).map(|topics| topics.iter().cloned().collect())
    }

    fn part_of(&mut self, topic: &Topic) -> &mut HashSet<Topic> {
        let index = self.part_index(topic);
        &mut self.parts[index]
    }

    fn part_index(&self, topic: &Topic) -> usize {
        self.hasher.hash_one(topic) as usize % PARTS
    }
}
