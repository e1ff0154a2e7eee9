//! [`Peer`]: who is at the other end of a socket, as the routes find it in a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::places::Standing;
use super::unread::UnreadStreams;
use crate::address::{TrustedProxies, plain};
use crate::admission::client::Client;

/// Who is at the other end of a socket.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its address, or that of the client whom a trusted proxy has named.
    pub(crate) address: IpAddr,
    /// Whose word about an address is taken.
    pub(crate) trusted: Arc<TrustedProxies>,
    /// How the socket does.
    pub(super) state: Arc<SocketState>,
    /// The streams of this node that are carried as its are.
    pub(super) unread: Arc<UnreadStreams>,
}

/// What whoever serves a socket and the socket itself tell each other.
#[derive(Debug, Default)]
pub(crate) struct SocketState {
    /// It is given up because the peer takes no bytes.
    pub(super) stalled: Arc<AtomicBool>,
    /// The body of the request that is being answered was not read to its end.
    pub(super) body_unread: AtomicBool,
    /// The peer sends no more. It may still read.
    pub(super) half_closed: AtomicBool,
    /// What the connection makes of its place.
    pub(super) standing: Arc<Standing>,
}

impl Peer {
    pub(super) fn new(
        address: IpAddr,
        trusted: Arc<TrustedProxies>,
        unread: Arc<UnreadStreams>,
    ) -> Peer {
        Peer { address: plain(address), trusted, state: Arc::default(), unread }
    }

    /// Whom it counts as.
    pub(crate) fn client(&self) -> Client {
        Client::of(self.address, &self.trusted)
    }
}
