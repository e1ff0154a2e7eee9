//! Announcements are only hints: a seeded simulation of one node whose announcements are lost,
//! doubled, delayed and reordered, and whose reads are slow or fail, on paused time.
//!
//! The log, relay, hub and connections are the real ones; between them stands something that lies.
//! Every subscriber must see every entry once and in order all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fantail::admission::Admission;
use fantail::connection::{Connection, Node, Request, Start, Wanted};
use fantail::entry::{Data, Event};
use fantail::hub::Hub;
use fantail::log::memory::MemoryLog;
use fantail::log::{Conditions, EventLog, Heard, Retention};
use fantail::position::Cursor;
use fantail::relay::Relay;
use fantail::replay::Replays;
use fantail::topic::Topic;
use tokio::sync::{mpsc, watch};

use crate::harness::client::Interpreter;
use crate::harness::faulty::FaultyLog;

/// How many entries each world writes.
const ENTRIES: u64 = 300;

struct World {
    log: Arc<FaultyLog>,
    node: Arc<Node>,
    admission: Arc<Admission>,
}

impl World {
    fn new(random: &mut fastrand::Rng) -> World {
        let retention = Retention {
            history_entries_max: 100_000,
            history_ttl: Duration::from_secs(3600),
            idempotency_window: Duration::from_secs(60),
        };
        let (log, heard) = MemoryLog::new(retention);
        let log = Arc::new(FaultyLog::new(log, random.fork()));
        let (lies, told) = mpsc::channel(1024);
        tokio::spawn(lie(heard, lies, random.fork()));
        let hub = Hub::new();
        let relay = Relay::new(log.clone(), hub.clone(), retention.history_ttl);
        tokio::spawn(relay.clone().run(told));
        let (_, drain) = watch::channel(None);
        let node = Node {
            id: "node".to_owned(),
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(3),
            replays: Replays::new(log.clone()),
            log: log.clone(),
            hub,
            relay,
            drain,
        };
        World { log, node: Arc::new(node), admission: Admission::new(1_000, 0) }
    }

    fn connect(&self, topic: &Topic, last_event_id: &str) -> Connection {
        let admitted = self.admission.admit([127, 0, 0, 1].into());
        let start = match last_event_id {
            "" => Start::Earliest,
            id => Start::Resume(Cursor::read(id, std::slice::from_ref(topic))),
        };
        let request = Request {
            topics: vec![Wanted { topic: topic.clone(), board: false }],
            start,
            snapshot: false,
            stalled: Arc::new(AtomicBool::new(false)),
        };
        Connection::new(self.node.clone(), admitted.unwrap_or_else(|_| panic!("full")), request)
    }
}

/// Passes announcements on as badly as a network and a bounded inbox can.
async fn lie(
    mut heard: mpsc::Receiver<Heard>,
    lies: mpsc::Sender<Heard>,
    mut random: fastrand::Rng,
) {
    let mut held: VecDeque<Heard> = VecDeque::new();
    // Some worlds are merely unlucky, in some hardly anything comes through.
    let loss = random.f64();
    while let Some(announcement) = heard.recv().await {
        let Heard::Entry(topic, frame) = announcement else { continue };
        if random.f64() < loss {
            continue;
        }
        if random.f64() < 0.2 {
            held.push_back(Heard::Entry(topic.clone(), frame.clone()));
        }
        if random.f64() < 0.2 {
            held.push_back(Heard::Entry(topic, frame));
        } else {
            let _ = lies.send(Heard::Entry(topic, frame)).await;
        }
        if random.f64() < 0.3 {
            tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
        }
        while !held.is_empty() && random.f64() < 0.4 {
            let any = random.usize(..held.len());
            if let Some(late) = held.remove(any) {
                let _ = lies.send(late).await;
            }
        }
    }
}

/// Follows the topic until it has seen everything; reads in fits and starts, drops its connection
/// and comes back. Returns how often it did.
async fn subscribe(world: Arc<World>, topic: Topic, mut random: fastrand::Rng, seed: u64) -> usize {
    let mut last_event_id = String::new();
    let mut seen = 0;
    let mut connections = 0;
    while seen < ENTRIES {
        connections += 1;
        let mut connection = world.connect(&topic, &last_event_id);
        let mut interpreter = Interpreter::default();
        let stays = if random.f64() < 0.5 { usize::MAX } else { random.usize(..40) };
        for _ in 0..stays {
            let Some(block) = connection.next().await else { break };
            interpreter.feed(&block);
            for event in interpreter.events.drain(..).filter(|event| !event.is_connected()) {
                assert_eq!(event.kind, "message", "seed {seed}: {event:?}");
                assert_eq!(event.seq(), seen + 1, "seed {seed}: a hole or a twin");
                assert_eq!(event.data, event.seq().to_string(), "seed {seed}");
                seen = event.seq();
            }
            if seen == ENTRIES {
                break;
            }
            if random.f64() < 0.1 {
                tokio::time::sleep(Duration::from_millis(random.u64(0..3_000))).await;
            }
        }
        if !interpreter.last_event_id.is_empty() {
            last_event_id.clone_from(&interpreter.last_event_id);
        }
        drop(connection);
        if random.f64() < 0.3 {
            // Long enough for the node to forget the topic, sometimes just so.
            tokio::time::sleep(Duration::from_millis(random.u64(0..9_000))).await;
        }
    }
    connections
}

async fn simulate(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World::new(&mut random));
    let topic = Topic::new("t").unwrap();
    let subscribers: Vec<_> = (0..random.usize(1..6))
        .map(|_| tokio::spawn(subscribe(world.clone(), topic.clone(), random.fork(), seed)))
        .collect();
    for n in 1..=ENTRIES {
        let event = Event { event_type: None, data: Data::Text(n.to_string()) };
        let appended = world.log.append(&topic, &[event], &Conditions::NONE).await.unwrap();
        assert_eq!(appended.last.seq, n);
        if random.f64() < 0.2 {
            tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
        }
    }
    // Long enough for everything that heals, since nobody really waits; short enough to fail.
    for subscriber in subscribers {
        let done = tokio::time::timeout(Duration::from_secs(600), subscriber).await;
        done.unwrap_or_else(|_| panic!("seed {seed}: somebody never saw everything")).unwrap();
    }
}

#[test]
fn whatever_happens_to_announcements_everybody_sees_everything_once_and_in_order() {
    let (first, worlds) = match std::env::var("SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (fastrand::u64(..1 << 32), 2000),
    };
    for seed in first..first + worlds {
        // A failing seed is in the message; SEED=<seed> plays its world again.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(simulate(seed));
    }
    println!("{worlds} worlds from seed {first}");
}
