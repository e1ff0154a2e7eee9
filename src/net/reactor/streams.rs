//! [`Streams`]: the streams of one reactor, and how they come and go. Knows sockets only as a
//! [`StreamSocket`] and time only as it is told, so that tests can drive it with sockets that take
//! as much or as little as they like.
//!
//! Whatever happens to a stream comes through [`guard`](super::guard). [`deliver`](super::deliver) gives
//! streams what comes next, [`timers`](super::timers) does what is due by time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use slab::Slab;
use tokio::sync::Notify;

use super::limits::Limits;
use super::pins::{Pin, PinnedByNode, Pins};
use super::timer_wheel::{Id, TimerWheel};
use crate::budget::Budget;
use crate::budget::pace::Pace;
use crate::frame::digest::Digest;
use crate::hub::{HubTopic, TopicObserver};
use crate::position::{Position, write_cursor};
use crate::said::{EndManner, EndReason, Said};
use crate::stream::session::goodbye;
use crate::stream::terms::{EndsAt, OrdersHeard};
use crate::stream::{Follower, Place, StreamGuard, Terms};
use crate::telemetry::metric;
use crate::wire::chunked::{LAST_CHUNK, push_chunk};
use crate::wire::{Encoding, Parts, Uncompressed};

/// How long a stream that was ended waits for its peer to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a peer must take in one write timeout while something waits for it, in bytes: one that
/// takes a byte now and then holds memory as one that takes nothing does.
const TAKEN_BYTES_MIN: usize = crate::net::socket::TAKEN_BYTES_MIN;

/// Parts that one write hands to the kernel at most.
const WRITE_PARTS_MAX: usize = 64;

/// Where a stream's bytes go.
pub(super) trait StreamSocket {
    /// Writes as much as is taken now; `WouldBlock` if nothing is.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Nothing more will be written.
    fn shutdown_write(&mut self);

    /// What was written and not sent shall be forgotten.
    fn reset(&mut self);

    /// Why it broke by itself, if it did.
    fn error(&self) -> Option<ErrorKind>;
}

/// Whoever finds out what a stream says that its topics' tails do not have. The answer comes back
/// as [`Streams::answered`].
pub(super) trait Asker: Send {
    /// Puts one question. Notifying `interrupt` has it answered at once, perhaps with nothing.
    fn ask(&self, id: Id, question: Question, terms: &Arc<Terms>, interrupt: &Arc<Notify>);

    /// Has something large of the topic with this key compressed. Comes back as
    /// [`Streams::compressed`].
    fn compress(&self, key: u32, large: Uncompressed);
}

/// What shall be found out.
pub(super) enum Question {
    /// What comes next for a stream that stood here.
    From {
        /// Where.
        places: Vec<Place>,
        /// Whether it answers resets with a snapshot.
        snapshot: bool,
    },
    /// What comes next for a stream that was asked about before.
    Next(Box<Follower>),
}

/// What all streams of a reactor have in common.
pub(super) struct StreamSettings {
    /// Silence after which a heartbeat is due.
    pub(super) heartbeat: Duration,
    /// A peer that takes no bytes for this long is given up.
    pub(super) write_timeout: Duration,
    /// What bounds how much is held for those that are slow.
    pub(super) budget: Budget,
    /// What all reactors together keep of frames.
    pub(super) pinned: Arc<PinnedByNode>,
    /// The reconnection time told at the end.
    pub(super) retry: Duration,
    /// The log's clock in milliseconds since 1970, for the delivery lag.
    pub(super) clock: Box<dyn Fn() -> Option<u64> + Send>,
}

/// A stream as it comes.
pub(super) struct Adoption<S> {
    pub(super) socket: S,
    pub(super) terms: Arc<Terms>,
    /// When it ends whatever happens.
    pub(super) limit: Option<EndsAt>,
    pub(super) guard: StreamGuard,
    /// What was said and not written.
    pub(super) pending: Parts,
    pub(super) state: Adopted,
}

/// How far a stream is when it comes.
pub(super) enum Adopted {
    /// It has caught up.
    Live {
        /// Where it stands.
        places: Vec<Place>,
        /// Whether it answers resets with a snapshot.
        snapshot: bool,
    },
    /// Something has to be found out once what is pending is written.
    Holding(Box<Follower>),
    /// Something is being found out; the answer will come.
    Asked(Arc<Notify>),
    /// It is over once what is pending is written.
    Over(EndReason),
}

