//! [`Streams`] with sockets of every kind: that take all, some, one byte or none, that close at any
//! byte, never read, or panic. Whatever they do, each sees its topics' entries once and in order, whole
//! chunks of them, and costs its neighbours nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::Notify;

use super::pins::PinnedByNode;
use super::streams::{Adopted, Adoption, Asker, Question, StreamSettings, StreamSocket, Streams};
use super::timer_wheel::Id;
use super::timers::ORDERS_SLICE;
use crate::address::TrustedProxies;
use crate::admission::client::Client;
use crate::admission::{Admission, StreamLimits};
use crate::budget::Budget;
use crate::entry::{Data, Entry, Event};
use crate::frame::Frame;
use crate::hub::{Hub, HubTopic, Joined, TopicObserver};
use crate::position::{Cursor, Epoch, LogHistory, Position, ResumePoint};
use crate::said::EndReason;
use crate::stream::terms::EndsAt;
use crate::stream::{EndOrder, Endings, Place, StreamGuard};
use crate::topic::Topic;
use crate::wire::{Uncompressed, Wire, sse};

mod compressed;

const HEARTBEAT: Duration = Duration::from_millis(320);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket, as a test sees it.
#[derive(Default)]
struct FakeSocketState {
    /// How many bytes it takes until it is given more room.
    room: usize,
    /// It said that it takes nothing now, and must say when it does again.
    refused: bool,
    broken: bool,
    panics: bool,
    finished: bool,
    was_reset: bool,
    written: Vec<u8>,
}

#[derive(Clone, Default)]
struct FakeSocket(Rc<RefCell<FakeSocketState>>);

impl StreamSocket for FakeSocket {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut socket = self.0.borrow_mut();
        assert!(!socket.finished, "written to after the end");
        assert!(!socket.panics, "a mistake of ours");
        if socket.broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let mut taken = 0;
        for part in parts {
            let part = &part[..part.len().min(socket.room)];
            socket.written.extend_from_slice(part);
            socket.room -= part.len();
            taken += part.len();
        }
        let all: usize = parts.iter().map(|part| part.len()).sum();
        socket.refused |= taken < all;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn shutdown_write(&mut self) {
        self.0.borrow_mut().finished = true;
    }

    fn reset(&mut self) {
        assert!(!self.0.borrow().panics, "a mistake of ours");
        self.0.borrow_mut().was_reset = true;
    }

    fn error(&self) -> Option<ErrorKind> {
        self.0.borrow().broken.then_some(ErrorKind::ConnectionReset)
    }
}

#[derive(Default)]
struct RecordingObserver(Mutex<Vec<u32>>);

impl TopicObserver for RecordingObserver {
    fn topic_changed(&self, key: u32) -> bool {
        self.0.lock().unwrap().push(key);
        false
    }

    fn wake(&self) {}
}

/// Notes which streams were asked about, and where they stood, and what is to be compressed of which
/// topic. Nobody answers.
#[derive(Clone, Default)]
struct RecordingAsker(Arc<Mutex<Vec<Asked>>>, Arc<Mutex<Vec<(u32, Uncompressed)>>>);

/// Which stream somebody was asked about, and where it stood.
type Asked = (Id, Vec<Position>);

impl Asker for RecordingAsker {
    fn ask(&self, id: Id, question: Question, _: &Arc<crate::stream::Terms>, _: &Arc<Notify>) {
        let Question::From { places, .. } = question else { return };
        let positions = places.iter().map(|place| place.position).collect();
        self.0.lock().unwrap().push((id, positions));
    }

    fn compress(&self, key: u32, large: Uncompressed) {
        self.1.lock().unwrap().push((key, large));
    }
}

/// Everything that was said in chunks, without heartbeats; the second value is what is left of a
/// chunk that is not complete.
fn blocks(written: &[u8]) -> (Vec<String>, usize) {
    let mut blocks = Vec::new();
    let mut left = written;
    while let Some(line_end) = left.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&left[..line_end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = left.get(line_end + 2..line_end + 2 + size + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk without its end");
        let text = String::from_utf8(chunk[..size].to_vec()).unwrap();
        left = &left[line_end + 2 + size + 2..];
        if text != sse::HEARTBEAT {
            blocks.push(text);
        }
    }
    (blocks, left.len())
}

/// The data and the id of a block.
fn data_and_id(block: &str) -> (String, String) {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {block:?}")).to_owned()
    };
    (field("data: "), field("id: "))
}

