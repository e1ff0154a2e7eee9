//! [`TicketStore`]: one-time tickets that wait to be used, on whichever node.

use std::time::Duration;

use async_trait::async_trait;

use super::LogError;

/// A ticket that somebody was given.
#[derive(Debug, Clone)]
pub struct NewTicket<'a> {
    /// The digest of its text, in visible characters: the text itself is kept nowhere.
    pub digest: &'a str,
    /// Whose it is, in visible characters: those of one owner have a bound.
    pub owner: &'a str,
    /// What it stands for.
    pub content: &'a str,
    /// How long it waits.
    pub lifetime: Duration,
}

/// How many tickets may wait.
#[derive(Debug, Clone, Copy)]
pub struct TicketBounds {
    /// Those of one owner.
    pub per_owner_max: usize,
    /// All together.
    pub all_max: usize,
}

/// What became of a new ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketPut {
    /// It waits.
    Waits,
    /// As many of its owner wait as may.
    OwnerFull,
    /// As many wait as may.
    Full,
}

/// What a ticket was worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketTaken {
    /// This, and from now on nothing.
    Content(String),
    /// It was used before. Told once, to a client that resumes.
    Used,
    /// Nothing: there never was such a ticket, its time is over, or it was told already.
    Unknown,
}

/// How long it is remembered that a ticket was used, and of how many: the newest.
pub const USED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// See [`USED_KEPT`]; some 150 bytes each.
pub const USED_TICKETS_MAX: usize = 100_000;

/// Tickets that wait.
#[async_trait]
pub trait TicketStore: Send + Sync + 'static {
    /// Has a ticket wait until somebody takes it, or its lifetime is over.
    async fn put_ticket(
        &self,
        ticket: &NewTicket<'_>,
        bounds: TicketBounds,
    ) -> Result<TicketPut, LogError>;

    /// What a ticket stands for that waits; it still does.
    async fn look_at_ticket(&self, digest: &str) -> Result<Option<String>, LogError>;

    /// Takes a ticket: of all who come with it, one gets its content. `resumes` says that whoever
    /// comes has had a stream before, and may have to be told that the ticket is used.
    async fn take_ticket(&self, digest: &str, resumes: bool) -> Result<TicketTaken, LogError>;
}