pub(super) struct Stream<S> {
    pub(super) socket: S,
    pub(super) source: Source,
    /// The tick of the wheel at which something was last written.
    pub(super) written: u64,
    /// Tells it from others that had its key.
    pub(super) serial: u32,
    /// Its socket takes nothing now: what is left is in `Streams::blocked`.
    pub(super) is_blocked: bool,
    /// In `Streams::ready`.
    pub(super) is_queued: bool,
    pub(super) snapshot: bool,
    /// Of its terms.
    pub(super) orders_heard: OrdersHeard,
    pub(super) terms: Arc<Terms>,
    pub(super) guard: StreamGuard,
}

/// Where what a stream says next comes from.
pub(super) enum Source {
    /// From the tail of its one topic.
    One(Membership),
    /// From the tails of its topics.
    Several(Box<[Membership]>),
    /// A task of the runtime is finding out. Notified to have it answer at once.
    Asked(Arc<Notify>),
    /// To be asked for once what was said is written.
    Holding(Box<Follower>),
    /// From nowhere: everything was said.
    Over,
}

/// Where a stream stands in a topic that the reactor follows.
#[derive(Clone, Copy)]
pub(super) struct Membership {
    pub(super) topic: u32,
    /// Its index in `TopicStreams::members`.
    pub(super) index: u32,
    pub(super) position: Position,
}

/// A topic with streams here.
pub(super) struct TopicStreams {
    pub(super) topic: Arc<HubTopic>,
    /// Its streams, each with the index of the topic among the stream's own.
    pub(super) members: Vec<Member>,
    /// In `Streams::changed`.
    pub(super) is_queued: bool,
    /// Members from here down were not served in this pass.
    pub(super) remaining: usize,
    /// It changed again while a pass was running.
    pub(super) requeue: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) stream: u32,
    pub(super) nth: u32,
}

/// What waits for a socket that takes nothing.
pub(super) struct Blocked {
    pub(super) pending: VecDeque<Bytes>,
    /// When the time began in which the peer has to take something, and what it took since.
    pub(super) window_began_at: Instant,
    pub(super) taken: usize,
    /// How fast it takes what is held for it.
    pub(super) pace: Pace,
    /// It is over after that.
    pub(super) last: Option<EndReason>,
    /// Its holds on frames that wait with it.
    pins: Vec<Pin>,
}

/// The streams of one reactor.
///
/// Invariants: each membership of a stream is in its topic's `members` at its `index`, and they point at
/// each other; a stream is in `blocked` exactly while it `is_blocked`.
pub(super) struct Streams<S> {
    pub(super) settings: StreamSettings,
    pub(super) asker: Box<dyn Asker>,
    observer: Weak<dyn TopicObserver>,
    pub(super) streams: Slab<Stream<S>>,
    pub(super) topics: Slab<TopicStreams>,
    /// Topics that changed, each once.
    pub(super) changed: VecDeque<u32>,
    /// Streams to be served by themselves, each once: they have just come, or their sockets take
    /// bytes again.
    pub(super) ready: VecDeque<Id>,
    pub(super) blocked: HashMap<u32, Blocked>,
    /// Blocked since the reactor last looked: their sockets are not watched for room yet.
    pub(super) newly_blocked: Vec<Id>,
    pins: Pins,
    pub(super) wheel: TimerWheel,
    /// When streams have to end, and why; and until when those that have ended wait for their peers.
    pub(super) limits: Limits,
    /// Up to where streams have been asked whether they have heard of an order, while a pass over all
    /// of them is under way; and whether another has to follow.
    pub(super) orders_heard_until: Option<usize>,
    pub(super) orders_given_again: bool,
    /// Streams that must say goodbye as soon as their question is answered.
    pub(super) ending: HashMap<u32, EndReason>,
    /// Topics of which something large is being compressed, and for streams of which encoding: these
    /// wait for it.
    pub(super) compressing: HashSet<(u32, Encoding)>,
    /// Of what streams have said that have to say it at their end.
    digests: HashMap<u32, Digest>,
    pub(super) stalls_looked_at: Instant,
    /// Streams that were counted as slow because their sockets take nothing.
    pub(super) slow: usize,
    /// The stream that is being served, so that a panic can be told whose it was.
    pub(super) serving: Option<u32>,
    serial: u32,
}

