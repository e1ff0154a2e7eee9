//! DECIDE: what one stream says next, as values.
//!
//! A stream holds one position per topic and nothing else: no queue. Whenever its client takes more,
//! its [`Follower`] asks the topic's tail what comes after the position, and where the tail no longer
//! reaches back, the log. Resume, live, slow reader and Redis outage are the same loop.
//! [`http`](crate::http) opens a [`Session`] per stream, [`net`](crate::net) carries it. What is said
//! are [values](crate::said); the [`wire`](crate::wire) makes them bytes.

pub mod decide;
mod follower;
pub mod session;
mod slow;
pub mod terms;

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;
use crate::log::{Log, Probe, Snapshots};
use crate::position::Cursor;
use crate::relay::Relay;
use crate::replay::Replays;
use crate::topic::Topic;

pub use follower::{Follower, Place};
pub use session::{Answer, PolledStream, Session, StreamGuard, ask};
pub use slow::{Slow, SlowReason};
pub use terms::{EndOrder, Endings, Terms};

/// What all streams of a node share.
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
    /// The topics with streams here.
    pub hub: Arc<Hub>,
    /// The node's ear on the log.
    pub relay: Arc<Relay>,
    /// Shared reads of the log.
    pub replays: Replays,
    /// Entries that the log keeps of a topic at most.
    pub history_entries_max: u64,
    /// How streams are ended from outside.
    pub endings: Endings,
}

/// What a client asked for.
#[derive(Debug)]
pub struct Request {
    /// The topics, each once, in the order of the cursor; some may have to have a state.
    pub topics: Vec<RequestedTopic>,
    /// Where to start.
    pub start: StartAt,
    /// Open topics that have a state with a snapshot of it, and answer resets with one.
    pub snapshot: bool,
    /// Say the opening event by name, so that only those hear it who listen for it.
    pub named_connected: bool,
}

/// A topic that a stream shall carry.
#[derive(Debug, Clone)]
pub struct RequestedTopic {
    /// Its name.
    pub topic: Topic,
    /// It was asked for as something that has a state, such as a board, and must have one.
    pub must_have_state: bool,
}

/// Where a stream starts.
#[derive(Debug, Clone)]
pub enum StartAt {
    /// With what comes next.
    Now,
    /// With the oldest entry that is retained.
    Earliest,
    /// After the last event the client has seen.
    Resume(Cursor),
}
