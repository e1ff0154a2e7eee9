//! [`Limits`]: when the streams of a reactor have to end.

use std::time::Instant;

use crate::said::EndReason;

/// By stream: it has no limit.
const NONE: u32 = u32::MAX;

/// The next end of each stream that has one, the earliest first.
///
/// Streams come back for years, each with a limit hours away: one that left takes its limit with it,
/// or they would be far more than there are streams.
///
/// Invariants: `heap` is a heap by time, with each stream in it once at most, and `slots` says where.
#[derive(Default)]
pub(super) struct Limits {
    heap: Vec<Limit>,
    /// By stream: its index in `heap`, or [`NONE`].
    slots: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Limit {
    at: Instant,
    stream: u32,
    reason: EndReason,
}

impl Limits {
    /// When the first of them is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.first().map(|limit| limit.at)
    }

    /// Has a stream end at a time, unless it has to end before that anyway.
    pub(super) fn set(&mut self, stream: u32, at: Instant, reason: EndReason) {
        let limit = Limit { at, stream, reason };
        match self.slot(stream) {
            Some(slot) if self.heap[slot].at <= at => {}
            Some(slot) => {
                self.heap[slot] = limit;
                self.sift_up(slot);
            }
            None => {
                if self.slots.len() <= stream as usize {
                    self.slots.resize(stream as usize + 1, NONE);
                }
                self.heap.push(limit);
                self.sift_up(self.heap.len() - 1);
            }
        }
    }

    /// Forgets the limit of a stream, if it has one.
    pub(super) fn remove(&mut self, stream: u32) {
        if let Some(slot) = self.slot(stream) {
            self.remove_at(slot);
        }
    }

    /// Takes the first of them if it is due: which stream, and why it ends.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(u32, EndReason)> {
        let Limit { at, stream, reason } = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove_at(0);
        Some((stream, reason))
    }

    fn slot(&self, stream: u32) -> Option<usize> {
        let slot = *self.slots.get(stream as usize)?;
        (slot != NONE).then_some(slot as usize)
    }

    fn remove_at(&mut self, slot: usize) {
        let removed = self.heap.swap_remove(slot);
        self.slots[removed.stream as usize] = NONE;
        if self.heap.is_empty() {
            // Ten thousand streams that left leave no room behind.
            *self = Limits::default();
        } else if slot < self.heap.len() {
            // The one that came here from the end may belong above or below.
            let slot = self.sift_up(slot);
            self.sift_down(slot);
        }
    }

    /// Moves the limit at `slot` up to where it belongs, and says where that is.
    fn sift_up(&mut self, mut slot: usize) -> usize {
        let limit = self.heap[slot];
        while slot > 0 {
            let parent = (slot - 1) / 2;
            if self.heap[parent].at <= limit.at {
                break;
            }
            self.put(slot, self.heap[parent]);
            slot = parent;
        }
        self.put(slot, limit);
        slot
    }

    fn sift_down(&mut self, mut slot: usize) {
        let limit = self.heap[slot];
        loop {
            let children = (2 * slot + 1..self.heap.len()).take(2);
            let Some(child) = children.min_by_key(|child| self.heap[*child].at) else { break };
            if limit.at <= self.heap[child].at {
                break;
            }
            self.put(slot, self.heap[child]);
            slot = child;
        }
        self.put(slot, limit);
    }

    fn put(&mut self, slot: usize, limit: Limit) {
        self.heap[slot] = limit;
        self.slots[limit.stream as usize] = slot as u32;
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set { stream: u32, at: u64 },
        Remove { stream: u32 },
        Pass(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40_u32, 0..1_000_u64).prop_map(|(stream, at)| Step::Set { stream, at }),
            2 => (0..40_u32).prop_map(|stream| Step::Remove { stream }),
            1 => (0..100_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn each_stream_ends_once_at_its_earliest_limit(
            steps in proptest::collection::vec(any_step(), 1..200)
        ) {
            let began_at = Instant::now();
            let mut now = 0;
            let mut limits = Limits::default();
            let mut model = BTreeMap::<u32, u64>::new();
            for step in steps {
                match step {
                    Step::Set { stream, at } => {
                        limits.set(stream, began_at + Duration::from_millis(at), EndReason::Age);
                        let earliest = model.entry(stream).or_insert(at);
                        *earliest = at.min(*earliest);
                    }
                    Step::Remove { stream } => {
                        limits.remove(stream);
                        model.remove(&stream);
                    }
                    Step::Pass(milliseconds) => {
                        now += milliseconds;
                        let mut last = 0;
                        let at = began_at + Duration::from_millis(now);
                        while let Some((stream, _)) = limits.take_due(at) {
                            let due = model.remove(&stream).unwrap();
                            prop_assert!((last..=now).contains(&due));
                            last = due;
                        }
                        prop_assert!(model.values().all(|at| *at > now));
                    }
                }
                let next = model.values().min().map(|at| began_at + Duration::from_millis(*at));
                prop_assert_eq!((limits.len(), limits.next_at()), (model.len(), next));
            }
        }
    }
}