struct Listener {
    id: Id,
    /// Its topics, and where it starts in each.
    topics: Vec<(usize, u64)>,
    socket: FakeSocket,
}

struct World {
    streams: Streams<FakeSocket>,
    observer: Arc<RecordingObserver>,
    asker: RecordingAsker,
    endings: Endings,
    hub: Arc<Hub>,
    /// Kept joined, so that topics stay.
    topics: Vec<(Joined, Vec<Frame>)>,
    listeners: Vec<Listener>,
    admission: Arc<Admission>,
    now: Instant,
}

fn epoch() -> Epoch {
    "k3f9".parse().unwrap()
}

impl World {
    fn new(topics: usize) -> World {
        World::on(Hub::new(), topics)
    }

    fn on(hub: Arc<Hub>, topics: usize) -> World {
        let observer = Arc::new(RecordingObserver::default());
        let asker = RecordingAsker::default();
        let now = Instant::now();
        let settings = StreamSettings {
            heartbeat: HEARTBEAT,
            write_timeout: WRITE_TIMEOUT,
            budget: Budget::new(1 << 20, WRITE_TIMEOUT),
            pinned: PinnedByNode::new(1),
            retry: Duration::from_secs(3),
            clock: Box::new(|| None),
        };
        let topics = (0..topics).map(|n| {
            let name = Topic::new(&format!("t{n}")).unwrap();
            let joined = hub.join(&name, Arc::new(Notify::new()));
            let history = LogHistory { epoch: epoch(), ..LogHistory::unwritten(0, 0) };
            hub.open(&joined.topic, history, false);
            (joined, Vec::new())
        });
        let weak = Arc::downgrade(&observer);
        let weak: Weak<dyn TopicObserver> = weak;
        World {
            streams: Streams::new(settings, Box::new(asker.clone()), weak, now),
            observer,
            asker,
            endings: Endings::new(None),
            topics: topics.collect(),
            hub,
            listeners: Vec::new(),
            admission: Admission::new(StreamLimits::of_streams(1_000)),
            now,
        }
    }

    /// A stream comes that stands `back` entries behind in each of its topics.
    fn come(&mut self, topics: &[usize], back: u64, room: usize) {
        let topics: Vec<(usize, u64)> = topics
            .iter()
            .map(|topic| topic % self.topics.len())
            .map(|topic| (topic, (self.topics[topic].1.len() as u64).saturating_sub(back)))
            .collect();
        self.come_with(topics, None, VecDeque::new(), room);
    }

    fn come_with(
        &mut self,
        topics: Vec<(usize, u64)>,
        limit: Option<EndsAt>,
        pending: VecDeque<bytes::Bytes>,
        room: usize,
    ) {
        let socket = FakeSocket::default();
        socket.0.borrow_mut().room = room;
        let adoption = self.adoption(&topics, limit, pending, socket.clone());
        let id = self.streams.adopt(adoption, self.now).unwrap();
        self.listeners.push(Listener { id, topics, socket });
    }

    fn adoption(
        &self,
        topics: &[(usize, u64)],
        limit: Option<EndsAt>,
        pending: VecDeque<bytes::Bytes>,
        socket: FakeSocket,
    ) -> Adoption<FakeSocket> {
        let place = |&(topic, seq): &(usize, u64)| {
            let topic: Arc<HubTopic> = self.topics[topic].0.topic.clone();
            Place { topic, position: Position { seq, epoch: epoch() } }
        };
        let places = topics.iter().map(place).collect();
        let client = Client::of([127, 0, 0, 1].into(), &TrustedProxies::default());
        let admitted = self.admission.admit(client, 1);
        Adoption {
            socket,
            terms: self.endings.open_terms(Wire::Sse { named_heartbeat: false }),
            limit,
            guard: StreamGuard::new(admitted.unwrap_or_else(|_| panic!("full"))),
            pending: pending.into(),
            state: Adopted::Live { places, snapshot: false },
        }
    }

