//! [`Log`]: where entries live, and the promise that both backends keep.
//!
//! [`http`](crate::http) appends to it; the [`relay`](crate::relay) listens to its announcements
//! and reads from it. [`memory`] keeps it in this process, for one node; [`redis`] shares it
//! between all nodes. [`gateway`](crate::gateway) chooses one; whoever uses it knows it only by the
//! promises below.
//!
//! The log is the truth, an announcement is only a hint: a backend may lose, repeat or delay
//! announcements, but what it has acknowledged it returns from [`Log::read`].
//!
//! A backend is more than a log, and each part is a promise of its own, known to those alone who
//! need it: [`Snapshots`] of topics that have a state, which an application keeps (the task board's
//! own promise is [`board::Boards`](crate::board::Boards)), the [`Catalogue`] of all topics, the
//! [`Registry`] of nodes, the
//! [`RevocationStore`] and the [`TicketStore`] for those who control access, and the [`Probe`] for
//! those who watch over it.

mod catalogue;
mod conditions;
pub mod memory;
mod notifier;
pub mod redis;
mod registry;
mod revocations;
mod tickets;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::entry::{Entry, Event};
use crate::frame::pieces::Pieces;
use crate::position::{Epoch, LogHistory, Position};
use crate::topic::Topic;

pub use catalogue::{CATALOGUE_PAGE_MAX, Catalogue, CataloguePage, Deleted, TopicSummary};
pub use conditions::{Conditions, IdempotencyKey, IdempotencyKeyError};
pub(crate) use notifier::Notifier;
pub use notifier::{INBOX_BYTES_MAX, INBOX_ENTRIES_MAX, Notification, Notifications};
pub use registry::{NodeTotals, Published, Registry, StatsUpdate, TopicStreams};
pub use revocations::{
    ListVersion, RevocationPage, RevocationRecord, RevocationState, RevocationStore,
    RevocationsPut, RevokedKey,
};
pub use tickets::{
    NewTicket, TicketBounds, TicketPut, TicketStore, TicketTaken, USED_KEPT, USED_TICKETS_MAX,
};

/// How many entries one [`Log::read`] returns at most.
pub const READ_ENTRIES_MAX: usize = 256;

/// About how many bytes one [`Log::read`] returns at most; a single larger entry is still
/// returned.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// Where events were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The position of the last one; the others are right before it.
    pub last: Position,
    /// Whether that happened before, when the same request came with the same idempotency key.
    pub replayed: bool,
}

/// A stretch of a log, read in one atomic step.
#[derive(Debug, Clone)]
pub struct Page {
    /// The log at the moment of reading.
    pub history: LogHistory,
    /// Entries in order, without a hole.
    pub entries: Vec<Entry>,
}

/// A topic as a subscriber finds it.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The log at the moment of opening.
    pub history: LogHistory,
    /// Whether the topic has a state beside its log (see [`Snapshots`]).
    pub has_state: bool,
}

/// How far the logs of some topics have got.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Epoch and head of each, `None` for those without a log; of one of which something is missing,
    /// what no tail has.
    pub of_topics: Vec<Option<(Epoch, u64)>>,
    /// Of each, milliseconds since 1970: whoever found it without a log before may have missed one,
    /// and opens it again. Means nothing for those with a log.
    pub unwritten_since: Vec<u64>,
}

/// The whole state of a topic, read in one atomic step. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The position it is exact for.
    pub position: Position,
    /// The state as JSON on one line.
    pub json: Bytes,
    /// What is made of it for streams that are compressed, if that is kept.
    pub pieces: Option<Arc<Pieces>>,
}

/// A topic that was asked for by its state has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoState;

/// How a log currently does, for readiness and operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Commands and announcements go through.
    Up,
    /// They do not, for this reason.
    Down(String),
    /// They never will: the node must stop and say so.
    Unusable(String),
}

