//! [`Carried`]: the streams of one reactor, and what happens to them. Knows sockets only as an
//! [`Outlet`] and time only as it is told, so that tests can drive it with sockets of any temper.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use slab::Slab;

use super::LINGER;
use super::wheel::{Id, Wheel};
use crate::connection::Lifetime;
use crate::frame::{self, Frame, HEARTBEAT, LAST_CHUNK};
use crate::hub::tail::{After, HANDOUT_FRAMES_MAX};
use crate::hub::{Audience, HubTopic};
use crate::position::Position;
use crate::telemetry::metric;

/// Streams served at a time before another topic has its turn: so a topic with ten thousand
/// listeners holds up the first byte of the others by about a millisecond.
const SLICE: usize = 128;

/// Where a stream's bytes go.
pub(super) trait Outlet {
    /// Writes as much as is taken now; `WouldBlock` if nothing is.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Nothing more will be written.
    fn finish(&mut self);

    /// What was written and not sent shall be forgotten.
    fn abandon(&mut self);

    /// Why it broke by itself, if it did.
    fn error(&self) -> Option<ErrorKind>;
}

/// A stream as it begins here, or leaves for where more can be said.
pub(super) struct Moving<S> {
    pub(super) outlet: S,
    pub(super) topic: Arc<HubTopic>,
    pub(super) position: Position,
    pub(super) snapshot: bool,
    pub(super) lifetime: Lifetime,
}

/// What all streams of a reactor have in common.
pub(super) struct Ways {
    /// Silence after which a heartbeat is due.
    pub(super) heartbeat: Duration,
    /// A peer that takes no bytes for this long is given up.
    pub(super) write_timeout: Duration,
    /// The reconnection time told at the end.
    pub(super) retry: Duration,
    /// The log's clock, for the delivery lag.
    pub(super) clock: Box<dyn Fn() -> Option<u64> + Send>,
}

struct Stream<S> {
    outlet: S,
    position: Position,
    topic: u32,
    /// Its place in `Followed::members`.
    place: u32,
    /// Tells it from others that had its key.
    serial: u32,
    /// The tick of the wheel at which something was last written.
    written: u64,
    state: State,
    /// In `Carried::late`.
    is_late: bool,
    snapshot: bool,
    lifetime: Lifetime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its socket takes what comes.
    Flowing,
    /// Its socket takes nothing now: what is left is in `Carried::blocked`.
    Blocked,
    /// Everything was said; waiting for the peer to close.
    Ended,
}

/// A topic with streams here.
struct Followed {
    topic: Arc<HubTopic>,
    /// Keys of its streams.
    members: Vec<u32>,
    /// In `Carried::work`.
    at_work: bool,
    /// Members from here down were not looked at in this pass.
    left: usize,
    /// News came while a pass was running.
    again: bool,
}

/// Why a stream's socket takes nothing, and what waits for it.
struct Blocked {
    /// What is left of the frame that was taken in part.
    rest: Bytes,
    /// Nothing was taken since.
    since: Instant,
    /// It is over after that.
    last: bool,
}

/// The streams of one reactor.
///
/// Invariants: a stream's key is in its topic's `members` at its `place`; a stream is in `blocked`
/// exactly while its state is [`State::Blocked`].
pub(super) struct Carried<S> {
    ways: Ways,
    audience: Arc<dyn Audience>,
    streams: Slab<Stream<S>>,
    topics: Slab<Followed>,
    /// Topics with news, each once.
    work: VecDeque<u32>,
    /// Streams to be looked at by themselves, each once: they have just come, or their sockets take
    /// bytes again.
    late: VecDeque<Id>,
    blocked: HashMap<u32, Blocked>,
    wheel: Wheel,
    /// When streams say goodbye, earliest first.
    goodbyes: VecDeque<(Instant, Id)>,
    /// Ended streams, and until when they wait for their peers.
    ended: VecDeque<(Instant, Id)>,
    blocked_looked_at: Instant,
    /// Streams to which something is to be said that is not said here.
    pub(super) leaving: Vec<Moving<S>>,
    serial: u32,
}

/// What a pass over some streams delivered, for the metrics.
#[derive(Default)]
struct Tally {
    entries: usize,
    bytes: usize,
    handouts: usize,
    newest: u64,
}

impl<S: Outlet> Carried<S> {
    pub(super) fn new(ways: Ways, audience: Arc<dyn Audience>, now: Instant) -> Carried<S> {
        Carried {
            wheel: Wheel::new(ways.heartbeat, now),
            ways,
            audience,
            streams: Slab::new(),
            topics: Slab::new(),
            work: VecDeque::new(),
            late: VecDeque::new(),
            blocked: HashMap::new(),
            goodbyes: VecDeque::new(),
            ended: VecDeque::new(),
            blocked_looked_at: now,
            leaving: Vec::new(),
            serial: 0,
        }
    }

