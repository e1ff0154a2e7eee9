//! A seeded simulation: several nodes over one log, on paused time.
//!
//! Relays, hubs and connections are the real ones. Their log is slow, fails, goes back in time,
//! loses keys or everything; announcements are lost, doubled, delayed and reordered, and the
//! subscriptions break. Writers do not always learn what became of what they wrote. Clients read in
//! fits and starts, drop and come back to another node with the id they were given. A judge who
//! knows what truly happened looks at every event of every client: each is the next of its topic
//! and says what was written, or is a reset that is justified; and in the end everybody has
//! everything.
//!
//! The message of a failure names its seed; `SEED=<seed>` plays it again, and
//! `SIMULATIONS=<count>` plays another number of them.

mod judge;
mod regressions;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fantail::address::TrustedProxies;
use fantail::admission::client::Client;
use fantail::admission::{Admission, StreamLimits};
use fantail::budget::{BUDGET_BYTES_MAX, Budget};
use fantail::entry::{Data, Event};
use fantail::hub::Hub;
use fantail::log::{Conditions, LogError};
use fantail::position::Cursor;
use fantail::relay::Relay;
use fantail::replay::Replays;
use fantail::stream::{Endings, Node, PolledStream, Request, RequestedTopic, Session, StartAt};
use fantail::topic::Topic;
use fantail::wire::Wire;
use tokio::time::Instant;

use crate::harness::client::Interpreter;
use crate::harness::faulty_log::{Faults, FaultyLog};
use crate::harness::keyspace::Key;
use judge::Judge;

/// How long anything may take to heal. Nobody really waits.
const HEALS_WITHIN: Duration = Duration::from_secs(900);

/// How many are played.
const SIMULATIONS: u64 = 1_000;

struct Simulation {
    seed: u64,
    log: Arc<FaultyLog>,
    nodes: Vec<Arc<Node>>,
    topics: Vec<Topic>,
    admission: Arc<Admission>,
    /// Nothing more is written, and the log stays as it is.
    settled: AtomicBool,
    began_at: Instant,
    /// Everything that happened, in few bytes.
    digest: Mutex<DefaultHasher>,
}

impl Simulation {
    fn new(seed: u64, random: &mut fastrand::Rng) -> Arc<Simulation> {
        let small = random.bool();
        let log = FaultyLog::new(if small { random.usize(1..20) } else { 100_000 });
        let nodes = (0..random.usize(1..=4)).map(|_| Faults::random(random)).collect();
        let topics = ["a", "b", "c"][..random.usize(1..=3)].iter();
        let topics = topics.map(|name| Topic::new(name).unwrap()).collect();
        Simulation::over(log, nodes, topics, seed)
    }

    fn over(
        log: Arc<FaultyLog>,
        nodes: Vec<Faults>,
        topics: Vec<Topic>,
        seed: u64,
    ) -> Arc<Simulation> {
        let nodes = nodes.into_iter().enumerate();
        Arc::new(Simulation {
            seed,
            nodes: nodes.map(|(n, faults)| node(&log, n, faults)).collect(),
            log,
            topics,
            admission: Admission::new(StreamLimits::of_streams(1_000)),
            settled: AtomicBool::new(false),
            began_at: Instant::now(),
            digest: Mutex::default(),
        })
    }

    fn connect(&self, node: usize, topics: &[Topic], start: StartAt) -> Polled {
        let client = Client::of([127, 0, 0, 1].into(), &TrustedProxies::default());
        let admitted = self.admission.admit(client, 1);
        let wanted =
            |topic: &Topic| RequestedTopic { topic: topic.clone(), must_have_state: false };
        let request = Request {
            topics: topics.iter().map(wanted).collect(),
            start,
            snapshot: false,
            named_connected: false,
        };
        let admitted = admitted.unwrap_or_else(|_| panic!("full"));
        let node = &self.nodes[node];
        let terms = node.endings.open_terms(Wire::Sse { named_heartbeat: false });
        Polled::new(Session::open(node, admitted, terms, &request))
    }

    fn tell(&self, what: impl Hash) {
        (self.began_at.elapsed(), what).hash(&mut *self.digest.lock().unwrap());
    }
}

/// A stream that is carried by polling it, as blocks of text.
struct Polled {
    stream: PolledStream,
    pending: VecDeque<Bytes>,
}

impl Polled {
    fn new(session: Session) -> Polled {
        Polled { stream: PolledStream::new(session), pending: VecDeque::new() }
    }

    /// The next part of what it says; nothing when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        while self.pending.is_empty() {
            for said in self.stream.next().await? {
                self.stream.terms.speech.wire.encode(&said, &mut self.pending);
            }
        }
        self.pending.pop_front()
    }
}

