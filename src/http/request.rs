//! What requests carry, read strictly. Everything that cannot be read becomes a [`Problem`].
//!
//! [`host`] reads whom a request is for, [`client`] from whom it is, [`query`] its parameters,
//! [`accept_encoding`] which encodings its sender understands, and [`body`] its JSON; names in paths
//! and the headers that a write may have are read here.

pub(super) mod accept_encoding;
pub(super) mod body;
pub(super) mod body_limit;
pub(super) mod client;
pub(super) mod cookie;
pub(super) mod host;
pub(super) mod query;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use super::problem::Problem;
use crate::log::{Conditions, IdempotencyKeyError};
use crate::position::PositionError;
use crate::topic::{Topic, TopicError};

pub(super) use body::Body;
pub(super) use query::Parameters;

/// The header that makes repeating a write safe.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the headers `Idempotency-Key` and `If-Match` ask of a write.
pub(super) struct Preconditions(pub(super) Conditions);

impl<S: Send + Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let idempotency_key = match only(&parts.headers, &IDEMPOTENCY_KEY)? {
            Some(key) => Some(key.parse().map_err(|error: IdempotencyKeyError| {
                Problem::bad_request(format!("Idempotency-Key: {error}"))
            })?),
            None => None,
        };
        let if_match = match only(&parts.headers, &header::IF_MATCH)? {
            Some(position) => Some(unquoted(position).parse().map_err(|_: PositionError| {
                Problem::bad_request("If-Match takes one position such as \"42-k3f9\"")
            })?),
            None => None,
        };
        Ok(Preconditions(Conditions { idempotency_key, if_match }))
    }
}

/// The value of a header that may come once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().unwrap_or_default());
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("{name} may be sent once only")));
    }
    Ok(value)
}

/// An entity tag without its quotes; a bare position is taken as it is.
fn unquoted(tag: &str) -> &str {
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

/// The one parameter of a path, as the name of a topic that may be new.
pub(super) struct TopicPath(pub(super) Topic);

impl<S: Send + Sync> FromRequestParts<S> for TopicPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = path(parts, state).await?;
        topic(&name).map(TopicPath)
    }
}

/// The one parameter of a path, as the id of something that must exist already. What cannot be
/// an id is not found, as any other id that nothing has.
pub(super) struct IdPath(pub(super) Topic);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path(parts, state).await?;
        let id = Topic::new(&id).map_err(|error| match error {
            // Not only can nothing have it: no browser can ask for it as it stands.
            TopicError::Dots => Problem::bad_request(error.to_string()),
            _ => Problem::not_found("nothing can have this id"),
        })?;
        Ok(IdPath(id))
    }
}

async fn path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
    path.map(|Path(text)| text).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

/// A topic's name from a request.
pub(super) fn topic(name: &str) -> Result<Topic, Problem> {
    Topic::new(name).map_err(|error| Problem::bad_request(error.to_string()))
}
