//! Streams as bodies of the HTTP server's responses: over HTTP/2, and wherever a socket could not
//! go to a [reactor](super::reactor).

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Version;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;

use super::compression;
use super::held::Unsent;
use super::peer::Peer;
use super::places::UnderWay;
use super::socket::SLOW_AFTER;
use super::unread::Readable;
use crate::budget::Budget;
use crate::frame::digest::Digest;
use crate::said::{EndManner, EndReason, Said};
use crate::stream::{PolledStream, Session, SlowReason};
use crate::wire::Parts;

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
        is_probed: false,
        _under_way: UnderWay::on(&peer.state.standing),
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
    /// It was found out whether its client is still there, after it had sent all it had to say.
    is_probed: bool,
    /// Its connection stays.
    _under_way: UnderWay,
}

/// A stream, and how its client reads it.
struct Carried {
    shares_its_socket: bool,
    budget: Budget,
    state: Mutex<CarriedState>,
}

struct CarriedState {
    /// Gone if its client did not read it, or too slowly.
    stream: Option<PolledStream>,
    /// When it was last asked for more.
    asked_at: Instant,
    /// It had nothing to say then: that it is not asked is not the client's doing.
    is_silent: bool,
    /// Bytes that were said and not taken by the HTTP server: one batch at most.
    unsent: Unsent,
    /// What is said as soon as what is large of it is compressed.
    compressing: Option<Compressing>,
    /// Of all that was said, where the end of the stream has to say it.
    digest: Digest,
}

/// What was decided, and what is to be waited for before it can be said.
struct Compressing {
    said: Vec<Said>,
    done: Pin<Box<dyn Future<Output = ()> + Send>>,
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
        let CarriedState { stream, asked_at, is_silent, unsent, compressing, digest } =
            &mut *lock(&carried.state);
        *asked_at = Instant::now();
        loop {
            if let Some(taken) = unsent.take(&carried.budget).transpose() {
                return Poll::Ready(Some(taken.map(Frame::data)));
            }
            let Some(polled) = stream else { return Poll::Ready(None) };
            if !self.is_probed && self.peer.state.half_closed.load(Ordering::Relaxed) {
                self.is_probed = true;
                polled.probe();
            }
            let said = match compressing {
                Some(waiting) => {
                    let done = waiting.done.as_mut().poll(context);
                    done.map(|()| compressing.take().map(|compressing| compressing.said))
                }
                None => pin!(polled.next()).poll(context),
            };
            *is_silent = said.is_pending();
            if *is_silent {
                polled.slow.set(SlowReason::NotTaken, false);
            }
            let speech = polled.terms.speech;
            let Some(said) = ready!(said) else {
                let manner = polled.end_manner();
                *stream = None;
                if manner == EndManner::Broken {
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
                }
                let end = speech.end(*digest);
                if !end.is_empty() {
                    unsent.parts().push_back(end);
                }
                continue;
            };
            let large = compression::large(speech.encoding, &said);
            if !large.is_empty() {
                let done = Box::pin(compression::compress_all(large));
                *compressing = Some(Compressing { said, done });
                continue;
            }
            let mut parts = Parts { bytes: std::mem::take(unsent.parts()), digest: *digest };
            for said in &said {
                speech.encode(said, &mut parts);
            }
            *digest = parts.digest;
            *unsent.parts() = parts.bytes;
        }
    }
}

impl StreamBody {
    fn begin(&self) -> Option<Arc<Carried>> {
        let mut session = self.opened.take()?;
        session.guard.watch_stalled(self.peer.state.stalled.clone());
        let budget = session.follower.node().replays.budget().clone();
        let mut begin = Parts::default();
        session.terms.speech.begin(&mut begin);
        let mut unsent = Unsent::new();
        unsent.parts().append(&mut begin.bytes);
        let state = Mutex::new(CarriedState {
            stream: Some(PolledStream::new(session)),
            asked_at: Instant::now(),
            is_silent: false,
            unsent,
            compressing: None,
            digest: Digest::EMPTY,
        });
        let shares_its_socket = self.shares_its_socket;
        let carried = Arc::new(Carried { shares_its_socket, budget, state });
        self.peer.unread.add(&carried);
        Some(carried)
    }
}

impl CarriedState {
    /// Ends the stream: its client takes nothing, or too little.
    fn give_up(&mut self) {
        self.unsent.give_up();
        self.compressing = None;
        if let Some(mut stream) = self.stream.take() {
            stream.guard.set_reason(EndReason::Stalled);
        }
    }
}

impl Readable for Carried {
    /// Over HTTP/2 a peer can leave one stream unread while it reads the others, which no socket
    /// notices. But a stream that is read is asked for more after each heartbeat at the latest; one
    /// that was not asked for long is ended, and with it goes everything but what the HTTP server has
    /// buffered for it. Its neighbours on the socket go on. One that is asked too rarely is ended if
    /// somebody waits for what is held for it.
    fn look_after(&self, longest: Duration) {
        let mut state = lock(&self.state);
        let waits = state.asked_at.elapsed();
        let is_unread = self.shares_its_socket && waits > longest;
        if is_unread || state.unsent.look(&self.budget, Instant::now()) {
            state.give_up();
        }
        if !state.is_silent
            && waits >= SLOW_AFTER
            && let Some(stream) = &state.stream
        {
            stream.slow.set(SlowReason::NotTaken, true);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