fn node(log: &Arc<FaultyLog>, number: usize, faults: Faults) -> Arc<Node> {
    let (log, heard) = log.node(faults);
    let log = Arc::new(log);
    let hub = Hub::new();
    let relay = Relay::new(log.clone(), hub.clone(), Duration::from_secs(3600));
    tokio::spawn(relay.clone().run(heard));
    Arc::new(Node {
        id: number.to_string(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(3),
        replays: Replays::new(
            log.clone(),
            log.clone(),
            Budget::new(BUDGET_BYTES_MAX, Duration::from_secs(60)),
        ),
        probe: log.clone(),
        snapshots: log.clone(),
        log,
        hub,
        relay,
        history_entries_max: u64::MAX,
        endings: Endings::new(None),
    })
}

/// Follows some topics until everything is seen; reads in fits and starts, drops its connection
/// and comes back elsewhere. Returns how many resets it was told.
async fn subscribe(simulation: Arc<Simulation>, name: String, mut random: fastrand::Rng) -> u64 {
    let mut topics = simulation.topics.clone();
    random.shuffle(&mut topics);
    topics.truncate(random.usize(1..=topics.len()));
    let mut judge = Judge::new(simulation.clone(), name, topics.clone());
    let mut last_event_id = String::new();
    let earliest = random.bool();
    tokio::time::sleep(Duration::from_millis(random.u64(0..2_000))).await;
    loop {
        let start = match last_event_id.as_str() {
            "" if earliest => StartAt::Earliest,
            "" => StartAt::Now,
            id => StartAt::Resume(Cursor::read(id, &topics)),
        };
        let mut connection =
            simulation.connect(random.usize(..simulation.nodes.len()), &topics, start);
        let mut interpreter = Interpreter::default();
        let stays = if random.f64() < 0.5 { usize::MAX } else { random.usize(..40) };
        for _ in 0..stays {
            if judge.has_everything() {
                return judge.resets;
            }
            let Some(block) = connection.next().await else { break };
            interpreter.feed(&block);
            for event in std::mem::take(&mut interpreter.events) {
                judge.take(&event);
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
}

/// Writes to any topic through any node, whatever comes of it.
async fn publish(simulation: Arc<Simulation>, name: String, mut random: fastrand::Rng) {
    for n in 0..random.usize(1..120) {
        let topic = &simulation.topics[random.usize(..simulation.topics.len())];
        let text = format!("{name}-{n}");
        let event = Event { event_type: None, data: Data::Text(text.clone()) };
        let log = &simulation.nodes[random.usize(..simulation.nodes.len())].log;
        let appended = log.append(topic, &[event], &Conditions::NONE).await;
        simulation.tell((&text, appended.as_ref().ok().map(|appended| appended.last)));
        simulation.log.records(topic, |records| match appended {
            Ok(appended) => {
                let log_event = records.oracle.at(appended.last);
                let said = log_event.and_then(|log_event| records.data.get(&log_event));
                assert_eq!(
                    said,
                    Some(&text),
                    "seed {}: acknowledged and not there",
                    simulation.seed
                );
            }
            Err(LogError::Unavailable(_)) => {
                let done = records.data.values().any(|data| *data == text);
                assert!(!done, "seed {}: done although it was surely not", simulation.seed);
            }
            Err(_) => {}
        });
        if random.f64() < 0.2 {
            tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
        }
    }
}

/// Makes the weather: takes things away from the log and its nodes.
async fn storm(simulation: Arc<Simulation>, mut random: fastrand::Rng) {
    // Some runs see a single blow, some one after the other, some none.
    for _ in 0..random.usize(..30) {
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        let what = random.u32(..100);
        simulation.tell(("storm", what));
        match what {
            0..45 => simulation.log.replicate(),
            45..65 => simulation.log.cut(random.usize(..simulation.nodes.len())),
            65..85 => simulation.log.mend(),
            85..94 => simulation.log.fail_over(random.usize(..5)),
            94..96 => simulation.log.flush(),
            _ => {
                let topic = &simulation.topics[random.usize(..simulation.topics.len())];
                let keys = [Key::Seq, Key::Log, Key::Meta];
                simulation.log.evict(topic, keys[random.usize(..keys.len())]);
            }
        }
    }
}

/// What came of a simulation.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    resets: u64,
    digest: u64,
}

async fn simulate(seed: u64) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let simulation = Simulation::new(seed, &mut random);
    let subscribers: Vec<_> = (0..random.usize(1..6))
        .map(|n| subscribe(simulation.clone(), format!("client {n}"), random.fork()))
        .map(tokio::spawn)
        .collect();
    let mut others: Vec<_> = (0..random.usize(1..4))
        .map(|n| tokio::spawn(publish(simulation.clone(), format!("writer {n}"), random.fork())))
        .collect();
    others.push(tokio::spawn(storm(simulation.clone(), random.fork())));
    for other in others {
        other.await.unwrap();
    }
    simulation.log.mend();
    simulation.settled.store(true, Ordering::Relaxed);
    let mut resets = 0;
    for subscriber in subscribers {
        let done = tokio::time::timeout(HEALS_WITHIN, subscriber).await;
        let never = |_| panic!("seed {seed}: somebody never saw everything");
        resets += done.unwrap_or_else(never).unwrap();
    }
    let digest = simulation.digest.lock().unwrap().finish();
    Outcome { resets, digest }
}

/// Plays one simulation from its beginning to its end.
fn play(seed: u64) -> Outcome {
    // Of the waits between attempts, too.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(seed))
}

#[test]
fn whatever_happens_everybody_sees_the_log_in_order_or_is_told() {
    let told = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let (first, runs) = match told("SEED") {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 32), told("SIMULATIONS").unwrap_or(SIMULATIONS)),
    };
    let next = AtomicU64::new(first);
    let resets = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    resets.fetch_add(play(seed).resets, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{runs} runs from seed {first}, {resets:?} resets, all justified");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..100 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}
