//! [`UnreadStreams`]: the streams that the HTTP server carries, and which of them nobody reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How often they are looked at, at least.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many are looked at before other tasks have their turn.
const SLICE: usize = 500;

/// A stream that its client may leave unread.
pub(super) trait Readable: Send + Sync {
    /// Finds out whether it is read; ends it if it was not asked for more for `longest` and nothing
    /// else would.
    fn look_after(&self, longest: Duration);
}

/// The streams of a node that the HTTP server carries.
///
/// It asks a stream for more while there is room for it. One whose client does not read is not asked,
/// and so cannot notice by itself.
pub(super) struct UnreadStreams {
    longest: Duration,
    streams: Mutex<Vec<Weak<dyn Readable>>>,
}

impl UnreadStreams {
    /// Streams that are asked for more within `longest` as long as they are read.
    pub(super) fn new(longest: Duration) -> UnreadStreams {
        UnreadStreams { longest, streams: Mutex::default() }
    }

    pub(super) fn add(&self, stream: &Arc<impl Readable + 'static>) {
        let stream: Weak<dyn Readable> = Arc::downgrade(stream) as Weak<dyn Readable>;
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }

    /// Looks after them, for ever.
    pub(super) async fn look_after(&self) -> Infallible {
        loop {
            tokio::time::sleep(INTERVAL.min(self.longest / 4)).await;
            for slice in self.carried().chunks(SLICE) {
                for stream in slice.iter().filter_map(Weak::upgrade) {
                    stream.look_after(self.longest);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Those that are still carried.
    fn carried(&self) -> Vec<Weak<dyn Readable>> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        if streams.is_empty() {
            // Ten thousand streams that left leave no room behind.
            streams.shrink_to_fit();
        }
        streams.clone()
    }
}