    fn publish(&mut self, topic: usize, bytes: usize) {
        let topic = topic % self.topics.len();
        let (joined, frames) = &mut self.topics[topic];
        let seq = frames.len() as u64 + 1;
        let data = Data::Text(format!("t{topic} {seq} {}", "x".repeat(bytes)));
        let rest = sse::event_text(&Event { event_type: None, data });
        let position = Position { seq, epoch: epoch() };
        let frame = sse::frame(&Entry { position, milliseconds: 0, json: false, rest });
        frames.push(frame.clone());
        self.hub.push_announced(&joined.topic, frame);
    }

    fn work(&mut self) {
        for key in std::mem::take(&mut *self.observer.0.lock().unwrap()) {
            self.streams.topic_changed(key);
        }
        let mut slices = 0;
        while self.streams.is_busy() {
            self.streams.run_slice(self.now);
            slices += 1;
            assert!(slices < 10_000, "it never comes to rest");
        }
    }

    fn give_room(&mut self, listener: usize, room: usize) {
        let Listener { id, socket, .. } = &self.listeners[listener];
        let told = {
            let mut socket = socket.0.borrow_mut();
            socket.room = socket.room.saturating_add(room);
            std::mem::take(&mut socket.refused)
        };
        if told {
            self.streams.writable(*id, self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.streams.run_timers(self.now);
    }

    /// Where streams stood about which somebody was asked.
    fn asked(&self, listener: usize) -> Option<Vec<Position>> {
        let asked = self.asker.0.lock().unwrap();
        let id = self.listeners[listener].id;
        asked.iter().find(|(of, _)| *of == id).map(|(_, positions)| positions.clone())
    }

    /// What every listener has seen is a beginning of what it should see. Says how much of each of
    /// its topics every listener has seen.
    fn check(&self) -> Result<BTreeMap<usize, Vec<u64>>, TestCaseError> {
        let mut all = BTreeMap::new();
        for (n, listener) in self.listeners.iter().enumerate() {
            let socket = listener.socket.0.borrow();
            let (seen, part) = blocks(&socket.written);
            let mut at: Vec<u64> = listener.topics.iter().map(|(_, start)| *start).collect();
            let names: Vec<Topic> = listener
                .topics
                .iter()
                .map(|(topic, _)| self.topics[*topic].0.topic.name().clone())
                .collect();
            for block in seen {
                let (data, id) = data_and_id(&block);
                let nth = listener
                    .topics
                    .iter()
                    .position(|(topic, _)| data.starts_with(&format!("t{topic} ")))
                    .unwrap();
                let topic = listener.topics[nth].0;
                let frame = &self.topics[topic].1[at[nth] as usize];
                at[nth] += 1;
                let expected = frame.block();
                let (expected, _) = data_and_id(std::str::from_utf8(&expected).unwrap());
                prop_assert_eq!(data, expected, "listener {}", n);
                let cursor = Cursor::read(&id, &names);
                for (name, seq) in names.iter().zip(&at) {
                    let position = Position { seq: *seq, epoch: epoch() };
                    prop_assert_eq!(
                        cursor.resume_point(name),
                        Some(&ResumePoint::Position(position))
                    );
                }
            }
            if let Some(positions) = self.asked(n) {
                let stood: Vec<u64> = positions.iter().map(|position| position.seq).collect();
                prop_assert_eq!(&stood, &at, "listener {} was asked about elsewhere", n);
                // Heartbeats go on meanwhile.
                let rest = &socket.written[socket.written.len() - part..];
                let is_heartbeat = b"C\r\n: heartbeat\n\r\n".starts_with(rest);
                prop_assert!(is_heartbeat, "listener {} was in the middle of a chunk", n);
            }
            all.insert(n, at);
        }
        Ok(all)
    }

    fn written(&self, listener: usize) -> String {
        String::from_utf8_lossy(&self.listeners[listener].socket.0.borrow().written).into_owned()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come { topics: Vec<usize>, back: u64, room: usize },
    Publish { topic: usize, bytes: usize, count: usize },
    Room { listener: prop::sample::Index, room: usize },
    Break { listener: prop::sample::Index },
    HangUp { listener: prop::sample::Index },
    Pass(u64),
    Work,
}

fn any_step() -> impl Strategy<Value = Step> {
    let room = || prop_oneof![Just(0_usize), Just(1), 2..60_usize, Just(100_000), Just(usize::MAX)];
    let bytes = prop_oneof![6 => 0..30_usize, 1 => 1_000..30_000_usize];
    let listener = any::<prop::sample::Index>;
    let topics = prop_oneof![
        2 => (0..3_usize).prop_map(|topic| vec![topic]),
        1 => Just(vec![0, 1]),
        1 => Just(vec![2, 0, 1]),
    ];
    prop_oneof![
        3 => (topics, 0..5_u64, room())
            .prop_map(|(topics, back, room)| Step::Come { topics, back, room }),
        4 => (0..3_usize, bytes, 1..80_usize)
            .prop_map(|(topic, bytes, count)| Step::Publish { topic, bytes, count }),
        4 => (listener(), room()).prop_map(|(listener, room)| Step::Room { listener, room }),
        1 => listener().prop_map(|listener| Step::Break { listener }),
        1 => listener().prop_map(|listener| Step::HangUp { listener }),
        1 => (1..600_u64).prop_map(Step::Pass),
        3 => Just(Step::Work),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn each_socket_sees_its_topics_whole_and_in_order_whatever_the_others_do(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let mut world = World::new(3);
        let mut broken = std::collections::BTreeSet::new();
        for step in steps {
            let among = world.listeners.len();
            match step {
                Step::Come { topics, back, room } => world.come(&topics, back, room),
                Step::Publish { topic, bytes, count } => {
                    (0..count).for_each(|_| world.publish(topic, bytes));
                }
                Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
                Step::Work => {
                    world.work();
                    world.check()?;
                }
                Step::Room { listener, room } if among > 0 => {
                    world.give_room(listener.index(among), room);
                }
                Step::Break { listener } if among > 0 => {
                    let at = listener.index(among);
                    world.listeners[at].socket.0.borrow_mut().broken = true;
                    broken.insert(at);
                }
                Step::HangUp { listener } if among > 0 => {
                    let at = listener.index(among);
                    world.streams.peer_closed(world.listeners[at].id);
                    broken.insert(at);
                }
                _ => {}
            }
        }
        // Whoever takes everything now, and was not given up, gets everything.
        for listener in 0..world.listeners.len() {
            world.give_room(listener, usize::MAX);
        }
        for _ in 0..20 {
            world.work();
            for listener in 0..world.listeners.len() {
                world.give_room(listener, usize::MAX);
            }
        }
        let seen = world.check()?;
        for (n, listener) in world.listeners.iter().enumerate() {
            let socket = listener.socket.0.borrow();
            if broken.contains(&n) || socket.was_reset || world.asked(n).is_some() {
                continue;
            }
            let expected: Vec<u64> =
                listener.topics.iter().map(|(topic, _)| world.topics[*topic].1.len() as u64).collect();
            prop_assert_eq!(&seen[&n], &expected, "listener {}", n);
            prop_assert_eq!(blocks(&socket.written).1, 0, "listener {}", n);
        }
    }
}

#[test]
fn silence_is_broken_by_heartbeats_and_only_silence() {
    let mut world = World::new(1);
    world.come(&[0], 0, usize::MAX);
    let beats = |world: &World| world.written(0).matches(sse::HEARTBEAT).count();
    for _ in 0..100 {
        world.pass(HEARTBEAT / 10);
        world.work();
    }
    // Late by a tick at most each time.
    assert!((9..=10).contains(&beats(&world)), "{}", beats(&world));
    let before = beats(&world);
    for _ in 0..100 {
        world.pass(HEARTBEAT / 10);
        world.publish(0, 1);
        world.work();
    }
    assert_eq!(beats(&world), before);
    world.check().unwrap();
}

#[test]
fn the_first_stream_after_a_long_rest_is_not_taken_for_silent() {
    let mut world = World::new(1);
    world.now += HEARTBEAT * 10;
    world.come(&[0], 0, usize::MAX);
    for _ in 0..8 {
        world.pass(HEARTBEAT / 10);
        world.work();
    }
    assert_eq!(world.written(0), "");
}

#[test]
fn a_peer_that_takes_nothing_or_next_to_nothing_is_given_up_and_one_that_takes_some_is_not() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.come(&[0], 0, 0);
    }
    world.publish(0, 500_000);
    world.work();
    for _ in 0..60 {
        world.pass(Duration::from_millis(100));
        world.give_room(1, 1);
        world.give_room(2, 500);
        world.work();
    }
    let was_reset = |n: usize| world.listeners[n].socket.0.borrow().was_reset;
    assert_eq!([was_reset(0), was_reset(1), was_reset(2)], [true, true, false]);
    assert_eq!(world.admission.streams(), 1);
}

#[test]
fn streams_that_leave_slow_are_slow_no_longer_though_nobody_is_left() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.come(&[0], 0, 0);
    }
    world.publish(0, 500_000);
    world.work();
    for _ in 0..15 {
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(world.streams.slow, 3);
    for n in 0..3 {
        world.streams.peer_closed(world.listeners[n].id);
    }
    // As the thread does: it sleeps until something is due, or for ever.
    while let Some(at) = world.streams.next_deadline() {
        world.pass(at - world.now);
    }
    assert_eq!(world.streams.slow, 0);
}

#[test]
fn a_stream_that_has_to_end_says_its_position_after_what_it_was_still_owed() {
    let mut world = World::new(2);
    world.come(&[0], 0, usize::MAX);
    world.come(&[0], 0, 10);
    world.come(&[0, 1], 0, usize::MAX);
    world.publish(0, 100);
    world.work();
    let order = EndOrder::spread(EndReason::Drain, Duration::ZERO, 3);
    world.endings.end_all(order);
    world.streams.orders_given();
    world.work();
    world.now += Duration::from_secs(1);
    world.pass(Duration::from_millis(1));
    world.give_room(1, usize::MAX);
    for (n, listener) in world.listeners.iter().enumerate() {
        let text = world.written(n);
        let id = if n == 2 { "t0:1-k3f9,t1:0-k3f9~" } else { "1-k3f9\n" };
        assert!(text.contains("data: t0 1 x"), "{text}");
        assert!(text.contains(&format!("id: {id}")), "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
        // The goodbye says when to come back, and no blank line makes an event of it.
        assert!(text.contains("\nretry: ") && !text.contains("\n\n\r\n0\r\n"), "{text}");
        assert!(listener.socket.0.borrow().finished);
    }
    // One that comes after the order ends, too.
    world.come(&[0], 0, usize::MAX);
    world.pass(Duration::from_millis(1));
    assert!(world.written(3).ends_with("\r\n0\r\n\r\n"));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.admission.streams(), 0);
}

#[test]
fn each_stream_takes_one_turn_of_an_order() {
    let mut world = World::new(1);
    (0..4).for_each(|_| world.come(&[0], 0, usize::MAX));
    world.streams.peer_closed(world.listeners[0].id);
    world.endings.end_all(EndOrder::spread(EndReason::Drain, Duration::from_secs(800), 4));
    world.now = Instant::now();
    // It hears of the order when it comes, before the reactor does, and is asked before the others.
    world.come(&[0], 0, usize::MAX);
    world.streams.orders_given();
    world.work();
    world.streams.orders_given();
    world.work();
    world.pass(Duration::from_secs(50));
    for ended in 0..=4 {
        let finished = |listener: &&Listener| listener.socket.0.borrow().finished;
        assert_eq!(world.listeners.iter().filter(finished).count(), ended);
        world.pass(Duration::from_secs(200));
    }
}

#[test]
fn orders_are_heard_a_slice_at_a_time_and_by_one_pass_for_all_terms() {
    let mut world = World::new(1);
    (0..1_000).for_each(|_| world.come(&[0], 0, usize::MAX));
    world.work();
    let hour = Duration::from_secs(3_600);
    world.endings.end_all(EndOrder::spread(EndReason::Drain, hour, 1_000));
    (0..1_000).for_each(|_| world.streams.orders_given());
    world.streams.run_slice(world.now);
    assert_eq!(world.streams.limits.len(), ORDERS_SLICE);
    world.streams.run_slice(world.now);
    assert_eq!(world.streams.limits.len(), 1_000);
    // Another pass for those that came while the first was under way.
    let mut slices = 0;
    while world.streams.is_busy() {
        world.streams.run_slice(world.now);
        slices += 1;
    }
    assert!((1..=4).contains(&slices), "{slices}");
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_stream_that_waits_takes_little() {
    use super::streams::{Member, Stream};
    let bytes = size_of::<Stream<super::ReactorSocket>>() + size_of::<Member>();
    assert!(bytes <= 152, "{bytes}");
}

#[test]
fn a_stream_of_some_age_ends_and_the_others_go_on() {
    let mut world = World::new(1);
    let at = tokio::time::Instant::from_std(world.now) + Duration::from_secs(5);
    let limit = EndsAt { at, reason: EndReason::Age };
    world.come_with(vec![(0, 0)], Some(limit), VecDeque::new(), usize::MAX);
    world.come(&[0], 0, usize::MAX);
    world.pass(Duration::from_secs(4));
    assert!(!world.listeners[0].socket.0.borrow().finished);
    world.pass(Duration::from_secs(1));
    assert!(world.listeners[0].socket.0.borrow().finished);
    world.publish(0, 1);
    world.work();
    assert!(world.written(1).contains("data: t0 1 x"));
}

#[test]
fn streams_that_left_leave_nothing_behind() {
    let mut world = World::new(1);
    let in_an_hour = tokio::time::Instant::from_std(world.now) + Duration::from_secs(3_600);
    let expired = EndsAt { at: in_an_hour, reason: EndReason::Expired };
    world.come(&[0], 0, usize::MAX);
    for n in 1..1_000 {
        world.come_with(vec![(0, 0)], Some(expired), VecDeque::new(), usize::MAX);
        world.streams.peer_closed(world.listeners[n].id);
    }
    assert_eq!(world.streams.limits.len(), 0);
    // Nor when they are told to end, and their peers close before they have to.
    for n in 1_000..2_000 {
        world.come_with(vec![(0, 0)], Some(expired), VecDeque::new(), usize::MAX);
        world.streams.say_goodbye(world.listeners[n].id, EndReason::Drain, world.now);
        assert!(world.listeners[n].socket.0.borrow().finished);
        world.streams.peer_closed(world.listeners[n].id);
    }
    assert_eq!(world.streams.limits.len(), 0);
    assert_eq!(world.streams.streams.len(), 1);
    // The last one is gone, too.
    world.streams.peer_closed(world.listeners[0].id);
    assert!(world.streams.next_deadline().is_none() && !world.streams.is_busy());
}

#[test]
fn a_stream_that_was_ended_waits_a_moment_for_its_peer_and_no_longer() {
    let mut world = World::new(1);
    let soon = tokio::time::Instant::from_std(world.now) + Duration::from_millis(100);
    let expired = EndsAt { at: soon, reason: EndReason::Expired };
    // Its limit comes when it has said goodbye already, but its socket has not taken it.
    world.come_with(vec![(0, 0)], Some(expired), VecDeque::new(), 5);
    world.streams.say_goodbye(world.listeners[0].id, EndReason::Drain, world.now);
    world.pass(Duration::from_millis(200));
    world.give_room(0, usize::MAX);
    assert!(world.written(0).ends_with("\r\n0\r\n\r\n"));
    world.pass(Duration::from_millis(900));
    assert_eq!(world.admission.streams(), 1);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.admission.streams(), 0);
}

#[test]
fn frames_that_only_stopped_readers_need_are_bounded() {
    let mut world = World::new(60);
    for topic in 0..60 {
        world.now += Duration::from_millis(1);
        world.come(&[topic], 0, 10);
        world.publish(topic, 1 << 20);
        world.work();
    }
    assert!((30..=32).contains(&world.admission.streams()), "{}", world.admission.streams());
    // Those that stopped first were given up first.
    let was_reset = |n: usize| world.listeners[n].socket.0.borrow().was_reset;
    assert!(was_reset(0) && !was_reset(59));
}

#[test]
fn a_panic_while_one_stream_is_served_ends_that_stream_alone() {
    let mut world = World::new(2);
    for _ in 0..300 {
        world.come(&[0], 0, usize::MAX);
    }
    world.come(&[0, 1], 0, usize::MAX);
    world.work();
    for panics in [7, 150, 299, 300] {
        world.listeners[panics].socket.0.borrow_mut().panics = true;
    }
    world.publish(0, 10);
    world.work();
    assert_eq!(world.admission.streams(), 297);
    world.publish(0, 10);
    world.work();
    let seen = world.check().unwrap();
    for (n, at) in seen {
        let expected = if [7, 150, 299, 300].contains(&n) { 0 } else { 2 };
        assert_eq!(at[0], expected, "listener {n}");
    }
}

#[test]
fn a_panic_in_a_heartbeat_leaves_the_others_theirs() {
    let mut world = World::new(1);
    for _ in 0..50 {
        world.come(&[0], 0, usize::MAX);
    }
    world.work();
    for panics in [0, 17, 18, 49] {
        world.listeners[panics].socket.0.borrow_mut().panics = true;
    }
    for beats in 1..4 {
        world.pass(HEARTBEAT);
        assert_eq!(world.admission.streams(), 46);
        for n in (0..50).filter(|n| ![0, 17, 18, 49].contains(n)) {
            assert_eq!(world.written(n).matches(sse::HEARTBEAT).count(), beats, "listener {n}");
        }
    }
}

#[test]
fn a_panic_ends_its_stream_whatever_has_happened_to_it() {
    type Happening = fn(&mut World);
    let happenings: [(&str, Happening); 6] = [
        ("its socket takes bytes", |world| {
            let id = world.listeners[1].id;
            world.streams.writable(id, world.now);
        }),
        ("its peer sends no more", |world| {
            // One that is not blocked: it is sent something, to see whether it is there.
            world.come(&[0], 0, usize::MAX);
            let Listener { id, socket, .. } = &world.listeners[3];
            socket.0.borrow_mut().panics = true;
            world.streams.peer_half_closed(*id, world.now);
            world.streams.peer_closed(world.listeners[1].id);
        }),
        ("it comes", |world| {
            let socket = FakeSocket::default();
            socket.0.borrow_mut().panics = true;
            let pending = VecDeque::from([bytes::Bytes::from_static(b"first")]);
            let adoption = world.adoption(&[(0, 1)], None, pending, socket);
            assert!(world.streams.adopt(adoption, world.now).is_none());
            world.streams.peer_closed(world.listeners[1].id);
        }),
        ("it has to end", |world| {
            let at = tokio::time::Instant::from_std(world.now);
            let limit = EndsAt { at, reason: EndReason::Age };
            world.come_with(vec![(0, 1)], Some(limit), VecDeque::new(), usize::MAX);
            world.listeners[3].socket.0.borrow_mut().panics = true;
            world.pass(Duration::from_millis(1));
            world.streams.peer_closed(world.listeners[1].id);
        }),
        ("it is given up", |world| {
            for _ in 0..30 {
                world.pass(WRITE_TIMEOUT / 10);
            }
        }),
        ("nobody can say what comes next", |world| world.streams.failed(world.listeners[1].id)),
    ];
    for (what, happens) in happenings {
        let mut world = World::new(1);
        for room in [usize::MAX, 0, usize::MAX] {
            world.come(&[0], 0, room);
        }
        world.publish(0, 10);
        world.work();
        world.listeners[1].socket.0.borrow_mut().panics = true;
        happens(&mut world);
        world.publish(0, 10);
        world.work();
        assert_eq!(world.admission.streams(), 2, "{what}");
        for n in [0, 2] {
            assert!(world.written(n).contains("data: t0 2 x"), "{what}, listener {n}");
        }
    }
}

#[tokio::test]
async fn a_question_that_panics_is_answered_all_the_same() {
    let endings = Endings::new(None);
    let terms = endings.open_terms(Wire::Sse { named_heartbeat: false });
    let id = Id { index: 3, serial: 7 };
    let question = Box::pin(async { panic!("a mistake of ours") });
    let message = super::answer_to(id, question, &terms).await;
    assert!(matches!(message, super::Message::Failed(failed) if failed == id));
}

#[test]
fn what_followers_answered_counts_as_what_streams_stopped_in_themselves() {
    let mut world = World::new(1);
    for n in 0..40 {
        let pending = [bytes::Bytes::from(vec![n; 1 << 20])].into();
        world.come_with(vec![(0, 0)], None, pending, 0);
        world.pass(Duration::from_millis(1));
    }
    let given_up = |listener: &Listener| listener.socket.0.borrow().was_reset;
    assert_eq!(world.listeners.iter().filter(|listener| given_up(listener)).count(), 8);
    assert!(world.listeners[..8].iter().all(given_up), "those that took nothing for longest");
}

#[test]
fn what_the_budget_holds_does_not_count_as_frames_too() {
    let mut world = World::new(1);
    let budget = Budget::new(64 << 20, WRITE_TIMEOUT);
    world.streams.settings.budget = budget.clone();
    for _ in 0..40 {
        let page = budget.try_reserve(1 << 20).unwrap().hold(vec![0; 1 << 20]);
        world.come_with(vec![(0, 0)], None, [page].into(), 0);
    }
    assert!(world.listeners.iter().all(|listener| !listener.socket.0.borrow().was_reset));
}
