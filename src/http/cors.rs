//! Which answers pages of other origins may read (CORS), and what they are told when they ask first.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header, request};
use tower_http::cors::{AllowCredentials, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use super::IDEMPOTENT_REPLAYED;
use super::door::Door;
use super::request::IDEMPOTENCY_KEY;
use super::streams::LAST_EVENT_ID;
use crate::config::CorsOrigins;

/// How long a browser need not ask again. Two hours are as long as the one with the shortest memory
/// keeps it.
const MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// What pages may send beside what they may send anyway. `EventSource` libraries built on `fetch`
/// send the last two of their own accord.
const REQUEST_HEADERS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    header::IF_MATCH,
    LAST_EVENT_ID,
    header::CACHE_CONTROL,
];

/// Answers preflights, and says on every other answer who may read it. Nothing is taken from the
/// request but an origin that is listed.
pub(super) fn layer(door: &Arc<Door>) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers([LAST_EVENT_ID, header::LOCATION, header::RETRY_AFTER, IDEMPOTENT_REPLAYED])
        .max_age(MAX_AGE);
    if *door.origins() == CorsOrigins::Any {
        // A page of the public internet that reaches into somebody's own network has to be named.
        return layer.allow_origin(AllowOrigin::any());
    }
    let is_listed = |door: &Arc<Door>| {
        let door = door.clone();
        move |origin: &HeaderValue, _: &request::Parts| door.lists(origin)
    };
    layer
        .allow_origin(AllowOrigin::predicate(is_listed(door)))
        .allow_credentials(AllowCredentials::predicate(is_listed(door)))
        .allow_private_network(AllowPrivateNetwork::predicate(is_listed(door)))
}
