//! [`Said`]: everything that a stream can say, as values.
//!
//! [`stream`](crate::stream) decides which of them comes next, [`wire`](crate::wire) turns them into
//! bytes, [`net`](crate::net) carries those. Nothing here knows how any of it looks on a wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::frame::Frame;
use crate::frame::pieces::Pieces;
use crate::position::{LogHistory, Position, Verdict};

/// One thing that a stream says.
#[derive(Debug, Clone)]
pub enum Said {
    /// When to come back after a break. Said first, before the topics are known to be open.
    Retry(Duration),
    /// The topics are open, and the stream stands here.
    Opened {
        /// Where it stands, as the client shall give it back.
        cursor: String,
        /// The node that carries the stream.
        node: String,
        /// Whether it is said by name, so that only those hear it who listen for it.
        named: bool,
    },
    /// The next entry of a topic.
    Entry {
        /// The entry.
        frame: Frame,
        /// Where the stream stands with it, if it has several topics. With one topic that is the
        /// entry's own position.
        cursor: Option<String>,
    },
    /// The thread of a topic was lost.
    Reset {
        /// What is told of it.
        reset: Reset,
        /// Where the stream goes on; absent if a snapshot will say that.
        cursor: Option<String>,
    },
    /// The whole state of a topic.
    Snapshot {
        /// Where the stream stands with it.
        cursor: String,
        /// The state as JSON on one line, shared with everybody who asked at the same time.
        state: Bytes,
        /// What is made of it for streams that are compressed, if that is kept.
        pieces: Option<Arc<Pieces>>,
    },
    /// Nothing happened, and the stream lives.
    Heartbeat,
    /// The last thing said on a stream that the node ends.
    Goodbye {
        /// Why it ends, and with it [whether it makes sense](EndReason::may_come_back) to come back.
        reason: EndReason,
        /// When to come back. Where from, the client knows: each thing said before told it.
        retry: Duration,
    },
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client went away.
    Client,
    /// The client takes no bytes, or too few.
    Stalled,
    /// The node stops.
    Drain,
    /// It has lasted as long as streams may (`FANTAIL_MAX_STREAM_AGE`).
    Age,
    /// What it was granted has ended.
    Expired,
    /// The same of a stream that was opened with a ticket, whose address is worth nothing by now.
    TicketExpired,
    /// What it was granted was taken back.
    Revoked,
    /// The ticket of its address was used before.
    TicketUsed,
    /// A state that was asked for does not exist.
    NoState,
    /// Serving it went wrong in a way that only a mistake of ours explains.
    Fault,
}

/// What a client sees of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndManner {
    /// The response ends as a whole one.
    Clean,
    /// The transfer breaks: a client that takes a clean end for success must not see one.
    Broken,
}

impl EndReason {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Client => "client",
            EndReason::Stalled => "stalled",
            EndReason::Drain => "drain",
            EndReason::Age => "age",
            EndReason::Expired | EndReason::TicketExpired => "expired",
            EndReason::Revoked => "revoked",
            EndReason::TicketUsed => "ticket",
            EndReason::NoState => "no_state",
            EndReason::Fault => "fault",
        }
    }

    /// Whether it makes sense to open the same address again, perhaps with a new token.
    pub fn may_come_back(self) -> bool {
        !matches!(
            self,
            EndReason::NoState
                | EndReason::Revoked
                | EndReason::TicketExpired
                | EndReason::TicketUsed
        )
    }

    /// Whether it is because of the terms that the stream ran on, which is told on the stream.
    pub fn is_of_terms(self) -> bool {
        matches!(
            self,
            EndReason::Expired
                | EndReason::TicketExpired
                | EndReason::Revoked
                | EndReason::TicketUsed
        )
    }
}

/// Why a stream cannot go on without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetReason {
    /// Entries after the client's position are no longer retained.
    Trimmed,
    /// Somebody deleted everything that there was.
    Deleted,
    /// What the client has seen was lost, or belongs to another incarnation of the log.
    Lost,
    /// The client's id is no position.
    Unreadable,
}

impl ResetReason {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::Trimmed => "trimmed",
            ResetReason::Deleted => "deleted",
            ResetReason::Lost => "lost",
            ResetReason::Unreadable => "unreadable",
        }
    }

    /// The reason a verdict gives, if it calls for a reset.
    pub fn of(verdict: Verdict) -> Option<ResetReason> {
        match verdict {
            Verdict::Continues => None,
            Verdict::Trimmed => Some(ResetReason::Trimmed),
            Verdict::Deleted => Some(ResetReason::Deleted),
            Verdict::Lost => Some(ResetReason::Lost),
        }
    }
}

/// What a reset tells, as it stands on the wire and in a page of history (`docs/api.md`). Ids are
/// texts of positions.
#[derive(Debug, Clone, Serialize)]
pub struct Reset {
    /// Which topic lost its thread.
    pub topic: String,
    /// Why.
    pub reason: ResetReason,
    /// Where the client said it was.
    pub from: String,
    /// The oldest entry that can still be read; null when none can.
    pub oldest: Option<String>,
    /// The newest entry.
    pub head: String,
}

impl Reset {
    /// Tells that `from`, as the client said it, cannot be continued in the log of `topic`.
    pub fn new(topic: &str, reason: ResetReason, from: String, history: &LogHistory) -> Reset {
        let any = history.oldest <= history.head;
        let at = |seq| -> Position { history.at(seq) };
        Reset {
            topic: topic.to_owned(),
            reason,
            from,
            oldest: any.then(|| at(history.oldest).to_string()),
            head: at(history.head).to_string(),
        }
    }
}