/// Why a log did not do what it was asked.
#[derive(Debug, Clone)]
pub enum LogError {
    /// Not done, and surely not: the log cannot be reached or does not accept writes now.
    Unavailable(String),
    /// Perhaps done: the answer did not come in time, or is none that surely means no.
    OutcomeUnknown(String),
    /// Not done: events of this type come from changes of the topic's state alone.
    ReservedEventType,
    /// Not done: the topic has a state, and this would leave that without its past.
    HasState,
    /// Not done: the head is here, and not where [`Conditions::if_match`] wants it.
    PreconditionFailed(Position),
    /// Not done: the idempotency key belongs to another request.
    KeyReused,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Unavailable(reason) => write!(f, "the log is unavailable: {reason}"),
            LogError::OutcomeUnknown(reason) => write!(f, "the log did not answer: {reason}"),
            LogError::ReservedEventType => f.write_str("the event type is reserved"),
            LogError::HasState => f.write_str("the topic has a state"),
            LogError::PreconditionFailed(head) => write!(f, "the head of the log is {head}"),
            LogError::KeyReused => f.write_str("the idempotency key is of another request"),
        }
    }
}

impl std::error::Error for LogError {}

/// Named, ordered, append-only logs.
///
/// After any `Err` but [`LogError::OutcomeUnknown`] nothing has changed that a reader could see.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Appends events (at least one), in order and as one atomic step, and announces them. When it
    /// returns `Ok`, the entries are in the log, every later [`Log::read`] on any node
    /// includes them until they are trimmed, and the seq of each is one more than that of the
    /// entry before. The conditions are looked at in the same step.
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError>;

    /// Finds the topic's log. Where there is none, none is made: nothing grows in the log by being
    /// watched, and the [history](LogHistory::unwritten) has an epoch all the same, so that a
    /// subscriber has a position to resume from.
    async fn open(&self, topic: &Topic) -> Result<Opened, LogError>;

    /// Reads the entries with a seq in `after + 1 ..= through` that are still retained, at most
    /// [`READ_ENTRIES_MAX`] and about [`READ_BYTES_MAX`], together with the history at the same
    /// moment. `None` if something of the log is missing, and it has to be opened anew.
    async fn read(&self, topic: &Topic, after: u64, through: u64)
    -> Result<Option<Page>, LogError>;

    /// What the topic's log is now, without any of its entries. `None` as for [`Log::read`].
    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError>;

    /// Epoch and head of each of `topics`. Cheap: meant to be asked for all subscribed topics every
    /// few seconds.
    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError>;

    /// Keeps the history of `topics` from expiring while somebody is subscribed to them.
    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError>;

    /// From its return on, entries appended to `topics` are announced to this node. Read the log
    /// *after* it to miss nothing in between.
    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError>;

    /// Ends the announcements for `topics`.
    async fn unsubscribe(&self, topics: &[Topic]);
}

/// Topics with a state beside their log: an application keeps it, changes it together with the
/// log in one atomic step, and each entry tells of one change. Streams can begin with the state.
#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// Whether all of these topics have a state. Makes none, except what a new installation has
    /// from the beginning, if it is asked for before it could be made.
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError>;

    /// The state of one topic; `None` if it has none.
    async fn snapshot(&self, topic: &Topic) -> Result<Option<Snapshot>, LogError>;
}

/// How the backend does.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Sends a canary the way of an announcement; `Ok` when it was heard again by this node's
    /// own subscription.
    async fn canary(&self) -> Result<(), LogError>;

    /// Whether commands and announcements go through.
    fn health(&self) -> Health;

    /// What it is: `redis` or `embedded`.
    fn name(&self) -> &'static str;

    /// The log's clock now, in milliseconds since 1970, as far as this node can tell; `None`
    /// before it could. Entries carry times of this clock, so that a node whose own clock is
    /// wrong still measures delivery right.
    fn now_milliseconds(&self) -> Option<u64>;
}

/// How much history a log keeps.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Entries kept per topic, at least 1.
    pub history_entries_max: usize,
    /// Bytes of text kept per topic, at least twice [`TAIL_BYTES_MAX`](crate::hub::tail::TAIL_BYTES_MAX):
    /// also where a sixteenth more is removed than must be, a node's tail has nothing that the log
    /// has not. The newest entry is kept however large it is.
    pub history_bytes_max: usize,
    /// An idle topic expires after this time.
    pub history_ttl: std::time::Duration,
    /// What a request with an idempotency key was answered is kept at least this long.
    pub idempotency_window: std::time::Duration,
}
