//! [`Carried`] with sockets of every temper: that take all, some, one byte or none, that close at
//! any byte or never read. Whatever they do, each sees its topic's entries once and in order, whole
//! chunks of them, and costs its neighbours nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::Notify;

use super::carried::{Carried, Moving, Outlet, Ways};
use super::wheel::Id;
use crate::admission::Admission;
use crate::connection::Lifetime;
use crate::entry::{Data, Entry, Event};
use crate::frame::{Frame, HEARTBEAT, encode_rest};
use crate::hub::{Audience, Hub, HubTopic, Joined};
use crate::position::{Epoch, LogHistory, Position};
use crate::topic::Topic;

const HEARTBEAT_EVERY: Duration = Duration::from_millis(320);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket, as a test sees it.
#[derive(Default)]
struct Pipe {
    /// How many bytes it takes until it is given more room.
    room: usize,
    /// It said that it takes nothing now, and must say when it does again.
    refused: bool,
    broken: bool,
    finished: bool,
    abandoned: bool,
    written: Vec<u8>,
}

#[derive(Clone, Default)]
struct Tap(Rc<RefCell<Pipe>>);

impl Outlet for Tap {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        assert!(!pipe.finished, "written to after the end");
        if pipe.broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let mut taken = 0;
        for part in parts {
            let part = &part[..part.len().min(pipe.room)];
            pipe.written.extend_from_slice(part);
            pipe.room -= part.len();
            taken += part.len();
        }
        let all: usize = parts.iter().map(|part| part.len()).sum();
        pipe.refused |= taken < all;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn finish(&mut self) {
        self.0.borrow_mut().finished = true;
    }

    fn abandon(&mut self) {
        self.0.borrow_mut().abandoned = true;
    }

    fn error(&self) -> Option<ErrorKind> {
        self.0.borrow().broken.then_some(ErrorKind::ConnectionReset)
    }
}

#[derive(Default)]
struct Ear(Mutex<Vec<u32>>);

impl Audience for Ear {
    fn news(&self, key: u32) -> bool {
        self.0.lock().unwrap().push(key);
        false
    }

    fn ring(&self) {}
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
        if text != HEARTBEAT {
            blocks.push(text);
        }
    }
    (blocks, left.len())
}

struct Listener {
    id: Id,
    topic: usize,
    start: u64,
    pipe: Tap,
}

struct World {
    carried: Carried<Tap>,
    ear: Arc<Ear>,
    hub: Arc<Hub>,
    /// Kept joined, so that topics stay.
    topics: Vec<(Joined, Vec<Frame>)>,
    listeners: Vec<Listener>,
    /// Where streams stood that went elsewhere.
    gone: BTreeMap<usize, u64>,
    admission: Arc<Admission>,
    now: Instant,
}

fn epoch() -> Epoch {
    "k3f9".parse().unwrap()
}

impl World {
    fn new(topics: usize) -> World {
        let ear = Arc::new(Ear::default());
        let now = Instant::now();
        let ways = Ways {
            heartbeat: HEARTBEAT_EVERY,
            write_timeout: WRITE_TIMEOUT,
            retry: Duration::from_secs(3),
            clock: Box::new(|| None),
        };
        let hub = Hub::new();
        let topics = (0..topics).map(|n| {
            let name = Topic::new(&format!("t{n}")).unwrap();
            let joined = hub.join(&name, Arc::new(Notify::new()));
            let history =
                LogHistory { epoch: epoch(), past_epochs: Vec::new(), head: 0, oldest: 1 };
            hub.open(&joined.topic, history, false);
            (joined, Vec::new())
        });
        World {
            carried: Carried::new(ways, ear.clone(), now),
            ear,
            topics: topics.collect(),
            hub,
            listeners: Vec::new(),
            gone: BTreeMap::new(),
            admission: Admission::new(1_000, 0),
            now,
        }
    }

    fn come(&mut self, topic: usize, back: u64, room: usize) {
        let topic = topic % self.topics.len();
        let hub_topic: Arc<HubTopic> = self.topics[topic].0.topic.clone();
        let start = (self.topics[topic].1.len() as u64).saturating_sub(back);
        let admitted = self.admission.admit([127, 0, 0, 1].into());
        let pipe = Tap::default();
        pipe.0.borrow_mut().room = room;
        let (id, _) = self.carried.take(Moving {
            outlet: pipe.clone(),
            topic: hub_topic,
            position: Position { seq: start, epoch: epoch() },
            snapshot: false,
            lifetime: Lifetime::new(admitted.unwrap_or_else(|_| panic!("full"))),
        });
        self.listeners.push(Listener { id, topic, start, pipe });
    }

    fn publish(&mut self, topic: usize, bytes: usize) {
        let topic = topic % self.topics.len();
        let (joined, frames) = &mut self.topics[topic];
        let seq = frames.len() as u64 + 1;
        let data = Data::Text(format!("{seq} {}", "x".repeat(bytes)));
        let rest = encode_rest(&Event { event_type: None, data });
        let position = Position { seq, epoch: epoch() };
        let frame = Frame::new(&Entry { position, milliseconds: 0, json: false, rest });
        frames.push(frame.clone());
        self.hub.feed(&joined.topic, frame);
    }

