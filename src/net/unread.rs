//! [`UnreadStreams`]: the streams of one HTTP/2 connection, and which of them nobody reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A stream that its client may leave unread.
pub(super) trait Readable: Send + Sync {
    /// Ends it if it was not asked for more for `longest`.
    fn end_if_unread(&self, longest: Duration);
}

/// The streams of one HTTP/2 connection.
///
/// Over HTTP/2 a peer can leave one stream unread while it reads the others, which no socket
/// notices. But a stream that is read is asked for more after each heartbeat at the latest; one
/// that was not asked for long is ended, and with it goes everything but what the HTTP server has
/// buffered for it. Its neighbours on the socket go on.
#[derive(Default)]
pub(super) struct UnreadStreams(Mutex<Vec<Weak<dyn Readable>>>);

impl UnreadStreams {
    pub(super) fn add(&self, stream: &Arc<impl Readable + 'static>) {
        let stream: Weak<dyn Readable> = Arc::downgrade(stream) as Weak<dyn Readable>;
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(stream);
    }

    /// Ends streams that were not asked for more for `longest`, for ever.
    pub(super) async fn expire(&self, longest: Duration) -> Infallible {
        loop {
            tokio::time::sleep(longest / 4).await;
            let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for stream in streams.iter().filter_map(Weak::upgrade) {
                stream.end_if_unread(longest);
            }
        }
    }
}
