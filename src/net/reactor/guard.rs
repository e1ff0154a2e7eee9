//! The ways into [`Streams`]: whatever happens to a stream comes through here, and a panic while it is
//! served ends that stream and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::streams::{Adoption, StreamSocket, Streams};
use super::timer_wheel::Id;
use crate::said::EndReason;
use crate::stream::Follower;
use crate::telemetry::metric;
use crate::wire::Parts;

impl<S: StreamSocket> Streams<S> {
    /// Takes a stream. Its socket is to be watched from now on under this id, which is asked for
    /// first if something will be answered under it.
    pub(super) fn adopt(&mut self, adoption: Adoption<S>, now: Instant) -> Option<Id> {
        self.guarded(|streams| streams.begin(adoption, now))
    }

    /// What was found out: these parts come next, and this is where the stream stands then. The
    /// stream is over after them if there is an `end`.
    pub(super) fn answered(
        &mut self,
        id: Id,
        follower: Box<Follower>,
        parts: Parts,
        end: Option<EndReason>,
        now: Instant,
    ) {
        self.serve(id, |streams| streams.on_answer(id, follower, parts, end, now));
    }

    /// Whoever was to find something out panicked. Without an answer the stream would say heartbeats
    /// for ever and nothing else.
    pub(super) fn failed(&mut self, id: Id) {
        if self.get(id).is_some() {
            metric::stream_fault();
            tracing::error!("a stream's question panicked; the stream is ended");
            self.serve(id, |streams| streams.close(id.index, EndReason::Fault));
        }
    }

    /// The socket takes bytes again.
    pub(super) fn writable(&mut self, id: Id, now: Instant) {
        self.serve(id, |streams| streams.on_writable(id, now));
    }

    /// The peer sends no more. It may still read (`shutdown(SHUT_WR)`), and is served then; or it is
    /// gone, and its kernel says so as soon as something is sent to it.
    pub(super) fn peer_half_closed(&mut self, id: Id, now: Instant) {
        self.serve(id, |streams| streams.on_half_close(id, now));
    }

    /// The peer is gone, or the socket broke.
    pub(super) fn peer_closed(&mut self, id: Id) {
        self.serve(id, |streams| streams.on_close(id));
    }

    /// Runs what serves one stream.
    pub(super) fn serve<T>(
        &mut self,
        id: Id,
        work: impl FnOnce(&mut Streams<S>) -> T,
    ) -> Option<T> {
        self.guarded(|streams| {
            streams.serving = streams.get(id).map(|_| id.index);
            work(streams)
        })
    }

    /// Runs this so that a panic costs only the stream that is `serving` then.
    pub(super) fn guarded<T>(&mut self, work: impl FnOnce(&mut Streams<S>) -> T) -> Option<T> {
        self.serving = None;
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        let serving = self.serving.take();
        if done.is_err() {
            metric::stream_fault();
            tracing::error!(?serving, "serving a stream panicked; the stream is ended");
            if let Some(at) = serving {
                self.close(at, EndReason::Fault);
            }
        }
        done.ok()
    }
}