impl<S: StreamSocket> Streams<S> {
    pub(super) fn new(
        settings: StreamSettings,
        asker: Box<dyn Asker>,
        observer: Weak<dyn TopicObserver>,
        now: Instant,
    ) -> Streams<S> {
        Streams {
            wheel: TimerWheel::new(settings.heartbeat, now),
            pins: Pins::new(settings.pinned.clone()),
            settings,
            asker,
            observer,
            streams: Slab::new(),
            topics: Slab::new(),
            changed: VecDeque::new(),
            ready: VecDeque::new(),
            blocked: HashMap::new(),
            newly_blocked: Vec::new(),
            limits: Limits::default(),
            orders_heard_until: None,
            orders_given_again: false,
            ending: HashMap::new(),
            compressing: HashSet::new(),
            digests: HashMap::new(),
            stalls_looked_at: now,
            slow: 0,
            serving: None,
            serial: 0,
        }
    }

    pub(super) fn begin(&mut self, adoption: Adoption<S>, now: Instant) -> Id {
        let Adoption { socket, terms, limit, guard, pending, state } = adoption;
        if self.streams.is_empty() {
            // Nobody has turned it meanwhile.
            drop(self.wheel.advance(now));
        }
        self.serial = self.serial.wrapping_add(1);
        let at = self.streams.insert(Stream {
            socket,
            source: Source::Over,
            written: self.wheel.tick(),
            serial: self.serial,
            is_blocked: false,
            is_queued: false,
            snapshot: false,
            orders_heard: OrdersHeard::default(),
            terms,
            guard,
        }) as u32;
        self.serving = Some(at);
        let id = Id { index: at, serial: self.serial };
        self.wheel.schedule(id, self.wheel.tick());
        self.hear_order(at);
        if let Some(limit) = limit {
            self.limits.set(at, limit.at.into_std(), limit.reason);
        }
        let over = match state {
            Adopted::Live { places, snapshot } => {
                self.follow(at, &places, snapshot);
                None
            }
            Adopted::Holding(follower) => {
                self.streams[at as usize].source = Source::Holding(follower);
                None
            }
            Adopted::Asked(interrupt) => {
                self.streams[at as usize].source = Source::Asked(interrupt);
                None
            }
            Adopted::Over(reason) => Some(reason),
        };
        self.write_out(at, pending, over, now);
        // What was announced since it was last looked at did not reach it.
        self.enqueue(id);
        id
    }

    /// The socket of a stream, to be watched.
    pub(super) fn socket(&self, id: Id) -> Option<&S> {
        self.get(id).map(|stream| &stream.socket)
    }

