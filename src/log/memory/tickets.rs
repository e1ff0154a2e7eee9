//! [`Tickets`]: one-time tickets of one node.

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryLog;
use crate::log::{
    LogError, NewTicket, TicketBounds, TicketPut, TicketStore, TicketTaken, USED_KEPT,
    USED_TICKETS_MAX,
};

/// Tickets that wait, and those that were used.
///
/// Invariants: `owners` has the number of waiting tickets of each owner that has any; every used
/// ticket is in `used_order`.
#[derive(Default)]
pub(super) struct Tickets {
    waiting: HashMap<String, Waiting>,
    owners: HashMap<String, usize>,
    /// By the time at which they were used.
    used: HashMap<String, Instant>,
    /// The oldest first; some have been told since.
    used_order: VecDeque<(Instant, String)>,
}

struct Waiting {
    owner: String,
    content: String,
    over_at: Instant,
}

impl Tickets {
    fn put(&mut self, ticket: &NewTicket<'_>, bounds: TicketBounds) -> TicketPut {
        let is_full = |tickets: &Tickets| {
            let owned = tickets.owners.get(ticket.owner).copied().unwrap_or_default();
            match (owned >= bounds.per_owner_max, tickets.waiting.len() >= bounds.all_max) {
                (true, _) => Some(TicketPut::OwnerFull),
                (_, true) => Some(TicketPut::Full),
                _ => None,
            }
        };
        // Looked through only where it matters.
        if is_full(self).is_some() || self.waiting.len() == self.waiting.capacity() {
            self.forget_old();
        }
        if let Some(full) = is_full(self) {
            return full;
        }
        let waiting = Waiting {
            owner: ticket.owner.to_owned(),
            content: ticket.content.to_owned(),
            over_at: Instant::now() + ticket.lifetime,
        };
        if self.waiting.insert(ticket.digest.to_owned(), waiting).is_none() {
            *self.owners.entry(ticket.owner.to_owned()).or_default() += 1;
        }
        TicketPut::Waits
    }

    fn look_at(&self, digest: &str) -> Option<String> {
        let waiting = self.waiting.get(digest)?;
        (waiting.over_at > Instant::now()).then(|| waiting.content.clone())
    }

    fn take(&mut self, digest: &str, resumes: bool) -> TicketTaken {
        let now = Instant::now();
        if let Some(Waiting { owner, content, over_at }) = self.waiting.remove(digest) {
            self.disown(&owner);
            if over_at <= now {
                return TicketTaken::Unknown;
            }
            self.used.insert(digest.to_owned(), now);
            self.used_order.push_back((now, digest.to_owned()));
            self.forget_used(now);
            return TicketTaken::Content(content);
        }
        self.forget_used(now);
        match resumes && self.used.remove(digest).is_some() {
            true => TicketTaken::Used,
            false => TicketTaken::Unknown,
        }
    }

    fn disown(&mut self, owner: &str) {
        if let Some(owned) = self.owners.get_mut(owner) {
            *owned -= 1;
            if *owned == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// Forgets those whose time is over.
    fn forget_old(&mut self) {
        let now = Instant::now();
        let over = self.waiting.extract_if(|_, waiting| waiting.over_at <= now);
        let owners: Vec<String> = over.map(|(_, waiting)| waiting.owner).collect();
        owners.iter().for_each(|owner| self.disown(owner));
    }

    fn forget_used(&mut self, now: Instant) {
        while let Some((used_at, digest)) = self.used_order.front() {
            let is_old = now.duration_since(*used_at) >= USED_KEPT;
            if !is_old && self.used_order.len() <= USED_TICKETS_MAX {
                break;
            }
            self.used.remove(digest);
            self.used_order.pop_front();
        }
    }
}

#[async_trait]
impl TicketStore for MemoryLog {
    async fn put_ticket(
        &self,
        ticket: &NewTicket<'_>,
        bounds: TicketBounds,
    ) -> Result<TicketPut, LogError> {
        Ok(self.state().tickets.put(ticket, bounds))
    }

    async fn look_at_ticket(&self, digest: &str) -> Result<Option<String>, LogError> {
        Ok(self.state().tickets.look_at(digest))
    }

    async fn take_ticket(&self, digest: &str, resumes: bool) -> Result<TicketTaken, LogError> {
        Ok(self.state().tickets.take(digest, resumes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: TicketBounds = TicketBounds { per_owner_max: 2, all_max: 3 };

    fn put(tickets: &mut Tickets, digest: &str, owner: &str) -> TicketPut {
        let lifetime = Duration::from_secs(30);
        tickets.put(&NewTicket { digest, owner, content: digest, lifetime }, BOUNDS)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_good_once_and_that_it_was_is_told_once() {
        let mut tickets = Tickets::default();
        assert_eq!(put(&mut tickets, "a", "o"), TicketPut::Waits);
        assert_eq!(tickets.take("b", true), TicketTaken::Unknown);
        assert_eq!([tickets.look_at("a"), tickets.look_at("b")], [Some("a".to_owned()), None]);
        assert_eq!(tickets.take("a", true), TicketTaken::Content("a".to_owned()));
        assert_eq!(tickets.look_at("a"), None);
        assert_eq!(tickets.take("a", false), TicketTaken::Unknown);
        assert_eq!(tickets.take("a", true), TicketTaken::Used);
        assert_eq!(tickets.take("a", true), TicketTaken::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_are_few_and_go_away_by_themselves() {
        let mut tickets = Tickets::default();
        assert_eq!(put(&mut tickets, "a", "o"), TicketPut::Waits);
        assert_eq!(put(&mut tickets, "b", "o"), TicketPut::Waits);
        assert_eq!(put(&mut tickets, "c", "o"), TicketPut::OwnerFull);
        assert_eq!(put(&mut tickets, "c", "p"), TicketPut::Waits);
        assert_eq!(put(&mut tickets, "d", "q"), TicketPut::Full);
        assert_eq!(tickets.take("a", false), TicketTaken::Content("a".to_owned()));
        assert_eq!(put(&mut tickets, "d", "o"), TicketPut::Waits);
        assert!(tickets.look_at("d").is_some());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(tickets.look_at("d"), None);
        assert_eq!(tickets.take("d", true), TicketTaken::Unknown);
        for digest in ["e", "f"] {
            assert_eq!(put(&mut tickets, digest, "o"), TicketPut::Waits);
        }
        assert_eq!(tickets.waiting.len(), 2);
        assert_eq!(tickets.owners, HashMap::from([("o".to_owned(), 2)]));
    }

    #[tokio::test(start_paused = true)]
    async fn of_used_tickets_the_newest_are_remembered_and_none_for_ever() {
        let mut tickets = Tickets::default();
        for n in 0..=USED_TICKETS_MAX {
            put(&mut tickets, &n.to_string(), "o");
            tickets.take(&n.to_string(), false);
        }
        assert_eq!(tickets.used.len(), USED_TICKETS_MAX);
        assert_eq!(tickets.take("0", true), TicketTaken::Unknown);
        assert_eq!(tickets.take("1", true), TicketTaken::Used);
        tokio::time::advance(USED_KEPT).await;
        assert_eq!(tickets.take("2", true), TicketTaken::Unknown);
        assert!(tickets.used.is_empty() && tickets.used_order.is_empty());
    }
}
