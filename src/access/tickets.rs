//! [`Tickets`]: what stands for a token in the address of one stream, once and for seconds.
//!
//! An `EventSource` sends no header of its own, and no cookie to another site; a token in an address
//! would stand in every log on the way for as long as it is good. So whoever has a token gets a
//! ticket for it (`POST /tickets`), and a stream that is opened with the ticket has the token's
//! grant. Nobody keeps the text of a ticket: the [`TicketStore`] knows its digest.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};

use super::grant::Grant;
use super::revocations::subject_key;
use crate::log::{LogError, NewTicket, TicketBounds, TicketPut, TicketStore, TicketTaken};

/// How many tickets wait to be used at most: it takes one round trip to use one, so that even of
/// clients that all come back at once few wait. One is as large as the grant that it stands for.
pub const BOUNDS: TicketBounds = TicketBounds { per_owner_max: 200, all_max: 20_000 };

/// Random bytes of a ticket.
const RANDOM_BYTES: usize = 32;

/// A ticket, which is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(String);

impl Ticket {
    /// Its text, for whoever asked for it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// It is in no log line.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// Why there is no ticket.
#[derive(Debug, Clone)]
pub enum NoTicket {
    /// As many of this subject wait as may.
    SubjectFull,
    /// As many wait as may.
    Full,
    /// The store did not do it.
    Log(LogError),
    /// The system gives no random bytes, or the grant has no text.
    Broken,
}

/// What somebody has who comes with a ticket.
#[derive(Debug, Clone)]
pub enum Redeemed {
    /// This grant, of which it is to be seen whether it is worth something still.
    Grant(Box<Grant>),
    /// The ticket was used before, and nobody has been told so yet.
    Used,
    /// Nothing.
    Nothing,
}

/// Gives tickets out, and takes them.
pub struct Tickets {
    store: Arc<dyn TicketStore>,
    lifetime: Duration,
}

impl Tickets {
    /// Each is good for this long.
    pub fn new(store: Arc<dyn TicketStore>, lifetime: Duration) -> Tickets {
        Tickets { store, lifetime }
    }

    /// How long a ticket is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new ticket for whoever has this grant.
    ///
    /// # Errors
    /// When there is none, and why.
    pub async fn issue(&self, grant: &Grant) -> Result<Ticket, NoTicket> {
        let mut random = [0; RANDOM_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| NoTicket::Broken)?;
        let ticket = Ticket(hexadecimal(&random));
        let content = serde_json::to_string(grant).map_err(|_| NoTicket::Broken)?;
        let owner = grant.subject.as_deref().map(subject_key).or(grant.digest);
        let new = NewTicket {
            digest: &digest_of(&ticket.0),
            owner: &owner.map_or_else(|| "-".to_owned(), |owner| hexadecimal(&owner)),
            content: &content,
            lifetime: self.lifetime,
        };
        match self.store.put_ticket(&new, BOUNDS).await.map_err(NoTicket::Log)? {
            TicketPut::Waits => Ok(ticket),
            TicketPut::OwnerFull => Err(NoTicket::SubjectFull),
            TicketPut::Full => Err(NoTicket::Full),
        }
    }

    /// The grant of a ticket that has not been used; it is still good.
    ///
    /// # Errors
    /// When nobody can say.
    pub async fn look(&self, text: &str) -> Result<Option<Grant>, LogError> {
        if !can_be_one(text) {
            return Ok(None);
        }
        let content = self.store.look_at_ticket(&digest_of(text)).await?;
        Ok(content.and_then(|content| serde_json::from_str(&content).ok()))
    }

    /// Takes a ticket. `resumes` says that whoever comes has had a stream before.
    ///
    /// # Errors
    /// When nobody can say what it is worth.
    pub async fn redeem(&self, text: &str, resumes: bool) -> Result<Redeemed, LogError> {
        if !can_be_one(text) {
            return Ok(Redeemed::Nothing);
        }
        Ok(match self.store.take_ticket(&digest_of(text), resumes).await? {
            TicketTaken::Content(content) => match serde_json::from_str(&content) {
                Ok(grant) => Redeemed::Grant(Box::new(grant)),
                // Nodes of other versions write other grants.
                Err(_) => Redeemed::Nothing,
            },
            TicketTaken::Used => Redeemed::Used,
            TicketTaken::Unknown => Redeemed::Nothing,
        })
    }
}

/// What cannot be a ticket is not looked for.
fn can_be_one(text: &str) -> bool {
    let is_lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 2 * RANDOM_BYTES && text.bytes().all(is_lower)
}

fn digest_of(text: &str) -> String {
    hexadecimal(digest::digest(&SHA256, text.as_bytes()).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Retention;
    use crate::log::memory::MemoryLog;

    fn tickets() -> Tickets {
        let retention = Retention {
            history_entries_max: 1,
            history_bytes_max: usize::MAX,
            history_ttl: Duration::from_secs(1),
            idempotency_window: Duration::from_secs(1),
        };
        Tickets::new(Arc::new(MemoryLog::new(retention).0), Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_stands_for_its_grant_once() {
        let tickets = tickets();
        let mut grant = Grant::read_only();
        grant.subject = Some("alice".to_owned());
        let [first, second] = [tickets.issue(&grant).await, tickets.issue(&grant).await];
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first, second);
        assert_eq!(first.text().len(), 64);
        assert_eq!(format!("{first:?}"), "Ticket");
        let redeemed = tickets.redeem(first.text(), false).await.unwrap();
        assert!(matches!(redeemed, Redeemed::Grant(redeemed) if *redeemed == grant));
        let again = tickets.redeem(first.text(), false).await.unwrap();
        assert!(matches!(again, Redeemed::Nothing));
        assert!(matches!(tickets.redeem(first.text(), true).await, Ok(Redeemed::Used)));
        for wrong in ["", "x", &first.text().to_uppercase(), &second.text()[1..]] {
            assert!(matches!(tickets.redeem(wrong, true).await, Ok(Redeemed::Nothing)), "{wrong}");
        }
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(matches!(tickets.redeem(second.text(), true).await, Ok(Redeemed::Nothing)));
    }
}