    fn work(&mut self) {
        for key in std::mem::take(&mut *self.ear.0.lock().unwrap()) {
            self.carried.news(key);
        }
        let mut slices = 0;
        while self.carried.is_busy() {
            self.carried.work(self.now);
            slices += 1;
            assert!(slices < 10_000, "it never comes to rest");
        }
        for moving in self.carried.leaving.drain(..) {
            let at =
                self.listeners.iter().position(|one| Rc::ptr_eq(&one.pipe.0, &moving.outlet.0));
            self.gone.insert(at.unwrap(), moving.position.seq);
        }
    }

    fn give_room(&mut self, listener: usize, room: usize) {
        let Listener { id, pipe, .. } = &self.listeners[listener];
        let told = {
            let mut pipe = pipe.0.borrow_mut();
            pipe.room = pipe.room.saturating_add(room);
            std::mem::take(&mut pipe.refused)
        };
        if told {
            self.carried.writable(*id, self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.carried.pass_time(self.now);
    }

    /// What every listener has seen is a beginning of what it should see.
    fn check(&self) -> Result<(), TestCaseError> {
        for (n, listener) in self.listeners.iter().enumerate() {
            let pipe = listener.pipe.0.borrow();
            let (seen, part) = blocks(&pipe.written);
            let expected = &self.topics[listener.topic].1[listener.start as usize..];
            prop_assert!(seen.len() <= expected.len(), "listener {n} saw what nobody said");
            for (seen, expected) in seen.iter().zip(expected) {
                prop_assert_eq!(seen.as_bytes(), &expected.whole()[..]);
            }
            if let Some(&position) = self.gone.get(&n) {
                prop_assert_eq!(position, listener.start + seen.len() as u64);
                prop_assert_eq!(part, 0, "listener {} left in the middle of a chunk", n);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come { topic: usize, back: u64, room: usize },
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
    prop_oneof![
        3 => (0..3_usize, 0..5_u64, room())
            .prop_map(|(topic, back, room)| Step::Come { topic, back, room }),
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
    fn each_socket_sees_its_topic_whole_and_in_order_whatever_the_others_do(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let mut world = World::new(3);
        let mut broken = std::collections::BTreeSet::new();
        for step in steps {
            let among = world.listeners.len();
            match step {
                Step::Come { topic, back, room } => world.come(topic, back, room),
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
                    world.listeners[at].pipe.0.borrow_mut().broken = true;
                    broken.insert(at);
                }
                Step::HangUp { listener } if among > 0 => {
                    let at = listener.index(among);
                    world.carried.hung_up(world.listeners[at].id);
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
        world.check()?;
        for (n, listener) in world.listeners.iter().enumerate() {
            let pipe = listener.pipe.0.borrow();
            if broken.contains(&n) || pipe.abandoned || world.gone.contains_key(&n) {
                continue;
            }
            let (seen, part) = blocks(&pipe.written);
            let expected = world.topics[listener.topic].1.len() as u64 - listener.start;
            prop_assert_eq!((seen.len() as u64, part), (expected, 0), "listener {}", n);
        }
    }
}

#[test]
fn silence_is_broken_by_heartbeats_and_only_silence() {
    let mut world = World::new(1);
    world.come(0, 0, usize::MAX);
    let beats = |world: &World| {
        let pipe = world.listeners[0].pipe.0.borrow();
        String::from_utf8_lossy(&pipe.written).matches(HEARTBEAT).count()
    };
    for _ in 0..100 {
        world.pass(HEARTBEAT_EVERY / 10);
        world.work();
    }
    // Late by a tick at most each time.
    assert!((9..=10).contains(&beats(&world)), "{}", beats(&world));
    let before = beats(&world);
    for _ in 0..100 {
        world.pass(HEARTBEAT_EVERY / 10);
        world.publish(0, 1);
        world.work();
    }
    assert_eq!(beats(&world), before);
    world.check().unwrap();
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
    let mut world = World::new(1);
    world.come(0, 0, 0);
    world.come(0, 0, 0);
    world.publish(0, 5_000);
    world.work();
    for _ in 0..60 {
        world.pass(Duration::from_millis(100));
        world.give_room(1, 1);
    }
    assert!(world.listeners[0].pipe.0.borrow().abandoned);
    assert!(!world.listeners[1].pipe.0.borrow().abandoned);
    assert_eq!(world.admission.streams(), 1);
}

#[test]
fn a_drained_stream_ends_with_its_position_after_what_it_was_still_owed() {
    let mut world = World::new(1);
    world.come(0, 0, usize::MAX);
    world.come(0, 0, 10);
    world.publish(0, 100);
    world.work();
    let now = world.now;
    world.carried.drain(|| now);
    world.pass(Duration::from_millis(1));
    world.give_room(1, usize::MAX);
    for listener in &world.listeners {
        let pipe = listener.pipe.0.borrow();
        let text = String::from_utf8_lossy(&pipe.written);
        assert!(text.contains("id: 1-k3f9\ndata: 1 x"), "{text}");
        assert!(text.ends_with("id: 1-k3f9\n\n\r\n0\r\n\r\n"), "{text}");
        assert!(text.contains("\nretry: "), "{text}");
        assert!(pipe.finished);
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.admission.streams(), 0);
}
