//! [`Pool`]: compressors that are idle.

use std::sync::{Mutex, PoisonError};

/// Compressors that are kept idle: one of gzip takes 0.3 MiB, one of Zstandard 2.6. More than that are
/// made only while more threads compress at the same moment.
const IDLE_MAX: usize = 4;

/// Compressors of one format that are idle: to make one costs more than to compress a small event.
pub(super) struct Pool<T>(pub(super) Mutex<Vec<T>>);

impl<T> Pool<T> {
    /// One that is idle; `None` if a new one has to be made.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// It is idle from now on. One that failed is not given back.
    pub(super) fn give_back(&self, compressor: T) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(compressor);
        }
    }
}
