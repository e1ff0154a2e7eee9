//! [`StreamCaller`]: who opens a stream, where they may have shown a ticket.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};

use super::super::App;
use super::super::problem::Problem;
use super::super::request::query;
use super::revoked::check_not_revoked;
use super::{Caller, Credential, account};
use crate::access::tickets::Redeemed;
use crate::access::{Access, Refused};
use crate::admission::client::Client;
use crate::telemetry::metric;

/// The parameter that has a ticket.
const TICKET: &str = "ticket";

/// Who opens a stream.
pub(in crate::http) enum StreamCaller {
    /// Somebody who has shown a token, or needs none.
    Known(Caller),
    /// Somebody who has a ticket, of which nobody knows yet what it is worth.
    Ticket(ShownTicket),
}

/// The ticket in the address of a stream.
#[derive(Clone)]
pub(in crate::http) struct ShownTicket(String);

impl ShownTicket {
    /// That of this request on a known path, if it asks for a stream and has one. Elsewhere it is a parameter like any
    /// other that is not known.
    pub(super) fn of(access: &Access, path: &str, request: &Request) -> Option<ShownTicket> {
        let opens_a_stream = request.method() == Method::GET && path.ends_with("/events");
        if !opens_a_stream || !access.is_configured() {
            return None;
        }
        query::parameter(request.uri(), TICKET).map(ShownTicket)
    }

    /// Who has it, of whom everything is asked that could refuse their stream, before it is
    /// [used](ShownTicket::redeem). `resumes` says that a position came with it. `None` if it was used
    /// before, and that has to be told.
    ///
    /// # Errors
    /// 401 if it is worth nothing, 503 if nobody can say.
    pub(in crate::http) async fn caller(
        &self,
        app: &App,
        client: Client,
        resumes: bool,
    ) -> Result<Option<Caller>, Problem> {
        let Some(grant) = app.tickets.look(&self.0).await?.map(Arc::new) else {
            self.redeem(app, resumes).await?;
            return Ok(None);
        };
        if grant.is_over(SystemTime::now()) {
            metric::ticket("worthless");
            return Err(Refused::Expired.into());
        }
        check_not_revoked(app, &grant).await.inspect_err(|_| metric::ticket("worthless"))?;
        let account = account(app, &grant, client);
        Ok(Some(Caller { grant, by: Credential::Ticket, account }))
    }

    /// Uses it up: of all who come with it, one has the stream. False if it was used before, and that
    /// has to be told.
    ///
    /// # Errors
    /// As [`ShownTicket::caller`].
    pub(in crate::http) async fn redeem(&self, app: &App, resumes: bool) -> Result<bool, Problem> {
        match app.tickets.redeem(&self.0, resumes).await? {
            Redeemed::Grant(_) => {
                metric::ticket("used");
                Ok(true)
            }
            Redeemed::Used => {
                metric::ticket("worthless");
                Ok(false)
            }
            Redeemed::Nothing => {
                metric::ticket("worthless");
                Err(no_such_ticket())
            }
        }
    }
}

/// 401: it was never good, or is not any more.
fn no_such_ticket() -> Problem {
    metric::access_refused("ticket");
    let detail = "the ticket is not good, or not any more: get a new one".to_owned();
    let status = StatusCode::UNAUTHORIZED;
    let problem = Problem::new(status, "unauthorized", "Unauthorized", detail);
    problem.with_header(&["www-authenticate", "Bearer"])
}

impl<S: Send + Sync> FromRequestParts<S> for StreamCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<ShownTicket>() {
            Some(ticket) => Ok(StreamCaller::Ticket(ticket.clone())),
            None => Caller::from_request_parts(parts, state).await.map(StreamCaller::Known),
        }
    }
}
