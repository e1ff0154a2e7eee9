//! `POST /tickets`: something for the address of a stream in the place of a token.

use std::collections::VecDeque;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::access::Caller;
use super::problem::Problem;
use crate::access::tickets::NoTicket;
use crate::said::EndReason;
use crate::stream::session;
use crate::telemetry::metric;
use crate::wire::Wire;

/// Answers with a ticket for the grant of the token that was shown.
pub(super) async fn issue(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Issued<'a> {
        ticket: &'a str,
        expires_at: String,
    }
    let grant = caller.of_a_token(&app.access)?;
    let ticket = app.tickets.issue(grant).await.inspect_err(|_| metric::ticket("refused"))?;
    metric::ticket("issued");
    let over_at = SystemTime::now() + app.tickets.lifetime();
    let over_at = jiff::Timestamp::try_from(over_at).unwrap_or(jiff::Timestamp::MAX);
    let token_over_at = grant.expires_at.and_then(|at| i64::try_from(at).ok());
    let token_over_at = token_over_at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let over_at = token_over_at.map_or(over_at, |at| at.min(over_at));
    let issued = Issued { ticket: ticket.text(), expires_at: format!("{over_at:.3}") };
    let mut response = (StatusCode::CREATED, crate::json::to_text(&issued)).into_response();
    for (name, value) in
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The stream of a ticket that was used before: its end. A browser that comes back by itself with the
/// old address would otherwise get a status that tells the page nothing.
pub(super) fn goodbye_of_ticket(app: &App) -> Response {
    let said = session::goodbye(EndReason::TicketUsed, app.node.retry);
    let mut parts = VecDeque::new();
    Wire::Sse { named_heartbeat: false }.encode(&said, &mut parts);
    let text: Vec<u8> = parts.into_iter().flatten().collect();
    let mut response = text.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl From<NoTicket> for Problem {
    fn from(why: NoTicket) -> Problem {
        match why {
            NoTicket::SubjectFull => Problem::too_many(
                "too-many-tickets",
                "Too many tickets",
                "as many tickets of this subject wait to be used as may".to_owned(),
            ),
            NoTicket::Full => Problem::try_later(
                "too-many-tickets",
                "Too many tickets",
                "as many tickets wait to be used as may".to_owned(),
            ),
            NoTicket::Log(error) => error.into(),
            NoTicket::Broken => Problem::try_later(
                "no-ticket",
                "No ticket",
                "this node cannot make tickets now".to_owned(),
            ),
        }
    }
}
