//! Streams as bodies of the HTTP server's responses: over HTTP/2, and wherever a socket could not
//! go to a [reactor](super::reactor).

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Version;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;

use super::peer::Peer;
use super::unread::Readable;
use crate::said::{EndManner, EndReason};
use crate::stream::{PolledStream, Session};

/// A stream that the routes have opened. It travels in the extensions of its response, as
/// `hyper::upgrade::OnUpgrade` does in those of a request: whoever can carry its socket better than
/// the body does takes it out; otherwise the body is the stream.
#[derive(Clone)]
pub(crate) struct OpenedStream(Arc<Mutex<Option<Session>>>);

impl OpenedStream {
    /// Takes the stream away from the response's body, which must not be polled any more.
    pub(super) fn take(&self) -> Option<Session> {
        lock(&self.0).take()
    }
}

/// The response that carries this stream. Its headers are the routes' to set.
pub(crate) fn respond(session: Session, peer: &Peer, version: Version) -> Response {
    let opened = OpenedStream(Arc::new(Mutex::new(Some(session))));
    let body = StreamBody {
        opened: opened.clone(),
        peer: peer.clone(),
        shares_its_socket: version == Version::HTTP_2,
        shared: None,
        pending: VecDeque::new(),
    };
    let mut response = Body::new(body).into_response();
    response.extensions_mut().insert(opened);
    response
}

/// The body of a response that is a stream.
struct StreamBody {
    opened: OpenedStream,
    peer: Peer,
    shares_its_socket: bool,
    /// Set by the first poll.
    shared: Option<Arc<Carried>>,
    /// Bytes that were said and not taken by the HTTP server: one batch at most.
    pending: VecDeque<Bytes>,
}

/// A stream and when its client last asked for more.
struct Carried {
    stream: Mutex<(Option<PolledStream>, Instant)>,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.shared.is_none() {
            self.shared = self.begin();
        }
        let Some(carried) = self.shared.clone() else { return Poll::Ready(None) };
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let mut held = lock(&carried.stream);
            held.1 = Instant::now();
            // Gone if its client did not read it while it read others.
            let Some(stream) = &mut held.0 else { return Poll::Ready(None) };
            let said = match pin!(stream.next()).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(said) => said,
            };
            let Some(said) = said else {
                let manner = stream.end_manner();
                held.0 = None;
                return Poll::Ready(match manner {
                    EndManner::Clean => None,
                    EndManner::Broken => Some(Err(io::ErrorKind::ConnectionAborted.into())),
                });
            };
            let wire = stream.terms.wire;
            drop(held);
            for said in &said {
                wire.encode(said, &mut self.pending);
            }
        }
    }
}

impl StreamBody {
    fn begin(&self) -> Option<Arc<Carried>> {
        let mut session = self.opened.take()?;
        session.guard.watch_stalled(self.peer.state.stalled.clone());
        let stream = PolledStream::new(session);
        let carried = Arc::new(Carried { stream: Mutex::new((Some(stream), Instant::now())) });
        if self.shares_its_socket {
            self.peer.unread.add(&carried);
        }
        Some(carried)
    }
}

impl Readable for Carried {
    fn end_if_unread(&self, longest: Duration) {
        let mut held = lock(&self.stream);
        if held.1.elapsed() > longest
            && let Some(mut stream) = held.0.take()
        {
            stream.guard.set_reason(EndReason::Stalled);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
