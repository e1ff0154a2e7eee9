//! [`Unsent`]: what a client of the HTTP server has still to take, where it can be let go of.
//!
//! The HTTP server keeps what it is given until the socket has taken it, or over HTTP/2 the client's
//! window, and for as long as it likes. But a few bytes of a page of the log keep the whole page. So
//! it is given copies of what the node's [budget](crate::budget) holds, a piece at a time, and the
//! page stays here until the last piece was taken, or its reader is too slow.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::budget::pace::Pace;
use crate::budget::{Budget, Holder};

/// What the HTTP server is given at a time of anything large or held, in bytes.
const PIECE_BYTES: usize = 32 << 10;

/// What a client has still to take.
pub(super) struct Unsent {
    parts: VecDeque<Bytes>,
    pace: Pace,
    is_given_up: bool,
}

impl Unsent {
    pub(super) fn new() -> Unsent {
        Unsent { parts: VecDeque::new(), pace: Pace::new(Instant::now()), is_given_up: false }
    }

    /// Where parts are put that come next.
    pub(super) fn parts(&mut self) -> &mut VecDeque<Bytes> {
        if self.parts.is_empty() {
            self.pace = Pace::new(Instant::now());
        }
        &mut self.parts
    }

    /// What the HTTP server takes next.
    ///
    /// # Errors
    /// When the rest was let go of: then the transfer must break.
    pub(super) fn take(&mut self, budget: &Budget) -> io::Result<Option<Bytes>> {
        if self.is_given_up {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(first) = self.parts.front() else { return Ok(None) };
        let is_taken_as_it_is =
            self.parts.len() == 1 && first.len() <= PIECE_BYTES && !budget.holds(first);
        let taken =
            if is_taken_as_it_is { self.parts.pop_front() } else { Some(self.take_copies()) };
        self.pace.took(taken.as_ref().map_or(0, Bytes::len));
        Ok(taken)
    }

    /// Copies of what comes next, joined: each piece is a frame of its own over HTTP/2, and clients
    /// give up a connection that brings very many small ones.
    fn take_copies(&mut self) -> Bytes {
        let mut piece = BytesMut::with_capacity(self.bytes().min(PIECE_BYTES));
        while piece.len() < PIECE_BYTES
            && let Some(part) = self.parts.front_mut()
        {
            let count = part.len().min(PIECE_BYTES - piece.len());
            piece.extend_from_slice(&part.split_to(count));
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        piece.freeze()
    }

    /// Lets go of the rest if its reader is too slow. Says whether it did.
    pub(super) fn look(&mut self, budget: &Budget, now: Instant) -> bool {
        let is_behind =
            !self.parts.is_empty() && budget.is_behind(&mut self.pace, now, &self.parts);
        if is_behind {
            self.give_up();
        }
        is_behind
    }

    /// Lets go of the rest, if there is any.
    pub(super) fn give_up(&mut self) {
        self.is_given_up |= !self.parts.is_empty();
        self.parts = VecDeque::new();
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// A body of bytes that the budget holds.
pub(crate) fn body_of_held(bytes: Bytes, budget: &Budget) -> Body {
    let mut unsent = Unsent::new();
    if !bytes.is_empty() {
        unsent.parts().push_back(bytes);
    }
    let held = Arc::new(Held { unsent: Mutex::new(unsent), budget: budget.clone() });
    budget.watch(&held);
    Body::new(HeldBody(held))
}

struct HeldBody(Arc<Held>);

struct Held {
    unsent: Mutex<Unsent>,
    budget: Budget,
}

impl Held {
    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for Held {
    fn look(&self, now: Instant) {
        self.unsent().look(&self.budget, now);
    }
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let taken = self.0.unsent().take(&self.0.budget);
        Poll::Ready(taken.transpose().map(|taken| taken.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let unsent = self.0.unsent();
        unsent.parts.is_empty() && !unsent.is_given_up
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.unsent().bytes() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body::Body as _;

    use super::*;

    /// A body of `bytes` that are held by a budget of 100 KiB, of readers that have a second.
    fn held(bytes: usize) -> (Budget, Body) {
        let budget = Budget::new(100 << 10, Duration::from_secs(1));
        let reserved = budget.try_reserve(bytes).unwrap();
        let body = body_of_held(reserved.hold(vec![b'x'; bytes]), &budget);
        (budget, body)
    }

    fn poll(body: &mut Body) -> Option<Result<usize, axum::Error>> {
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        let Poll::Ready(frame) = polled else { panic!("it is all there") };
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap().len()))
    }

    #[test]
    fn what_the_http_server_keeps_of_a_body_is_a_piece() {
        let (budget, mut body) = held(80 << 10);
        assert_eq!(body.size_hint().exact(), Some(80 << 10));
        let mut kept = Vec::new();
        while let Some(frame) = poll(&mut body) {
            kept.push(frame.unwrap());
        }
        assert_eq!(kept, [32 << 10, 32 << 10, 16 << 10]);
        assert!(body.is_end_stream());
        // Although the pieces are still there.
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn small_parts_are_taken_together() {
        let budget = Budget::new(100 << 10, Duration::from_secs(1));
        let mut unsent = Unsent::new();
        unsent.parts().extend((0..1_000).map(|n| Bytes::from(format!("{n:063}\n"))));
        let mut taken = Vec::new();
        while let Some(piece) = unsent.take(&budget).unwrap() {
            taken.push(piece);
        }
        assert_eq!(taken.iter().map(Bytes::len).collect::<Vec<_>>(), [32_768, 31_232]);
        let text = String::from_utf8(taken.concat()).unwrap();
        assert!(text.lines().enumerate().all(|(n, line)| line.parse() == Ok(n)));
        // One by itself, as most events come, is not copied.
        let alone = Bytes::from_static(b"data: x\n");
        unsent.parts().push_back(alone.clone());
        assert_eq!(unsent.take(&budget).unwrap().unwrap().as_ptr(), alone.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_held_for_a_client_that_takes_nothing() {
        let (budget, mut body) = held(80 << 10);
        assert_eq!(poll(&mut body).unwrap().unwrap(), 32 << 10);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { drop(budget.reserve(50 << 10).await) }
        });
        tokio::task::yield_now().await;
        assert!(budget.is_waited_for());
        // By the clock of the machine: windows are a quarter of a second.
        while budget.is_waited_for() {
            budget.look();
            std::thread::sleep(Duration::from_millis(20));
            tokio::task::yield_now().await;
        }
        waiting.await.unwrap();
        assert!(poll(&mut body).unwrap().is_err());
        assert!(!body.is_end_stream());
    }
}
