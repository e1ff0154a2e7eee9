//! [`Ranking`]: topics by how many streams follow them, the largest first. Pure.
//!
//! The [`hub`](crate::hub) keeps one of its own topics, [`stats`](crate::stats) one of those of all
//! nodes.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::topic::Topic;

/// The same of topics that have a state and of those that have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    /// Of topics that have a state.
    pub with_state: T,
    /// Of topics that have none.
    pub plain: T,
}

impl<T> ByKind<T> {
    /// That of topics that have a state, or that of the others.
    pub fn of(&self, has_state: bool) -> &T {
        if has_state { &self.with_state } else { &self.plain }
    }

    /// That of topics that have a state, or that of the others.
    pub fn of_mut(&mut self, has_state: bool) -> &mut T {
        if has_state { &mut self.with_state } else { &mut self.plain }
    }

    /// Makes something of each.
    pub fn map<'a, U>(&'a self, mut make: impl FnMut(&'a T) -> U) -> ByKind<U> {
        ByKind { with_state: make(&self.with_state), plain: make(&self.plain) }
    }
}

/// Topics in the order of their streams, the largest first, then by name. One without streams is
/// not among them.
///
/// It does not know how many streams a topic had: whoever changes a topic says so. A topic costs it
/// some 35 bytes beside the name, which is shared.
#[derive(Debug, Default)]
pub struct Ranking {
    order: BTreeSet<(Reverse<usize>, Topic)>,
}

impl Ranking {
    /// A topic that had so many streams `before` has so many `now`.
    pub fn change(&mut self, topic: &Topic, before: usize, now: usize) {
        if before == now {
            return;
        }
        if before > 0 {
            self.order.remove(&(Reverse(before), topic.clone()));
        }
        if now > 0 {
            self.order.insert((Reverse(now), topic.clone()));
        }
    }

    /// How many topics have streams.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no topic has streams.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The topics that most streams follow, at most `max`, each with how many.
    pub fn largest(&self, max: usize) -> Vec<(Topic, usize)> {
        let largest = self.order.iter().take(max);
        largest.map(|(streams, topic)| (topic.clone(), streams.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_that_most_streams_follow_come_first_and_then_by_name() {
        let topic = |name: &str| Topic::new(name).unwrap();
        let mut ranking = Ranking::default();
        for (name, before, now) in
            [("b", 0, 1), ("a", 0, 1), ("c", 0, 7), ("gone", 0, 9), ("b", 1, 7), ("gone", 9, 0)]
        {
            ranking.change(&topic(name), before, now);
        }
        assert_eq!(ranking.len(), 3);
        assert_eq!(ranking.largest(9), [(topic("b"), 7), (topic("c"), 7), (topic("a"), 1)]);
        assert_eq!(ranking.largest(1), [(topic("b"), 7)]);
    }
}