    pub(super) fn get(&self, id: Id) -> Option<&Stream<S>> {
        self.streams.get(id.index as usize).filter(|stream| stream.serial == id.serial)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Stream<S>> {
        self.streams.get_mut(id.index as usize).filter(|stream| stream.serial == id.serial)
    }

    /// Lets a stream follow these topics by itself.
    fn follow(&mut self, at: u32, places: &[Place], snapshot: bool) {
        let Some(observer) = self.observer.upgrade() else { return };
        let topics = &mut self.topics;
        let mut memberships = Vec::with_capacity(places.len());
        for (nth, Place { topic, position }) in places.iter().enumerate() {
            let key = topic.observe(&observer, || {
                let topic = topic.clone();
                topics.insert(TopicStreams {
                    topic,
                    members: Vec::new(),
                    is_queued: false,
                    remaining: 0,
                    requeue: false,
                }) as u32
            });
            let members = &mut topics[key as usize].members;
            memberships.push(Membership {
                topic: key,
                index: members.len() as u32,
                position: *position,
            });
            members.push(Member { stream: at, nth: nth as u32 });
        }
        let stream = &mut self.streams[at as usize];
        stream.snapshot = snapshot;
        stream.source = match memberships.as_slice() {
            [one] => Source::One(*one),
            _ => Source::Several(memberships.into()),
        };
        metric::parked_connections(1.0);
    }

    /// Has what comes next for a stream found out.
    pub(super) fn ask(&mut self, at: u32) {
        let Some(stream) = self.streams.get(at as usize) else { return };
        let (serial, snapshot, terms) = (stream.serial, stream.snapshot, stream.terms.clone());
        let places = self.leave_topics(at);
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let interrupt = Arc::new(Notify::new());
        let source = std::mem::replace(&mut stream.source, Source::Asked(interrupt.clone()));
        let question = match source {
            Source::Holding(follower) => Question::Next(follower),
            Source::One(_) | Source::Several(_) => Question::From { places, snapshot },
            Source::Asked(_) | Source::Over => {
                stream.source = source;
                return;
            }
        };
        self.asker.ask(Id { index: at, serial }, question, &terms, &interrupt);
    }

    pub(super) fn on_answer(
        &mut self,
        id: Id,
        follower: Box<Follower>,
        parts: Parts,
        end: Option<EndReason>,
        now: Instant,
    ) {
        let Some(stream) = self.get_mut(id) else { return };
        if !matches!(stream.source, Source::Asked(_)) {
            return;
        }
        stream.source = Source::Holding(follower);
        let ending = self.ending.remove(&id.index);
        if end.is_none()
            && let Some(reason) = ending
        {
            self.end(id.index, parts, reason, now);
        } else {
            self.write_out(id.index, parts, end, now);
        }
    }

    /// Goes on with a stream to which everything that was said is written.
    pub(super) fn go_on(&mut self, at: u32) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let Source::Holding(follower) = &stream.source else { return };
        match follower.places() {
            Some(places) => {
                let snapshot = follower.snapshot;
                let id = Id { index: at, serial: stream.serial };
                // The follower stays joined until the topics are followed here: none may be swept
                // away in between.
                let follower = std::mem::replace(&mut stream.source, Source::Over);
                self.follow(at, &places, snapshot);
                drop(follower);
                self.enqueue(id);
            }
            None => self.ask(at),
        }
    }

    /// Puts parts behind those that wait, or writes them; `last` if the stream is over then.
    pub(super) fn write_out(
        &mut self,
        at: u32,
        parts: Parts,
        last: Option<EndReason>,
        now: Instant,
    ) {
        if last.is_some() {
            self.leave_topics(at);
            // It ends now, and not once more.
            self.limits.remove(at);
        }
        let Parts { mut bytes, digest } = parts;
        self.add_digest(at, digest);
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        if let Some(reason) = last {
            stream.source = Source::Over;
            let speech = stream.terms.speech;
            if speech.wire.end_manner(reason) == EndManner::Clean {
                let digest = self.digests.remove(&at).unwrap_or_default();
                push_chunk(&mut bytes, [speech.end(digest)]);
                bytes.push_back(Bytes::from_static(LAST_CHUNK));
            }
            stream.guard.set_reason(reason);
        }
        if let Some(blocked) = self.blocked.get_mut(&at) {
            blocked.pending.append(&mut bytes);
            blocked.last = blocked.last.or(last);
            return;
        }
        self.flush(at, bytes, last, now);
    }

