//! [`Sockets`]: how many sockets each client address has open.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::address::TrustedProxies;
use crate::admission::per_address::{Counted, PerAddress, TooMany};
use crate::backoff::Rarely;
use crate::telemetry::metric;

/// Counts sockets by client address.
pub(super) struct Sockets {
    per_address: Arc<PerAddress>,
    trusted: Arc<TrustedProxies>,
    line: Mutex<Rarely>,
}

impl Sockets {
    /// At most so many an address; loopback and `trusted` may have any.
    pub(super) fn new(each_max: usize, trusted: Arc<TrustedProxies>) -> Sockets {
        Sockets { per_address: PerAddress::new(each_max), trusted, line: Mutex::default() }
    }

    /// Those whose word about an address is taken.
    pub(super) fn trusted(&self) -> &Arc<TrustedProxies> {
        &self.trusted
    }

    /// One more of this address; `None` if its are not counted.
    ///
    /// # Errors
    /// When it has as many as it may.
    pub(super) fn count(&self, address: IpAddr) -> Result<Option<Counted>, TooMany> {
        if self.trusted.exempt(address) {
            return Ok(None);
        }
        let counted = self.per_address.take(address);
        if counted.is_err() {
            metric::socket_dropped("address");
            if self.line.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
                let sockets_max = self.per_address.each_max();
                tracing::warn!(
                    %address,
                    sockets_max,
                    "an address has as many sockets as it may, and more were closed at once; if it                      is that of a proxy, FANTAIL_TRUSTED_PROXIES should name it"
                );
            }
        }
        counted
    }
}