    /// Whether there is something to do before anything happens.
    pub(super) fn is_busy(&self) -> bool {
        !self.work.is_empty() || !self.late.is_empty()
    }

    /// When something is to be done even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        if self.streams.is_empty() {
            return None;
        }
        let times = [self.goodbyes.front(), self.ended.front()];
        let times = times.into_iter().flatten().map(|(at, _)| *at);
        times.chain([self.wheel.next_at()]).min()
    }

    /// Takes a stream. Returns its id, and its outlet to be watched.
    pub(super) fn take(&mut self, moving: Moving<S>) -> (Id, &S) {
        let Moving { outlet, topic, position, snapshot, lifetime } = moving;
        let topics = &mut self.topics;
        let key = topic.attach(&self.audience, || {
            let topic = topic.clone();
            topics.insert(Followed {
                topic,
                members: Vec::new(),
                at_work: false,
                left: 0,
                again: false,
            }) as u32
        });
        self.serial = self.serial.wrapping_add(1);
        let members = &mut self.topics[key as usize].members;
        let stream = Stream {
            outlet,
            position,
            topic: key,
            place: members.len() as u32,
            serial: self.serial,
            written: self.wheel.tick(),
            state: State::Flowing,
            is_late: false,
            snapshot,
            lifetime,
        };
        let at = self.streams.insert(stream);
        members.push(at as u32);
        metric::parked_connections(1.0);
        let id = (at as u32, self.serial);
        self.wheel.put(id, self.wheel.tick());
        // What was announced between its last look and now did not reach it.
        self.be_late(id);
        (id, &self.streams[at].outlet)
    }

    /// A topic has news.
    pub(super) fn news(&mut self, key: u32) {
        // The last stream of the topic may have left meanwhile.
        let Some(followed) = self.topics.get_mut(key as usize) else { return };
        if followed.at_work {
            followed.again = true;
        } else {
            followed.at_work = true;
            followed.left = followed.members.len();
            self.work.push_back(key);
        }
    }

    /// Does one slice of what there is to do.
    pub(super) fn work(&mut self, now: Instant) {
        for _ in 0..SLICE.min(self.late.len()) {
            if let Some(id) = self.late.pop_front() {
                self.look(id, now);
            }
        }
        let Some(key) = self.work.pop_front() else { return };
        if self.pass(key, now) {
            self.work.push_back(key);
        }
    }

    /// Gives some of a topic's streams what comes next for them; says whether there are more.
    fn pass(&mut self, key: u32, now: Instant) -> bool {
        let Some(followed) = self.topics.get_mut(key as usize) else { return false };
        let topic = followed.topic.clone();
        // From the last to the first: one that leaves is replaced by one that had its turn.
        let until = followed.left.min(followed.members.len());
        let from = until.saturating_sub(SLICE);
        let mut tally = Tally::default();
        // Nearly always all of them stand at the same place.
        let mut known: Option<(Position, Option<After>, bool)> = None;
        for place in (from..until).rev() {
            let members = self.topics.get(key as usize).map(|followed| &followed.members);
            let Some(&at) = members.and_then(|members| members.get(place)) else { continue };
            let Some(stream) = self.streams.get(at as usize) else { continue };
            if stream.state != State::Flowing {
                continue;
            }
            let position = stream.position;
            if !known.as_ref().is_some_and(|(of, ..)| *of == position) {
                let after = topic.after(position);
                let part = is_part(after.as_ref(), &topic);
                known = Some((position, after, part));
            }
            let serial = stream.serial;
            if let Some((_, after, part)) = &known
                && self.serve(at, after.as_ref(), now, &mut tally)
                && *part
            {
                self.be_late((at, serial));
            }
        }
        self.tell(&tally);
        let Some(followed) = self.topics.get_mut(key as usize) else { return false };
        followed.left = from;
        if from == 0 {
            followed.at_work = std::mem::take(&mut followed.again);
            followed.left = followed.members.len();
        }
        followed.at_work
    }

    /// Has a stream looked at by itself.
    fn be_late(&mut self, (at, serial): Id) {
        if let Some(stream) = self.streams.get_mut(at as usize)
            && !std::mem::replace(&mut stream.is_late, true)
        {
            self.late.push_back((at, serial));
        }
    }

    /// Gives one stream what comes next for it.
    fn look(&mut self, (at, serial): Id, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        if stream.serial != serial {
            return;
        }
        stream.is_late = false;
        if stream.state != State::Flowing {
            return;
        }
        let Some(followed) = self.topics.get(stream.topic as usize) else { return };
        let after = followed.topic.after(stream.position);
        let mut tally = Tally::default();
        if self.serve(at, after.as_ref(), now, &mut tally) {
            self.be_late((at, serial));
        }
        self.tell(&tally);
    }

    /// Does what is to be done for a stream whose socket takes bytes; says whether there may be more.
    fn serve(&mut self, at: u32, after: Option<&After>, now: Instant, tally: &mut Tally) -> bool {
        match after {
            Some(After::Nothing) => false,
            Some(After::Frames(frames)) => {
                self.send(at, frames, now, tally);
                true
            }
            // Behind its tail, or unsure, or of a topic that is being opened anew: the road of all
            // other streams knows what to say.
            Some(After::Behind | After::Unsure) | None => {
                if let Some((stream, topic)) = self.remove(at) {
                    let Stream { outlet, position, snapshot, lifetime, .. } = stream;
                    self.leaving.push(Moving { outlet, topic, position, snapshot, lifetime });
                }
                false
            }
        }
    }

    fn send(&mut self, at: u32, frames: &[Frame], now: Instant, tally: &mut Tally) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let written = match frames {
            [one] => stream.outlet.write(&[IoSlice::new(one.chunk())]),
            several => {
                let mut parts = [IoSlice::new(&[]); HANDOUT_FRAMES_MAX];
                for (part, frame) in parts.iter_mut().zip(several) {
                    *part = IoSlice::new(frame.chunk());
                }
                stream.outlet.write(&parts[..several.len().min(HANDOUT_FRAMES_MAX)])
            }
        };
        let mut left = match written {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return self.close(at, reason(error.kind())),
        };
        let mut rest = Bytes::new();
        let mut blocked = false;
        for frame in frames.iter().take(HANDOUT_FRAMES_MAX) {
            if left == 0 {
                blocked = true;
                break;
            }
            // One that was taken in part will be: its rest goes out before anything else.
            stream.position = frame.position;
            tally.entries += 1;
            tally.bytes += frame.size();
            tally.newest = frame.milliseconds;
            if left < frame.chunk().len() {
                rest = frame.chunk().slice(left..);
                blocked = true;
                break;
            }
            left -= frame.chunk().len();
        }
        tally.handouts += 1;
        stream.written = self.wheel.tick();
        if blocked {
            stream.state = State::Blocked;
            self.blocked.insert(at, Blocked { rest, since: now, last: false });
            if self.blocked.len() == 1 {
                self.blocked_looked_at = now;
            }
        }
    }

    /// Writes bytes that are no entry.
    fn say(&mut self, at: u32, bytes: Bytes, last: bool, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let taken = match stream.outlet.write(&[IoSlice::new(&bytes)]) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return self.close(at, reason(error.kind())),
        };
        stream.written = self.wheel.tick();
        if taken < bytes.len() {
            stream.state = State::Blocked;
            self.blocked.insert(at, Blocked { rest: bytes.slice(taken..), since: now, last });
        } else if last {
            self.end(at, now);
        }
    }

    /// The socket takes bytes again.
    pub(super) fn writable(&mut self, (at, serial): Id, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        if stream.serial != serial {
            return;
        }
        let Some(blocked) = self.blocked.get_mut(&at) else { return };
        while !blocked.rest.is_empty() {
            match stream.outlet.write(&[IoSlice::new(&blocked.rest)]) {
                Ok(0) => return,
                Ok(taken) => {
                    blocked.rest.advance(taken.min(blocked.rest.len()));
                    blocked.since = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.close(at, reason(error.kind())),
            }
        }
        let last = blocked.last;
        self.blocked.remove(&at);
        stream.state = State::Flowing;
        stream.written = self.wheel.tick();
        if last {
            self.end(at, now);
        } else {
            self.be_late((at, serial));
        }
    }

    /// The peer closed its side, or the socket broke.
    pub(super) fn hung_up(&mut self, (at, serial): Id) {
        let Some(stream) = self.streams.get(at as usize) else { return };
        if stream.serial == serial {
            let why = stream.outlet.error().map_or("client", reason);
            self.close(at, why);
        }
    }

    /// Ends all streams, one after the other, when `turn` says.
    pub(super) fn drain(&mut self, turn: impl Fn() -> Instant) {
        self.goodbyes =
            self.streams.iter().map(|(at, s)| (turn(), (at as u32, s.serial))).collect();
    }

    /// Does what is due by time: heartbeats, goodbyes, the end of peers that take nothing.
    pub(super) fn pass_time(&mut self, now: Instant) {
        while self.goodbyes.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.goodbyes.pop_front() {
                self.say_goodbye(id, now);
            }
        }
        while self.ended.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.ended.pop_front() {
                self.hung_up(id);
            }
        }
        if now >= self.wheel.next_at() {
            for id in self.wheel.turn(now) {
                self.beat(id, now);
            }
            self.give_up_stuck(now);
        }
    }

    fn beat(&mut self, (at, serial): Id, now: Instant) {
        let Some(stream) = self.streams.get(at as usize) else { return };
        if stream.serial != serial {
            return;
        }
        if stream.state == State::Flowing && self.wheel.is_due(stream.written) {
            self.say(at, heartbeat_chunk(), false, now);
        }
        if let Some(stream) = self.streams.get(at as usize) {
            let silent = stream.state != State::Flowing;
            let written = if silent { self.wheel.tick() } else { stream.written };
            self.wheel.put((at, serial), written);
        }
    }

    /// Looks about once a second at those who take nothing.
    fn give_up_stuck(&mut self, now: Instant) {
        let every = (self.ways.write_timeout / 8).min(Duration::from_secs(1));
        if self.blocked.is_empty() || now.duration_since(self.blocked_looked_at) < every {
            return;
        }
        self.blocked_looked_at = now;
        let stuck = |blocked: &Blocked| {
            now.saturating_duration_since(blocked.since) >= self.ways.write_timeout
        };
        let stuck: Vec<u32> =
            self.blocked.iter().filter(|(_, b)| stuck(b)).map(|(at, _)| *at).collect();
        for at in stuck {
            if let Some(stream) = self.streams.get_mut(at as usize) {
                stream.outlet.abandon();
            }
            self.close(at, "stalled");
        }
    }

    fn say_goodbye(&mut self, (at, serial): Id, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        if stream.serial != serial || stream.state == State::Ended {
            return;
        }
        stream.lifetime.end_by("drain");
        let retry = self.ways.retry.mul_f64(0.5 + fastrand::f64());
        let cursor = stream.position.to_string();
        let mut bytes = Vec::new();
        frame::write_chunk(&mut bytes, &[&frame::goodbye(Some(&cursor), retry)]);
        bytes.extend_from_slice(LAST_CHUNK);
        match self.blocked.get_mut(&at) {
            Some(blocked) => {
                let mut rest = blocked.rest.to_vec();
                rest.append(&mut bytes);
                *blocked = Blocked { rest: rest.into(), last: true, ..*blocked };
            }
            None => self.say(at, bytes.into(), true, now),
        }
    }

    /// Everything was said.
    fn end(&mut self, at: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        stream.state = State::Ended;
        stream.lifetime.end_by("drain");
        stream.outlet.finish();
        self.ended.push_back((now + LINGER, (at, stream.serial)));
    }

    fn close(&mut self, at: u32, reason: &'static str) {
        if let Some((mut stream, _)) = self.remove(at)
            && stream.state != State::Ended
        {
            stream.lifetime.end_by(reason);
        }
    }

    fn remove(&mut self, at: u32) -> Option<(Stream<S>, Arc<HubTopic>)> {
        let stream = self.streams.try_remove(at as usize)?;
        metric::parked_connections(-1.0);
        self.blocked.remove(&at);
        let followed = self.topics.get_mut(stream.topic as usize)?;
        let topic = followed.topic.clone();
        followed.members.swap_remove(stream.place as usize);
        if let Some(&moved) = followed.members.get(stream.place as usize)
            && let Some(moved) = self.streams.get_mut(moved as usize)
        {
            moved.place = stream.place;
        }
        if followed.members.is_empty() {
            self.topics.remove(stream.topic as usize);
            self.work.retain(|key| *key != stream.topic);
        } else if followed.members.capacity() > 64
            && followed.members.len() < followed.members.capacity() / 4
        {
            followed.members.shrink_to(followed.members.len() * 2);
        }
        topic.detach(&self.audience);
        if self.streams.is_empty() {
            // Ten thousand streams that left leave no room behind.
            self.streams.shrink_to_fit();
            self.blocked.shrink_to_fit();
        }
        Some((stream, topic))
    }

    fn tell(&self, tally: &Tally) {
        if tally.handouts == 0 {
            return;
        }
        metric::delivered(tally.entries, tally.bytes);
        if tally.newest > 0
            && let Some(now) = (self.ways.clock)()
        {
            let lag = Duration::from_millis(now.saturating_sub(tally.newest));
            metric::delivery_lags(lag, tally.handouts);
        }
    }
}

/// Why a stream ends whose socket broke like this: the kernel, too, gives up peers that take nothing.
fn reason(error: ErrorKind) -> &'static str {
    if error == ErrorKind::TimedOut { "stalled" } else { "client" }
}

/// Whether there is more than was handed out.
fn is_part(after: Option<&After>, topic: &HubTopic) -> bool {
    let Some(After::Frames(frames)) = after else { return false };
    frames.last().map(|frame| frame.position) != topic.head()
}

fn heartbeat_chunk() -> Bytes {
    // Checked by a test; a constant costs no allocation per heartbeat.
    const CHUNK: &str = "C\r\n: heartbeat\n\r\n";
    debug_assert_eq!(CHUNK.len(), HEARTBEAT.len() + 5);
    Bytes::from_static(CHUNK.as_bytes())
}
