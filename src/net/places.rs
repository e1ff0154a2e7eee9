//! [`Places`]: how many sockets a node has open, and who has to go when places are short.
//!
//! Guards against clients that take sockets and make nothing of them: that say nothing, or half a
//! request, or do not read what they asked for. Whoever comes while places are short gets that of
//! the connection on which nothing has been under way for longest. So a health check and a publisher
//! always find one. What is under way is a request that has come whole, until it is answered, and a
//! stream, as long as it is carried.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::per_address::Counted;
use crate::backoff::Rarely;
use crate::telemetry::metric;

/// With fewer places left than these, one has to go for each that comes.
const SPARE_PLACES: usize = 32;

/// How long one that came may bring no whole request even then: its head is on its way.
const SILENCE_ALLOWED: Duration = Duration::from_millis(100);

/// How long a newcomer waits until one that may have to go is gone, and how often it looks.
const LEAVING_TIMEOUT: Duration = Duration::from_millis(250);
const LEAVING_INTERVAL: Duration = Duration::from_millis(10);

/// How long a connection may be idle, and how long at least once there are no places left: from half
/// of the places on it gets shorter. Longer than the 60 s for which nginx keeps upstream connections, so
/// that the proxy closes first and no request meets a closing socket.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const IDLE_TIMEOUT_LEAST: Duration = Duration::from_secs(2);

/// How often connections are looked at that may have been idle for too long.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The places of a node.
pub(super) struct Places {
    places_max: usize,
    taken: AtomicUsize,
    given_back: Notify,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    /// Those that may have to go: all but streams in reactors, and those that were told to go.
    by_number: HashMap<u64, Connection>,
    /// Connections so far.
    number: u64,
    /// How many were told to go and are not gone yet.
    leaving: usize,
    line: Rarely,
}

struct Connection {
    standing: Arc<Standing>,
    came_at: Instant,
}

/// One open socket; counted until it is dropped.
pub(crate) struct OpenSocket {
    places: Arc<Places>,
    /// Whose it is, where that is counted.
    _counted: Option<Counted>,
}

/// One open socket that may have to go.
pub(super) struct Place {
    // Given back before it counts as gone.
    socket: OpenSocket,
    _entry: Entry,
}

struct Entry {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// At most so many.
    pub(super) fn new(places_max: usize) -> Arc<Places> {
        Arc::new(Places {
            places_max,
            taken: AtomicUsize::new(0),
            given_back: Notify::new(),
            connections: Mutex::default(),
        })
    }

    /// A place for a connection, maybe that of another one, which is told to go. `None` if
    /// something is under way on all of them.
    pub(super) async fn open(self: &Arc<Places>, standing: &Arc<Standing>) -> Option<Place> {
        let give_up_at = Instant::now() + LEAVING_TIMEOUT;
        loop {
            let given_back = self.given_back.notified();
            if let Some(place) = self.try_open(standing) {
                return Some(place);
            }
            if Instant::now() >= give_up_at || !self.somebody_may_go() {
                metric::socket_dropped("full");
                self.say_rarely("one that came was closed at once");
                return None;
            }
            let _ = tokio::time::timeout(LEAVING_INTERVAL, given_back).await;
        }
    }

    /// The same for whoever cannot wait.
    pub(super) fn try_open(self: &Arc<Places>, standing: &Arc<Standing>) -> Option<Place> {
        let one_more = |taken| (taken < self.places_max).then_some(taken + 1);
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        self.make_room(before.map_or_else(|full| full, |before| before + 1));
        let socket = before.is_ok().then(|| OpenSocket { places: self.clone(), _counted: None })?;
        standing.note();
        let mut connections = self.lock();
        connections.number += 1;
        let number = connections.number;
        let connection = Connection { standing: standing.clone(), came_at: Instant::now() };
        connections.by_number.insert(number, connection);
        Some(Place { socket, _entry: Entry { places: self.clone(), number } })
    }

    /// Ends connections that have been idle for too long, for ever: those that keep themselves alive
    /// with pings and ask for nothing, too.
    pub(super) async fn end_idle(&self) -> Infallible {
        loop {
            tokio::time::sleep(IDLE_INTERVAL).await;
            let longest = idle_timeout(self.taken.load(Ordering::Relaxed), self.places_max);
            let now = now_ms();
            let connections = self.lock();
            for Connection { standing, .. } in connections.by_number.values() {
                // Those that have asked for nothing yet have little time anyway.
                if standing.has_asked.load(Ordering::Relaxed)
                    && standing.idle_since().is_some()
                    && standing.has_been_idle_for(now) > longest
                {
                    standing.idle_too_long.notify_one();
                }
            }
        }
    }

