//! [`Proxy`]: the network between a node and its Redis, with everything that can go wrong in it as
//! an ordinary call.
//!
//! It understands RESP well enough to tell subscriptions from other connections and to lose,
//! repeat and reorder single announcements. What it holds back it does not read either: when the
//! network heals, what was sent meanwhile arrives late, as retransmitted packets do.

mod pubsub_faults;
mod pump;
pub mod resp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use pubsub_faults::{Channels, PubsubFaults};
use pump::Line;
pub use pump::swallow;

/// Which connections a fault is about. A connection is nobody's before its first command that
/// tells: until then only faults of all connections concern it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    All,
    /// Those that have subscribed to something.
    Subscriptions,
    /// Those that have asked for something else.
    Commands,
}

/// The way of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToRedis,
    ToNode,
}

/// What a connection is, as far as its commands have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Subscription,
    Commands,
}

impl Who {
    fn concerns(self, kind: Kind) -> bool {
        match self {
            Who::All => true,
            Who::Subscriptions => kind == Kind::Subscription,
            Who::Commands => kind == Kind::Commands,
        }
    }
}

/// The weather on the line. Several faults may be there at a time.
#[derive(Clone, Default)]
struct Weather {
    refusing: bool,
    /// What does not arrive.
    held: Vec<(Who, Direction)>,
    slow: Option<Slow>,
    dribbling: bool,
    pubsub_faults: PubsubFaults,
}

/// A thin line.
#[derive(Clone, Copy)]
struct Slow {
    latency: Duration,
    bytes_per_second: u64,
}

impl Weather {
    fn holds(&self, kind: Kind, direction: Direction) -> bool {
        self.held.iter().any(|(who, held)| *held == direction && who.concerns(kind))
    }
}

/// What happens once, to connections that are open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stroke {
    Close,
    /// Closed on the side of Redis alone.
    Half,
    /// Nothing passes any more.
    Freeze,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    weather: watch::Sender<Weather>,
    /// All there ever were: a connection remembers how many were there before it.
    strokes: watch::Sender<Vec<(Who, Stroke)>>,
    random: Mutex<fastrand::Rng>,
}

/// A TCP proxy before Redis that tests cut and mend.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the Redis on `port`. What it does at random follows from `seed`.
    pub async fn start(port: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(SocketAddr::from(([127, 0, 0, 1], port))),
            weather: watch::Sender::default(),
            strokes: watch::Sender::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut lines = JoinSet::new();
            let mut weather = accepting.weather.subscribe();
            loop {
                let deaf = weather.borrow_and_update().holds(Kind::Unknown, Direction::ToRedis);
                pump::swallow(&listener, deaf);
                tokio::select! {
                    _ = weather.changed() => {}
                    Ok((client, _)) = listener.accept() => {
                        while lines.try_join_next().is_some() {}
                        lines.spawn(Line::new(accepting.clone()).carry(client));
                    }
                }
            }
        });
        Proxy { address, shared, task }
    }

    /// What a node is given as its Redis.
    pub fn url(&self) -> String {
        super::redis_server::url_of(self.address)
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.change(|weather| weather.refusing = true);
        self.close(Who::All);
    }

    /// Ends everything that goes wrong here, and forgets nothing that it held back.
    pub fn mend(&self) {
        self.change(|weather| *weather = Weather::default());
    }

    /// Closes these connections once.
    pub fn close(&self, who: Who) {
        self.strike(who, Stroke::Close);
    }

    /// Closes these connections on the side of Redis; on the node's side they stay open, and
    /// nothing ever comes from them again.
    pub fn half_open(&self, who: Who) {
        self.strike(who, Stroke::Half);
    }

    /// Nothing passes on these connections any more, in neither direction and for ever, though
    /// both ends believe in them. New ones are well.
    pub fn freeze(&self, who: Who) {
        self.strike(who, Stroke::Freeze);
    }

    /// Nothing arrives anywhere and nobody is told. No connection can be made either if it is
    /// about all of them.
    pub fn black_hole(&self, who: Who) {
        self.one_way(who, Direction::ToNode);
        self.one_way(who, Direction::ToRedis);
    }

    /// Nothing arrives in this direction any more.
    pub fn one_way(&self, who: Who, held: Direction) {
        self.change(|weather| weather.held.push((who, held)));
    }

    /// Every value takes this much longer, and no more bytes than these pass in a second.
    pub fn slow(&self, latency: Duration, bytes_per_second: u64) {
        self.change(|weather| weather.slow = Some(Slow { latency, bytes_per_second }));
    }

    /// Every byte travels alone.
    pub fn dribble(&self) {
        self.change(|weather| weather.dribbling = true);
    }

    /// What happens to announcements from now on.
    pub fn announcements(&self, pubsub_faults: PubsubFaults) {
        self.change(|weather| weather.pubsub_faults = pubsub_faults);
    }

    /// The name leads to another Redis from now on; open connections stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.shared.upstream.lock().unwrap().set_port(port);
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    fn strike(&self, who: Who, stroke: Stroke) {
        self.shared.strokes.send_modify(|strokes| strokes.push((who, stroke)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let upstream = *self.upstream.lock().unwrap();
        TcpStream::connect(upstream).await
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap())
    }
}
