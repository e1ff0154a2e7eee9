//! All targets. One more is a file here, its line in [`TARGETS`], and seeds in a directory of its name
//! under `corpus/`; what it calls is in a `fuzz.rs` of the room that reads.

use crate::Target;

mod accept_encoding;
mod announcement;
mod board_body;
mod cookie;
mod event_body;
mod event_text;
mod forwarded;
mod host;
mod jwks;
mod last_event_id;
mod proxy_header;
mod redis_replies;
mod request_head;
mod stream_query;
mod token;

/// Every reader of the network.
pub const TARGETS: &[Target] = &[
    accept_encoding::TARGET,
    announcement::TARGET,
    board_body::TARGET,
    cookie::TARGET,
    event_body::TARGET,
    event_text::TARGET,
    forwarded::TARGET,
    host::TARGET,
    jwks::TARGET,
    last_event_id::TARGET,
    proxy_header::TARGET,
    redis_replies::TARGET,
    request_head::TARGET,
    stream_query::TARGET,
    token::TARGET,
];
