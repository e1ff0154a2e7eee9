//! CARRY: sockets, and how the bytes of streams get onto them.
//!
//! [`server`] accepts connections, and [`sniff`] looks at the first request head of each. A plain
//! HTTP/1.1 request for a stream is answered by the routes as any other; then its socket goes to a
//! [`reactor`] and stays there. Everything else goes to the HTTP server ([`http`]), which carries a
//! stream as the [`body`] of a response. So streams leave by two ways: reactors, and bodies.
//!
//! What a stream says is decided in [`stream`](crate::stream) and made bytes by
//! [`wire`](crate::wire). A reactor asks both for many streams at once.

mod body;
mod compression;
pub(crate) mod fetch;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod held;
mod http;
mod http2_frames;
mod http_socket;
mod linger;
pub(crate) mod listener;
mod peer;
mod places;
mod proxied;
mod proxy_header;
pub mod reactor;
mod request_body;
pub(crate) mod server;
mod sniff;
mod socket;
mod sockets;
pub(crate) mod tls;
mod unread;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;

pub(crate) use body::{OpenedStream, respond};
pub(crate) use held::body_of_held;
pub(crate) use peer::Peer;
use tls::Tls;

use crate::address::TrustedProxies;

/// What sockets are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sockets open at the same time.
    pub(crate) sockets_max: usize,
    /// Sockets of one client address; 0 is no limit. Loopback and trusted proxies have none.
    pub(crate) sockets_per_address_max: usize,
    /// A peer that takes no bytes for this long is given up.
    pub(crate) write_timeout: Duration,
    /// Silence after which every stream sends something.
    pub(crate) heartbeat: Duration,
}

/// What a connection passes before its first request.
#[derive(Clone, Default)]
pub(crate) struct Entrance {
    /// Those who may say for whom they come: by a PROXY header, or with each request.
    pub(crate) trusted: Arc<TrustedProxies>,
    /// What it speaks, if it has to speak TLS.
    pub(crate) tls: Option<Tls>,
}

/// What answers requests, however they have come.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// Answers a request, which has its [`Peer`] among its extensions.
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;
}
