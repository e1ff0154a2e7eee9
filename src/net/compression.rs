//! Compressing what is large, while nobody waits for the thread that does it.
//!
//! What is small is compressed by whoever serves streams, in a millisecond at most. An entry or a board
//! of megabytes would hold up all streams of a reactor, or all tasks of a worker.

use tokio::sync::Semaphore;

use crate::said::Said;
use crate::wire::{Encoding, Uncompressed};

/// What is large is compressed by so many threads at a time in all: each has a compressor, and what comes of
/// it, beside what the others do. Whoever finds none free waits; its streams say heartbeats meanwhile.
const AT_A_TIME: usize = 2;

static ROOM: Semaphore = Semaphore::const_new(AT_A_TIME);

/// What is large of this and not compressed yet.
pub(super) fn large(encoding: Encoding, said: &[Said]) -> Vec<Uncompressed> {
    if encoding == Encoding::Identity {
        return Vec::new();
    }
    said.iter().filter_map(|said| Uncompressed::of(encoding, said)).collect()
}

/// Has this compressed.
pub(super) async fn compress(large: Uncompressed) {
    // It is never closed. What a runtime that ends does not do is not needed any more.
    let _room = ROOM.acquire().await;
    let _ = tokio::task::spawn_blocking(move || large.compress()).await;
}

/// Has all of this compressed.
pub(super) async fn compress_all(large: Vec<Uncompressed>) {
    for large in large {
        compress(large).await;
    }
}
