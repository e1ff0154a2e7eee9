//! One-time tickets in Redis: a string each, which goes away by itself, and sorted sets that count
//! those that wait.

use async_trait::async_trait;

use super::RedisLog;
use super::scripts::{self, Call};
use crate::log::{
    LogError, NewTicket, TicketBounds, TicketPut, TicketStore, TicketTaken, USED_KEPT,
    USED_TICKETS_MAX,
};

#[async_trait]
impl TicketStore for RedisLog {
    async fn put_ticket(
        &self,
        ticket: &NewTicket<'_>,
        bounds: TicketBounds,
    ) -> Result<TicketPut, LogError> {
        let NewTicket { digest, owner, content, lifetime } = ticket;
        let owners = format!("{}{owner}", self.owned_tickets());
        let keys = [self.ticket(digest), self.waiting_tickets(), owners];
        let call = Call::new(&scripts::TICKET_PUT, &keys)
            .arg(*digest)
            .arg(*owner)
            .arg(*content)
            .arg(lifetime.as_millis() as u64)
            .arg(bounds.per_owner_max)
            .arg(bounds.all_max);
        let answer: String = self.commands.call(call).await?;
        match &*answer {
            "ok" => Ok(TicketPut::Waits),
            "owner" => Ok(TicketPut::OwnerFull),
            "all" => Ok(TicketPut::Full),
            _ => Err(unreadable()),
        }
    }

    async fn look_at_ticket(&self, digest: &str) -> Result<Option<String>, LogError> {
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg(self.ticket(digest));
        let (waiting,): (Option<String>,) = self.commands.pipe("get", &pipe).await?;
        // Behind its owner.
        Ok(waiting.and_then(|waiting| Some(waiting.split_once(' ')?.1.to_owned())))
    }

    async fn take_ticket(&self, digest: &str, resumes: bool) -> Result<TicketTaken, LogError> {
        let used = self.keys.shared("tickets:used");
        let keys = [self.ticket(digest), self.waiting_tickets(), used];
        let call = Call::new(&scripts::TICKET_TAKE, &keys)
            .arg(digest)
            .arg(self.owned_tickets())
            .arg(i32::from(resumes))
            .arg(USED_KEPT.as_millis() as u64)
            .arg(USED_TICKETS_MAX);
        let answer: Vec<String> = self.commands.call(call).await?;
        match &answer[..] {
            [word, content] if word == "content" => Ok(TicketTaken::Content(content.clone())),
            [word] if word == "used" => Ok(TicketTaken::Used),
            [word] if word == "unknown" => Ok(TicketTaken::Unknown),
            _ => Err(unreadable()),
        }
    }
}

impl RedisLog {
    fn ticket(&self, digest: &str) -> String {
        self.keys.shared(&format!("ticket:{digest}"))
    }

    fn waiting_tickets(&self) -> String {
        self.keys.shared("tickets")
    }

    /// What the keys of one owner's tickets begin with.
    fn owned_tickets(&self) -> String {
        self.keys.shared("tickets:of:")
    }
}

fn unreadable() -> LogError {
    LogError::OutcomeUnknown("a script did not answer what became of a ticket".to_owned())
}
