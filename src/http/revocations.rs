//! `POST /admin/revoke`, `DELETE /admin/revoke`: taking back what tokens grant.

use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::App;
use super::access::Administrator;
use super::problem::Problem;
use super::request::Body;
use super::request::body::Object;
use crate::access::revocations::{NotRevoked, REVOCATIONS_MAX, Whom};

/// Whose grants, and until when they stay taken back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Revocation {
    subject: Option<String>,
    token_id: Option<String>,
    expires_at: Option<String>,
}

impl Revocation {
    fn whom(&self) -> Result<Whom, Problem> {
        let whom = match (&self.subject, &self.token_id) {
            (Some(subject), None) => Whom::Subject(subject.clone()),
            (None, Some(id)) => Whom::TokenId(id.clone()),
            _ => return Err(Problem::bad_request("name either subject or tokenId")),
        };
        match &whom {
            Whom::Subject(name) | Whom::TokenId(name) if name.is_empty() => {
                Err(Problem::bad_request("nobody has an empty name"))
            }
            _ => Ok(whom),
        }
    }

    /// In seconds since 1970.
    fn until(&self) -> Result<Option<u64>, Problem> {
        let Some(text) = &self.expires_at else { return Ok(None) };
        let at: jiff::Timestamp = text.parse().map_err(|_| {
            Problem::bad_request("expiresAt must be a time such as 2026-01-31T12:00:00Z (RFC 3339)")
        })?;
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or(jiff::Timestamp::MIN);
        if at <= now {
            return Err(Problem::bad_request("expiresAt is over"));
        }
        // Rather a second too long.
        Ok(u64::try_from(at.as_second()).ok().map(|seconds| seconds.saturating_add(1)))
    }
}

pub(super) async fn revoke(
    State(app): State<App>,
    _: Administrator,
    Body(Object(revocation), _memory): Body<Object<Revocation>>,
) -> Result<StatusCode, Problem> {
    let (whom, until) = (revocation.whom()?, revocation.until()?);
    app.revocations.take_back(&whom, until).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn lift(
    State(app): State<App>,
    _: Administrator,
    Body(Object(revocation), _memory): Body<Object<Revocation>>,
) -> Result<StatusCode, Problem> {
    app.revocations.lift(&revocation.whom()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<NotRevoked> for Problem {
    fn from(why: NotRevoked) -> Problem {
        match why {
            NotRevoked::Full => Problem::new(
                StatusCode::CONFLICT,
                "too-many-revocations",
                "Too many revocations",
                format!(
                    "there are {REVOCATIONS_MAX} revocations, as many as there may be: revoke \
                     with an expiresAt, and lift those whose tokens have expired"
                ),
            ),
            NotRevoked::HereAlone(error) => Problem::try_later(
                "not-told-everywhere",
                "Not told everywhere",
                format!(
                    "this holds on this node from now on, and the other nodes are told of it as \
                     soon as that can be done: {error}"
                ),
            ),
        }
    }
}