    /// Writes as much as the socket takes; what is left waits for it.
    pub(super) fn flush(
        &mut self,
        at: u32,
        mut bytes: VecDeque<Bytes>,
        last: Option<EndReason>,
        now: Instant,
    ) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let (taken, broken) = write_all(&mut stream.socket, &mut bytes);
        if taken > 0 {
            stream.written = self.wheel.tick();
        }
        if let Some(error) = broken {
            return self.close(at, end_of(error));
        }
        if bytes.is_empty() {
            stream.is_blocked = false;
            self.unblock(at);
            match last {
                Some(_) => self.shutdown(at, now),
                None => self.go_on(at),
            }
            return;
        }
        match self.blocked.get_mut(&at) {
            Some(blocked) => {
                blocked.pending = bytes;
                blocked.taken = blocked.taken.saturating_add(taken);
                blocked.pace.took(taken);
                if blocked.taken >= TAKEN_BYTES_MIN {
                    (blocked.window_began_at, blocked.taken) = (now, 0);
                }
            }
            None => self.block(at, bytes, last, now),
        }
    }

    /// Its socket takes nothing more now. What is held for it has a bound: the budget's, or that of
    /// frames.
    pub(super) fn block(
        &mut self,
        at: u32,
        pending: VecDeque<Bytes>,
        last: Option<EndReason>,
        now: Instant,
    ) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        stream.is_blocked = true;
        self.newly_blocked.push(Id { index: at, serial: stream.serial });
        let (pins, budget) = (&mut self.pins, &self.settings.budget);
        let of_frames = pending.iter().filter(|part| !budget.holds(part));
        let pins = of_frames.filter_map(|part| pins.pin(part)).collect();
        let pace = Pace::new(now);
        let blocked = Blocked { pending, window_began_at: now, taken: 0, pace, last, pins };
        self.blocked.insert(at, blocked);
        if self.blocked.len() == 1 {
            self.stalls_looked_at = now;
        }
        self.shed_pins();
    }

    /// Gives up those that take nothing for longest, while all together keep too much of frames.
    pub(super) fn shed_pins(&mut self) {
        while self.pins.is_over() {
            let pinning = self.blocked.iter().filter(|(_, blocked)| !blocked.pins.is_empty());
            let oldest = pinning.min_by_key(|(_, blocked)| blocked.window_began_at);
            let Some((&oldest, _)) = oldest else { return };
            self.close_stalled(oldest);
        }
    }

    fn unblock(&mut self, at: u32) {
        if let Some(blocked) = self.blocked.remove(&at) {
            blocked.pins.into_iter().for_each(|pin| self.pins.unpin(pin));
        }
    }

    pub(super) fn on_writable(&mut self, id: Id, now: Instant) {
        if self.get(id).is_none() {
            return;
        }
        let Some(blocked) = self.blocked.get_mut(&id.index) else { return };
        let (pending, last) = (std::mem::take(&mut blocked.pending), blocked.last);
        self.flush(id.index, pending, last, now);
        if !self.blocked.contains_key(&id.index) {
            self.enqueue(id);
        }
    }

    pub(super) fn on_half_close(&mut self, id: Id, now: Instant) {
        let Some(stream) = self.get(id) else { return };
        if matches!(stream.source, Source::Over) {
            return self.on_close(id);
        }
        if !stream.is_blocked {
            let mut parts = Parts::default();
            stream.terms.speech.encode_chunked(&Said::Heartbeat, &mut parts);
            self.write_out(id.index, parts, None, now);
        }
    }

    pub(super) fn on_close(&mut self, id: Id) {
        let Some(stream) = self.get(id) else { return };
        let reason = stream.socket.error().map_or(EndReason::Client, end_of);
        self.close(id.index, reason);
    }

    /// Has a stream served by itself.
    pub(super) fn enqueue(&mut self, id: Id) {
        if let Some(stream) = self.get_mut(id)
            && !std::mem::replace(&mut stream.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Has a stream say goodbye: now, or as soon as its question is answered.
    pub(super) fn say_goodbye(&mut self, id: Id, reason: EndReason, now: Instant) {
        match self.get(id).map(|stream| &stream.source) {
            None | Some(Source::Over) => {}
            Some(Source::Asked(interrupt)) => {
                interrupt.notify_one();
                self.ending.insert(id.index, reason);
            }
            Some(_) => self.end(id.index, Parts::default(), reason, now),
        }
    }

    /// Writes these parts and the goodbye of a stream whose question is answered.
    fn end(&mut self, at: u32, mut parts: Parts, reason: EndReason, now: Instant) {
        let Some(stream) = self.streams.get(at as usize) else { return };
        let said = goodbye(reason, self.settings.retry);
        stream.terms.speech.encode_chunked(&said, &mut parts);
        self.write_out(at, parts, Some(reason), now);
    }

    /// A stream has said this. Most have nothing to say of it at their end.
    pub(super) fn add_digest(&mut self, at: u32, digest: Digest) {
        if digest != Digest::EMPTY && self.streams.contains(at as usize) {
            let sum = self.digests.entry(at).or_default();
            *sum = sum.then(digest);
        }
    }

    /// The id of a stream of several topics.
    pub(super) fn cursor(&self, memberships: &[Membership]) -> String {
        write_cursor(memberships.iter().filter_map(|membership| {
            Some((self.topics.get(membership.topic as usize)?.topic.name(), membership.position))
        }))
    }

    /// Everything was said and written.
    fn shutdown(&mut self, at: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        stream.socket.shutdown_write();
        self.limits.set(at, now + CLOSE_TIMEOUT, EndReason::Client);
    }

    /// Gives up a stream whose peer takes nothing, or too little.
    pub(super) fn close_stalled(&mut self, at: u32) {
        // It may be another than the one that is served.
        let serving = self.serving.replace(at);
        if let Some(stream) = self.streams.get_mut(at as usize) {
            stream.socket.reset();
        }
        self.close(at, EndReason::Stalled);
        self.serving = serving;
    }

    /// Removes a stream; its socket is closed with it.
    pub(super) fn close(&mut self, at: u32, reason: EndReason) {
        self.leave_topics(at);
        let Some(mut stream) = self.streams.try_remove(at as usize) else { return };
        self.unblock(at);
        self.digests.remove(&at);
        self.ending.remove(&at);
        self.limits.remove(at);
        match &stream.source {
            // It has said why it ends.
            Source::Over => {}
            source => {
                if let Source::Asked(interrupt) = source {
                    interrupt.notify_one();
                }
                stream.guard.set_reason(reason);
            }
        }
        if self.streams.is_empty() {
            // Ten thousand streams that left leave no room behind.
            self.streams.shrink_to_fit();
            self.blocked.shrink_to_fit();
            self.ending.shrink_to_fit();
            self.digests.shrink_to_fit();
            self.ready = VecDeque::new();
            self.wheel.clear();
        }
    }

    /// Takes a stream out of the topics that it follows by itself, and says where it stood.
    fn leave_topics(&mut self, at: u32) -> Vec<Place> {
        let Some(stream) = self.streams.get(at as usize) else { return Vec::new() };
        let memberships: Vec<Membership> = match &stream.source {
            Source::One(membership) => vec![*membership],
            Source::Several(memberships) => memberships.to_vec(),
            _ => return Vec::new(),
        };
        metric::parked_connections(-1.0);
        memberships.into_iter().filter_map(|membership| self.leave_topic(membership)).collect()
    }

    fn leave_topic(&mut self, membership: Membership) -> Option<Place> {
        let followed = self.topics.get_mut(membership.topic as usize)?;
        let topic = followed.topic.clone();
        followed.members.swap_remove(membership.index as usize);
        if let Some(&moved) = followed.members.get(membership.index as usize)
            && let Some(stream) = self.streams.get_mut(moved.stream as usize)
        {
            match &mut stream.source {
                Source::One(one) => one.index = membership.index,
                Source::Several(memberships) => {
                    memberships[moved.nth as usize].index = membership.index
                }
                _ => {}
            }
        }
        if followed.members.is_empty() {
            self.topics.remove(membership.topic as usize);
            self.changed.retain(|key| *key != membership.topic);
        } else if followed.members.capacity() > 64
            && followed.members.len() < followed.members.capacity() / 4
        {
            followed.members.shrink_to(followed.members.len() * 2);
        }
        if let Some(observer) = self.observer.upgrade() {
            topic.unobserve(&observer);
        }
        Some(Place { topic, position: membership.position })
    }
}

/// Writes until the socket takes no more: says how many bytes it took, and why it broke if it did.
fn write_all<S: StreamSocket>(
    socket: &mut S,
    bytes: &mut VecDeque<Bytes>,
) -> (usize, Option<ErrorKind>) {
    let mut taken = 0;
    while !bytes.is_empty() {
        let mut parts = [IoSlice::new(&[]); WRITE_PARTS_MAX];
        let count = bytes.len().min(WRITE_PARTS_MAX);
        for (part, bytes) in parts.iter_mut().zip(bytes.iter()) {
            *part = IoSlice::new(bytes);
        }
        match socket.write(&parts[..count]) {
            Ok(0) => break,
            Ok(written) => {
                taken += written;
                advance(bytes, written);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return (taken, Some(error.kind())),
        }
    }
    (taken, None)
}

/// Takes so many bytes away from the front.
pub(super) fn advance(bytes: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(first) = bytes.front_mut() {
        if first.len() > count {
            first.advance(count);
            return;
        }
        count -= first.len();
        bytes.pop_front();
    }
}

/// Why a stream ends whose socket broke like this: the kernel, too, gives up peers that take
/// nothing.
pub(super) fn end_of(error: ErrorKind) -> EndReason {
    if error == ErrorKind::TimedOut { EndReason::Stalled } else { EndReason::Client }
}
