//! One client's stream: catch up, live, goodbye.
//!
//! A [`Connection`] holds one position per topic and nothing else: no queue. Whenever its socket
//! takes more, its [`follower`] asks the topic's tail what comes after the position, and where the
//! tail no longer reaches back, the log. Resume, live, slow reader and Redis outage are the same
//! loop. [`http`](crate::http) makes one per stream and turns [`Connection::next`] into a body.

mod follower;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::Admitted;
use crate::frame::{self, HEARTBEAT};
use crate::hub::{Hub, Joined};
use crate::log::{Log, Probe, Snapshots};
use crate::position::{Cursor, Position};
use crate::relay::Relay;
use crate::replay::Replays;
use crate::telemetry::metric;
use crate::topic::Topic;
use follower::Follower;

/// What all connections of a node share.
pub struct Node {
    /// This node's name, as the `connected` event tells it.
    pub id: String,
    /// Silence after which a heartbeat is due.
    pub heartbeat: Duration,
    /// The reconnection time told to browsers.
    pub retry: Duration,
    /// Where entries live.
    pub log: Arc<dyn Log>,
    /// How the log does, and its clock.
    pub probe: Arc<dyn Probe>,
    /// Topics with a state.
    pub snapshots: Arc<dyn Snapshots>,
    /// The topics with connections here.
    pub hub: Arc<Hub>,
    /// The node's ear on the log.
    pub relay: Arc<Relay>,
    /// Shared reads of the log.
    pub replays: Replays,
    /// Set when the node begins to drain.
    pub drain: watch::Receiver<Option<Drain>>,
}

/// How a draining node ends its streams: one after the other, spread evenly over a window.
#[derive(Debug, Clone)]
pub struct Drain {
    /// When draining began.
    pub began_at: Instant,
    /// The time over which streams are ended.
    pub window: Duration,
    /// How many streams were open.
    pub streams: usize,
    /// How many of them have taken their turn.
    pub turns: Arc<AtomicUsize>,
}

impl Drain {
    /// When the next stream that asks shall end.
    pub(crate) fn take_turn(&self) -> Instant {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let share = (turn as f64 + 0.5) / (self.streams.max(1) as f64);
        self.began_at + self.window.mul_f64(share.min(1.0))
    }
}

/// What a client asked for.
#[derive(Debug)]
pub struct Request {
    /// The topics, each once, in the order of the cursor; some may have to be boards.
    pub topics: Vec<Wanted>,
    /// Where to start.
    pub start: Start,
    /// Open boards with a snapshot, and answer resets with one.
    pub snapshot: bool,
    /// Set by the socket when it is given up because the peer takes no bytes.
    pub stalled: Arc<AtomicBool>,
}

/// A topic that a stream shall carry.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub topic: Topic,
    /// Asked for as a board: must exist.
    pub board: bool,
}

/// Where a stream starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// With what comes next.
    Now,
    /// With the oldest entry that is retained.
    Earliest,
    /// After the last event the client has seen.
    Resume(Cursor),
}

/// One client's stream.
pub struct Connection {
    node: Arc<Node>,
    follower: Follower,
    drain: watch::Receiver<Option<Drain>>,
    goodbye_at: Option<Instant>,
    silent_since: Instant,
    lifetime: Lifetime,
}

/// That a stream is open: its place among those admitted, and how it ends in the metrics.
pub struct Lifetime {
    /// Why it is over, once it is. Whatever we did not end, the client did.
    end: Option<&'static str>,
    /// Set by a socket that gives it up.
    stalled: Option<Arc<AtomicBool>>,
    _admitted: Admitted,
}

/// A stream of one topic that has caught up, reduced to what must be remembered of it: whoever
/// carries it sends it what follows, and lets it [go on](Connection::go_on) as a connection when
/// something else is to be said.
pub struct Parked {
    /// Its place in the topic.
    pub joined: Joined,
    /// After which entry it stands.
    pub position: Position,
    /// Whether it answers resets with a snapshot.
    pub snapshot: bool,
    /// That it is open.
    pub lifetime: Lifetime,
}

