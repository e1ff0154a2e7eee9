//! [`KnownBoards`]: where ids lead, as far as this node was told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::topic::Topic;

/// How many ids of each kind are remembered.
const KNOWN_MAX: usize = 10_000;

/// Where ids lead, as far as this node was told. Nothing moves from one board to another, so it stays
/// true until Redis loses it.
#[derive(Default)]
pub(in crate::log::redis) struct KnownBoards {
    pub(super) of_list: Known<Topic>,
    pub(super) of_number: Known<u64>,
}

/// The boards of some ids.
pub(super) struct Known<K>(Mutex<HashMap<K, Topic>>);

impl<K> Default for Known<K> {
    fn default() -> Known<K> {
        Known(Mutex::default())
    }
}

impl<K: Hash + Eq> Known<K> {
    pub(super) fn get(&self, id: &K) -> Option<Topic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(super) fn insert(&self, id: K, board: Topic) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(id, board);
    }

    pub(super) fn remove(&self, id: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
