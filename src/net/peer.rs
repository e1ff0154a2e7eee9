//! [`Peer`]: who is at the other end of a socket, as the routes find it in a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::unread::UnreadStreams;

/// Who is at the other end of a socket.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Set when the socket is given up because the peer takes no bytes.
    pub(super) stalled: Arc<AtomicBool>,
    /// The streams on this socket, if it may carry several.
    pub(super) unread: Arc<UnreadStreams>,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Peer {
        Peer { address, stalled: Arc::default(), unread: Arc::default() }
    }
}