    /// Waits until none is taken.
    pub(super) async fn all_free(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Whether a newcomer has something to wait for.
    fn somebody_may_go(&self) -> bool {
        let connections = self.lock();
        connections.leaving > 0
            || self.taken.load(Ordering::Acquire) < self.places_max
            || connections.by_number.values().any(|one| one.standing.idle_since().is_some())
    }

    /// Above this places are short.
    fn short_above(&self) -> usize {
        self.places_max.saturating_sub(SPARE_PLACES).max(1)
    }

    /// Tells connections to go if so many places `taken` are too many.
    fn make_room(&self, taken: usize) {
        if taken <= self.short_above() {
            return;
        }
        let mut connections = self.lock();
        let Some(excess @ 1..) = taken.checked_sub(self.short_above() + connections.leaving) else {
            return;
        };
        let idle = connections.by_number.iter().filter_map(|(number, connection)| {
            let standing = &connection.standing;
            let had_its_time = standing.has_asked.load(Ordering::Relaxed)
                || connection.came_at.elapsed() >= SILENCE_ALLOWED;
            Some((standing.idle_since().filter(|_| had_its_time)?, *number))
        });
        let mut idle: Vec<(u64, u64)> = idle.collect();
        // A sixteenth at least, so that not everybody who comes has all of them looked through.
        let count = excess.max(idle.len() / 16).min(idle.len());
        if let Some(last) = count.checked_sub(1) {
            idle.select_nth_unstable(last);
        }
        for (_, number) in &idle[..count] {
            let Some(Connection { standing, .. }) = connections.by_number.remove(number) else {
                continue;
            };
            connections.leaving += 1;
            standing.has_to_go.notify_one();
            let has_asked = standing.has_asked.load(Ordering::Relaxed);
            metric::socket_dropped(if has_asked { "idle" } else { "silent" });
        }
        drop(connections);
        if count > 0 {
            self.say_rarely("those on which nothing is under way are closed");
        }
    }

    fn say_rarely(&self, what: &str) {
        if self.lock().line.is_due() {
            let (taken, places_max) = (self.taken.load(Ordering::Relaxed), self.places_max);
            tracing::warn!(taken, places_max, "places for connections are short: {what}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// From now on it is one of those, as long as it is open.
    pub(super) fn count(&mut self, counted: Option<Counted>) {
        self.socket._counted = counted;
    }

    /// From now on it is a stream's, and stays.
    pub(super) fn for_a_stream(self) -> OpenSocket {
        self.socket
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let before = self.places.taken.fetch_sub(1, Ordering::AcqRel);
        // Nobody else waits.
        if before == 1 || before > self.places.short_above() {
            self.places.given_back.notify_waiters();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut connections = self.places.lock();
        if connections.by_number.remove(&self.number).is_none() {
            connections.leaving -= 1;
        }
        if connections.by_number.is_empty() {
            // Ten thousand that left leave no room behind.
            connections.by_number.shrink_to_fit();
        }
    }
}

/// What a connection makes of its place.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Requests that have come whole and are being answered, and streams.
    under_way: AtomicUsize,
    /// When that changed last, in changes on all connections.
    since: AtomicU64,
    /// The same as a time, in milliseconds.
    since_ms: AtomicU64,
    has_asked: AtomicBool,
    has_to_go: Notify,
    idle_too_long: Notify,
}

/// How long a connection may be idle while so many places are taken.
fn idle_timeout(taken: usize, places_max: usize) -> Duration {
    let half = (places_max / 2).max(1);
    let free = places_max.saturating_sub(taken).min(half);
    IDLE_TIMEOUT.mul_f64(free as f64 / half as f64).max(IDLE_TIMEOUT_LEAST)
}

/// Milliseconds since this was asked for the first time.
fn now_ms() -> u64 {
    static BEGAN_AT: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN_AT.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Counts the changes on all connections: who has the smaller number was there before.
static CHANGES: AtomicU64 = AtomicU64::new(0);

impl Standing {
    /// Waits until the connection has to go, at once and as it is.
    pub(super) async fn has_to_go(&self) {
        self.has_to_go.notified().await;
    }

    /// Waits until nothing has been under way on the connection for too long: it has to end, as soon
    /// as what comes then is answered.
    pub(super) async fn is_idle_too_long(&self) {
        self.idle_too_long.notified().await;
    }

    fn has_been_idle_for(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.since_ms.load(Ordering::Relaxed)))
    }

    /// Since when nothing is under way, if nothing is.
    fn idle_since(&self) -> Option<u64> {
        let is_idle = self.under_way.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.since.load(Ordering::Relaxed))
    }

    fn note(&self) {
        self.since.store(CHANGES.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.since_ms.store(now_ms(), Ordering::Relaxed);
    }
}

/// Something is under way on a connection until this is dropped.
pub(super) struct UnderWay(Arc<Standing>);

impl UnderWay {
    pub(super) fn on(standing: &Arc<Standing>) -> UnderWay {
        standing.under_way.fetch_add(1, Ordering::AcqRel);
        standing.has_asked.store(true, Ordering::Relaxed);
        UnderWay(standing.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.note();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(places: &Arc<Places>) -> (Arc<Standing>, Place) {
        let standing = Arc::<Standing>::default();
        let place = places.try_open(&standing).expect("there is a place");
        (standing, place)
    }

    /// Whether it was told to go, now or before.
    async fn has_to_go(standing: &Standing) -> bool {
        let told = tokio::time::timeout(Duration::ZERO, standing.has_to_go());
        told.await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_places_are_short_takes_that_of_who_was_idle_longest() {
        let places = Places::new(SPARE_PLACES + 4);
        let (asks, _asks) = connection(&places);
        let question = UnderWay::on(&asks);
        let (silent, silent_place) = connection(&places);
        let (answered, answered_place) = connection(&places);
        drop(UnderWay::on(&answered));
        let _stream = connection(&places).1.for_a_stream();
        for standing in [&asks, &silent, &answered] {
            assert!(!has_to_go(standing).await, "nobody is in need");
        }
        let (second, _second_place) = connection(&places);
        assert!(has_to_go(&answered).await && !has_to_go(&silent).await, "its head may come yet");
        drop(answered_place);
        tokio::time::sleep(SILENCE_ALLOWED).await;
        let (third, _third_place) = connection(&places);
        assert!(has_to_go(&silent).await);
        drop(silent_place);
        // Whoever was answered a moment ago is not the next one, whenever it came.
        drop(question);
        let (_fourth, _fourth_place) = connection(&places);
        assert!(has_to_go(&second).await);
        assert!(!has_to_go(&third).await && !has_to_go(&asks).await);
    }

    #[test]
    fn connections_may_be_idle_for_less_and_less_time_as_places_run_out() {
        let seconds = |taken| idle_timeout(taken, 100).as_secs();
        assert_eq!([0, 50, 60, 75, 90, 99, 100].map(seconds), [75, 75, 60, 37, 15, 2, 2]);
        assert_eq!(idle_timeout(0, 0), IDLE_TIMEOUT_LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_and_asks_no_more_has_to_end_unless_something_is_under_way() {
        let places = Places::new(1_000);
        let (silent, _silent_place) = connection(&places);
        let (idle, _idle_place) = connection(&places);
        let (busy, _busy_place) = connection(&places);
        drop(UnderWay::on(&idle));
        let _stream = UnderWay::on(&busy);
        let ends_after = async |standing: &Standing| {
            let began_at = Instant::now();
            let ends = tokio::time::timeout(2 * IDLE_TIMEOUT, standing.is_idle_too_long()).await;
            ends.is_ok().then(|| began_at.elapsed())
        };
        let end_idle = places.end_idle();
        let ends =
            async { tokio::join!(ends_after(&silent), ends_after(&idle), ends_after(&busy)) };
        tokio::select! {
            never = end_idle => match never {},
            (silent, idle, busy) = ends => {
                assert_eq!((silent, busy), (None, None));
                let bounds = IDLE_TIMEOUT..IDLE_TIMEOUT + 3 * IDLE_INTERVAL;
                assert!(idle.is_some_and(|idle| bounds.contains(&idle)), "{idle:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_until_another_is_gone_and_no_longer() {
        let places = Places::new(3);
        let streams = [(); 2].map(|()| connection(&places).1.for_a_stream());
        let (idle, place) = connection(&places);
        let standing = Arc::default();
        let began_at = Instant::now();
        let leaves = async {
            idle.has_to_go().await;
            drop(place);
        };
        let (taken, ()) = tokio::join!(places.open(&standing), leaves);
        let taken = taken.expect("one has gone");
        assert!((SILENCE_ALLOWED..LEAVING_TIMEOUT).contains(&began_at.elapsed()));
        // This one does not hear that it has to go.
        let began_at = Instant::now();
        assert!(places.open(&Arc::default()).await.is_none());
        assert!(began_at.elapsed() >= LEAVING_TIMEOUT);
        drop(taken);
        let stream = places.open(&standing).await.expect("a place is free").for_a_stream();
        let began_at = Instant::now();
        assert!(places.open(&standing).await.is_none(), "nobody can go");
        assert_eq!(began_at.elapsed(), Duration::ZERO);
        drop((streams, stream));
        places.all_free().await;
        assert_eq!(places.lock().leaving, 0);
    }
}
