//! [`Counts`]: the sums of a check.

/// Sums over the whole check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Events that were sent at least once.
    pub sent: u64,
    /// Events that were answered with a position.
    pub acknowledged: u64,
    /// Events that no answer came for until the end.
    pub unknown: u64,
    /// Events that were refused for good.
    pub refused: u64,
    /// Times an event was sent again.
    pub retries: u64,
    /// Entries that came on streams, over all subscribers.
    pub delivered: u64,
    /// Streams that were answered 200, over all subscribers.
    pub connections: u64,
    /// Of these, those over HTTP/2.
    pub http_2_connections: u64,
    /// Streams that ended without the subscriber's doing, could not be opened, or were refused for now.
    pub drops: u64,
    /// Of these, streams on which nothing came for too long.
    pub silent_streams: u64,
    /// Streams that their subscriber left in order to come back elsewhere.
    pub roams: u64,
    /// Resets, over all subscribers and topics.
    pub resets: u64,
    /// Resets after which the log did not have the client's position and all after it.
    pub resets_justified: u64,
    /// Resets after which it did.
    pub resets_spurious: u64,
    /// Resets about which the log could not be asked.
    pub resets_unjudged: u64,
    /// Events that got a second position in the same log.
    pub duplicate_appends: u64,
    /// Events that got a second position after the log had lost the first; counted at the end.
    pub republished_after_loss: u64,
    /// Deliveries of acknowledged events that are missing, and nobody said so.
    pub lost_in_silence: u64,
    /// Deliveries of acknowledged events that are missing, and a reset said so.
    pub lost_and_told: u64,
    /// Deliveries of events that were trimmed while a subscriber that joined after them was opening
    /// its stream from the earliest on, and that it was told of: no violation.
    pub too_old: u64,
    /// Deliveries of acknowledged events that are missing because the log lost them before.
    pub lost_by_log: u64,
    /// Violations, with those beyond [`VIOLATIONS_MAX`](super::VIOLATIONS_MAX).
    pub violations: u64,
}
