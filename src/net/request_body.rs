//! [`RequestBody`]: the body of a request, and what happens to one that the routes do not read.
//!
//! Many clients read an answer only after they have sent everything. So what is left of a body is
//! thrown away while the answer goes out, within bounds: over HTTP/2 here, since closing a stream
//! takes its answer away from well-known clients; over HTTP/1.1 by the [socket](super::linger), after
//! the HTTP server has closed the connection, as the answer said. A small one is read before the
//! answer there, so that the connection can go on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::linger::{BYTES_MAX, LINGER_TIMEOUT, SILENCE_TIMEOUT};
use super::places::{Standing, UnderWay};

/// A body up to this, in bytes, comes with its head, as good as always: reading it is cheaper than
/// another connection.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// How long an answer waits for one that does not.
const SMALL_TIMEOUT: Duration = Duration::from_millis(250);

/// A body that is lent to the routes.
#[derive(Clone)]
pub(super) struct RequestBody(Arc<Mutex<Rest>>);

struct Rest {
    incoming: Incoming,
    is_read: bool,
    standing: Arc<Standing>,
    /// From its end on, when the request has come whole.
    under_way: Option<UnderWay>,
}

impl RequestBody {
    /// On such a connection.
    pub(super) fn new(incoming: Incoming, standing: Arc<Standing>) -> RequestBody {
        let rest = Rest { incoming, is_read: false, standing, under_way: None };
        RequestBody(Arc::new(Mutex::new(rest)))
    }

    /// Whether some of it was not read.
    pub(super) fn is_unread(&self) -> bool {
        !self.rest().is_read
    }

    /// Reads what is left and throws it away, in bounds.
    pub(super) async fn throw_away(self) {
        let _ = tokio::time::timeout(LINGER_TIMEOUT, self.read_all(BYTES_MAX)).await;
    }

    /// The same in the bounds of a small one.
    pub(super) async fn throw_away_small(self) {
        let _ = tokio::time::timeout(SMALL_TIMEOUT, self.read_all(SMALL_BYTES_MAX)).await;
    }

    async fn read_all(mut self, mut bytes_left: usize) {
        loop {
            let frame = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context));
            let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_TIMEOUT, frame).await else {
                return;
            };
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = bytes_left.checked_sub(length) else { return };
            bytes_left = left;
        }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut rest = self.rest();
        let frame = ready!(Pin::new(&mut rest.incoming).poll_frame(context));
        rest.is_read |= frame.is_none() || rest.incoming.is_end_stream();
        if rest.is_read && rest.under_way.is_none() {
            rest.under_way = Some(UnderWay::on(&rest.standing));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest().incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest().incoming.size_hint()
    }
}

/// What the head of a request says of its body.
#[derive(Clone, Copy)]
pub(super) struct Announced {
    may_be_small: bool,
    /// The client sends it only when it is asked to, and maybe never.
    waits: bool,
}

impl Announced {
    pub(super) fn of(headers: &HeaderMap, body: &Incoming) -> Announced {
        let bytes_max = body.size_hint().upper();
        Announced {
            may_be_small: bytes_max.is_none_or(|bytes| bytes <= SMALL_BYTES_MAX as u64),
            waits: headers.contains_key(header::EXPECT),
        }
    }

    /// Whether a body that was not read for an answer of this status can be expected to come soon.
    pub(super) fn comes_with_its_head(self, status: StatusCode) -> bool {
        self.may_be_small && !self.waits && status != StatusCode::REQUEST_TIMEOUT
    }
}
