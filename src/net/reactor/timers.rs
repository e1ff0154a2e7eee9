//! What is due by time for the streams of a reactor: heartbeats, ends, and the end of peers that take
//! nothing.

use std::time::{Duration, Instant};

use super::streams::{Blocked, Source, StreamSocket, Streams};
use super::timer_wheel::Id;
use crate::net::socket::SLOW_AFTER;
use crate::said::{EndReason, Said};
use crate::telemetry::metric;
use crate::wire::Parts;

/// Streams that are asked in one go whether their terms have an order for them.
pub(super) const ORDERS_SLICE: usize = 512;

impl<S: StreamSocket> Streams<S> {
    /// When something is to be done even if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // Those that left slow have to be counted once more.
        if self.streams.is_empty() && self.slow == 0 {
            return None;
        }
        let tick = self.wheel.next_at();
        Some(self.limits.next_at().map_or(tick, |limit| limit.min(tick)))
    }

    /// Some terms were given an order: one pass over all streams finds those that it is for, of
    /// however many terms. Orders that come meanwhile share the next pass.
    pub(super) fn orders_given(&mut self) {
        match self.orders_heard_until {
            None => self.orders_heard_until = Some(0),
            Some(_) => self.orders_given_again = true,
        }
    }

    /// Goes on with the pass, if one is under way.
    pub(super) fn hear_orders(&mut self) {
        let Some(from) = self.orders_heard_until else { return };
        let until = from + ORDERS_SLICE;
        for at in from..until {
            let stream = self.streams.get(at);
            self.serving = Some(at as u32);
            if stream.is_some_and(|stream| !matches!(stream.source, Source::Over)) {
                self.hear_order(at as u32);
            }
        }
        let is_through = until >= self.streams.capacity();
        self.orders_heard_until = match is_through {
            false => Some(until),
            true => std::mem::take(&mut self.orders_given_again).then_some(0),
        };
    }

    /// Has a stream end as its terms were ordered, if it has not heard of it yet.
    pub(super) fn hear_order(&mut self, at: u32) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        if let Some(order) = stream.terms.hear_order(&mut stream.orders_heard) {
            self.limits.set(at, order.take_turn().into_std(), order.reason);
        }
    }

    /// Closes everything: the node ends.
    pub(super) fn close_all(&mut self) {
        let all: Vec<u32> = self.streams.iter().map(|(at, _)| at as u32).collect();
        for at in all {
            self.close(at, EndReason::Drain);
        }
        self.count_slow(Instant::now());
    }

    /// Does what is due.
    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some((at, reason)) = self.limits.take_due(now) {
            let Some(stream) = self.streams.get(at as usize) else { continue };
            let id = Id { index: at, serial: stream.serial };
            match stream.source {
                // It was ended, and its peer has not closed its side since.
                Source::Over => self.peer_closed(id),
                _ => {
                    self.serve(id, |streams| streams.say_goodbye(id, reason, now));
                }
            }
        }
        if now >= self.wheel.next_at() {
            // One by one: the others of a bucket must not lose their heartbeats by one's panic.
            for id in self.wheel.advance(now) {
                self.serve(id, |streams| streams.send_heartbeat(id, now));
            }
            self.close_all_stalled(now);
        }
    }

    /// Counts streams as slow whose sockets have taken nothing for some time. Those that are behind
    /// their topics' tails are counted by their followers.
    fn count_slow(&mut self, now: Instant) {
        let is_slow = |(at, blocked): (&u32, &Blocked)| {
            let stream = self.streams.get(*at as usize);
            let is_live = stream
                .is_some_and(|stream| matches!(stream.source, Source::One(_) | Source::Several(_)));
            is_live && now.saturating_duration_since(blocked.window_began_at) >= SLOW_AFTER
        };
        let slow = self.blocked.iter().filter(|blocked| is_slow(*blocked)).count();
        metric::slow_connections(slow as f64 - self.slow as f64);
        self.slow = slow;
    }

    fn send_heartbeat(&mut self, id: Id, now: Instant) {
        let tick = self.wheel.tick();
        let Some(stream) = self.get(id) else { return };
        let silent = stream.is_blocked || matches!(stream.source, Source::Over);
        if !silent && self.wheel.is_due(stream.written) {
            let mut parts = Parts::default();
            stream.terms.speech.encode_chunked(&Said::Heartbeat, &mut parts);
            self.write_out(id.index, parts, None, now);
        }
        if let Some(stream) = self.get(id) {
            let written = if silent { tick } else { stream.written };
            self.wheel.schedule(id, written);
        }
    }

    /// Looks about once a second at those who take nothing, or too little of what others wait for.
    fn close_all_stalled(&mut self, now: Instant) {
        let write_timeout = self.settings.write_timeout;
        let interval = (write_timeout / 8).min(Duration::from_secs(1));
        let is_due = now.duration_since(self.stalls_looked_at) >= interval;
        if !is_due || (self.blocked.is_empty() && self.slow == 0) {
            return;
        }
        self.stalls_looked_at = now;
        self.shed_pins();
        let budget = &self.settings.budget;
        let is_stalled = |blocked: &mut Blocked| {
            now.saturating_duration_since(blocked.window_began_at) >= write_timeout
                || budget.is_behind(&mut blocked.pace, now, &blocked.pending)
        };
        let stalled: Vec<u32> = self
            .blocked
            .iter_mut()
            .filter_map(|(at, blocked)| is_stalled(blocked).then_some(*at))
            .collect();
        for at in stalled {
            self.guarded(|streams| streams.close_stalled(at));
        }
        self.count_slow(now);
    }
}
