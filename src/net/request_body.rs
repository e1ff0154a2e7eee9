//! [`RequestBody`]: the body of a request, and what happens to one that the routes do not read.
//!
//! Many clients read an answer only after they have sent everything. So what is left of a body is
//! thrown away while the answer goes out, within bounds: over HTTP/2 here, since closing a stream
//! takes its answer away from well-known clients; over HTTP/1.1 by the [socket](super::linger), after
//! the HTTP server has closed the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::linger::{BYTES_MAX, LINGER_TIMEOUT, SILENCE_TIMEOUT};

/// A body of a known length up to this, in bytes, has come with its head, as good as always: then the
/// HTTP server has it already, and the connection can be used again.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// A body that is lent to the routes.
#[derive(Clone)]
pub(super) struct RequestBody(Arc<Mutex<Rest>>);

struct Rest {
    incoming: Incoming,
    is_read: bool,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming) -> RequestBody {
        RequestBody(Arc::new(Mutex::new(Rest { incoming, is_read: false })))
    }

    /// Whether some of it was not read.
    pub(super) fn is_unread(&self) -> bool {
        !self.rest().is_read
    }

    /// Reads what is left and throws it away, in bounds.
    pub(super) async fn throw_away(mut self) {
        let all = async {
            let mut bytes_left = BYTES_MAX;
            loop {
                let frame = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context));
                let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_TIMEOUT, frame).await else {
                    return;
                };
                let length = frame.data_ref().map_or(0, Bytes::len);
                let Some(left) = bytes_left.checked_sub(length) else { return };
                bytes_left = left;
            }
        };
        let _ = tokio::time::timeout(LINGER_TIMEOUT, all).await;
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
    is_small: bool,
    /// The client sends it only when it is asked to, and maybe never.
    waits: bool,
}

impl Announced {
    pub(super) fn of(headers: &HeaderMap, body: &Incoming) -> Announced {
        Announced {
            is_small: body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES_MAX),
            waits: headers.contains_key(header::EXPECT),
        }
    }

    /// Tells a client that was refused without reading its body that this is the last answer on its
    /// connection, and that it need not go on sending.
    pub(super) fn close_after(self, refusal: &mut Response) {
        let status = refusal.status();
        let is_refusal = status.is_client_error() || status.is_server_error();
        let comes_still = !self.is_small || self.waits || status == StatusCode::REQUEST_TIMEOUT;
        if is_refusal && comes_still {
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