impl Connection {
    /// Joins the topics and stands ready. Sends nothing by itself.
    pub fn new(node: Arc<Node>, admitted: Admitted, request: Request) -> Connection {
        metric::connection_opened();
        let mut lifetime = Lifetime::new(admitted);
        lifetime.stalled = Some(request.stalled.clone());
        Connection {
            follower: Follower::new(node.clone(), &request),
            drain: node.drain.clone(),
            node,
            goodbye_at: None,
            silent_since: Instant::now(),
            lifetime,
        }
    }

    /// Goes on with a stream that stood at `position` in `topic` and has said hello there.
    pub fn go_on(
        node: Arc<Node>,
        topic: &Topic,
        position: Position,
        snapshot: bool,
        lifetime: Lifetime,
    ) -> Connection {
        Connection {
            follower: Follower::go_on(node.clone(), topic, position, snapshot),
            drain: node.drain.clone(),
            node,
            goodbye_at: None,
            silent_since: Instant::now(),
            lifetime,
        }
    }

    /// Whether it has one topic, has caught up with it and said everything.
    pub fn rests(&self) -> bool {
        let stays = self.drain.borrow().is_none() && self.lifetime.end.is_none();
        stays && self.follower.rests().is_some()
    }

    /// Reduces a stream that [rests](Connection::rests); gives it back if it does not any more.
    pub fn park(self) -> Result<Parked, Box<Connection>> {
        let Some(position) = self.follower.rests() else { return Err(Box::new(self)) };
        let Connection { node, follower, drain, goodbye_at, silent_since, mut lifetime } = self;
        lifetime.stalled = None;
        let snapshot = follower.snapshot;
        match follower.leave() {
            Ok(joined) => Ok(Parked { joined, position, snapshot, lifetime }),
            Err(follower) => {
                let follower = *follower;
                let back = Connection { node, follower, drain, goodbye_at, silent_since, lifetime };
                Err(Box::new(back))
            }
        }
    }

    /// Waits until every topic is open, or it is clear that the log cannot be asked now. `false`
    /// if a board does not exist: then the stream should be refused instead of begun.
    ///
    /// At most `patience`: an `EventSource` waits, but it should not wait long for a status.
    pub async fn settle(&mut self, patience: Duration) -> bool {
        let exists = tokio::time::timeout(patience, self.follower.settle()).await.unwrap_or(true);
        if !exists {
            self.lifetime.end = Some("no_such_board");
        }
        exists
    }

    /// The next bytes for the socket; `None` when the stream is over. Called again only when the
    /// socket takes more, which is all the flow control there is.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(block) = self.follower.blocks.pop_front() {
                self.silent_since = Instant::now();
                return Some(block);
            }
            if self.lifetime.end.is_some() {
                return None;
            }
            let heartbeat_at = self.silent_since + self.node.heartbeat;
            tokio::select! {
                biased;
                Ok(()) = self.drain.changed(), if self.goodbye_at.is_none() => {
                    let drain = self.drain.borrow_and_update();
                    self.goodbye_at = drain.as_ref().map(Drain::take_turn);
                }
                () = sleep_until(self.goodbye_at) => self.say_goodbye(),
                exists = self.follower.advance() => {
                    if !exists {
                        self.lifetime.end = Some("no_such_board");
                    }
                }
                () = tokio::time::sleep_until(heartbeat_at) => {
                    self.follower.blocks.push_back(Bytes::from_static(HEARTBEAT.as_bytes()));
                }
            }
        }
    }

    /// One more block that is decided already.
    pub fn ready(&mut self) -> Option<Bytes> {
        self.follower.blocks.pop_front()
    }

    /// Ends it because its client does not read.
    pub fn stalled(mut self) {
        self.lifetime.end_by("stalled");
    }

    fn say_goodbye(&mut self) {
        let cursor = self.follower.told_cursor();
        let retry = self.node.retry.mul_f64(0.5 + fastrand::f64());
        self.follower.blocks.push_back(frame::goodbye(cursor.as_deref(), retry));
        self.lifetime.end = Some("drain");
    }
}

impl Lifetime {
    pub(crate) fn new(admitted: Admitted) -> Lifetime {
        Lifetime { end: None, stalled: None, _admitted: admitted }
    }

    /// Says why it ends.
    pub fn end_by(&mut self, reason: &'static str) {
        self.end = Some(reason);
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        let stalled = self.stalled.as_ref().is_some_and(|stalled| stalled.load(Ordering::Relaxed));
        metric::connection_closed(if stalled { "stalled" } else { self.end.unwrap_or("client") });
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
