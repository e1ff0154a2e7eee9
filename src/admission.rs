//! [`Admission`]: how many streams a node takes on, and from whom.
//!
//! Guards against one client address opening streams until the node has no descriptors left, and
//! against more streams than the machine can carry. What is refused gets 503 with `Retry-After`,
//! so that the load balancer tries the next node.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Counts open streams against their limits.
pub struct Admission {
    streams_max: usize,
    /// 0: no limit.
    per_address_max: usize,
    streams: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one stream; given back when dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

/// Why a stream was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The node carries as many streams as it may.
    Full,
    /// The client's address has as many as it may.
    AddressFull,
}

impl NotAdmitted {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            NotAdmitted::Full => "full",
            NotAdmitted::AddressFull => "address",
        }
    }
}

impl Admission {
    /// At most `streams_max` streams, and `per_address_max` from one address if that is not 0.
    pub fn new(streams_max: usize, per_address_max: usize) -> Arc<Admission> {
        Arc::new(Admission {
            streams_max,
            per_address_max,
            streams: AtomicUsize::new(0),
            addresses: Mutex::default(),
        })
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Takes on one stream from `address`.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(self: &Arc<Admission>, address: IpAddr) -> Result<Admitted, NotAdmitted> {
        let taken = self.streams.fetch_add(1, Ordering::Relaxed);
        // From here on, dropping `admitted` gives back what was counted.
        let mut admitted = Admitted { admission: self.clone(), address: None };
        if taken >= self.streams_max {
            return Err(NotAdmitted::Full);
        }
        if self.per_address_max > 0 {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let streams = addresses.entry(address).or_insert(0);
            if *streams >= self.per_address_max {
                return Err(NotAdmitted::AddressFull);
            }
            *streams += 1;
            admitted.address = Some(address);
        }
        Ok(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.streams.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            let mut addresses =
                self.admission.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(streams) = addresses.get_mut(&address) {
                *streams -= 1;
                if *streams == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

/// How many places are kept for those who come with a request (a health check, a publisher): with
/// fewer left, connections that do nothing have to go.
const SPARE_SOCKETS: usize = 32;

/// How long a connection may do nothing even then.
const IDLE_ALLOWED: Duration = Duration::from_secs(1);

/// Counts open sockets.
pub struct Sockets {
    sockets_max: usize,
    open: AtomicUsize,
    none_left: Notify,
    /// Whether fewer than [`SPARE_SOCKETS`] are left.
    crowded: watch::Sender<bool>,
}

/// One open socket; counted until it is dropped.
pub struct OpenSocket {
    sockets: Arc<Sockets>,
    opened_at: Instant,
}

impl Sockets {
    /// At most so many.
    pub fn new(sockets_max: usize) -> Arc<Sockets> {
        Arc::new(Sockets {
            sockets_max,
            open: AtomicUsize::new(0),
            none_left: Notify::new(),
            crowded: watch::Sender::new(false),
        })
    }

    /// Counts one more; `None` if there are as many as there may be.
    pub fn open(self: &Arc<Sockets>) -> Option<OpenSocket> {
        let opened = OpenSocket { sockets: self.clone(), opened_at: Instant::now() };
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        if before + 1 == self.crowded_at() {
            self.look_for_crowd();
        }
        (before < self.sockets_max).then_some(opened)
    }

    fn crowded_at(&self) -> usize {
        self.sockets_max.saturating_sub(SPARE_SOCKETS).max(1)
    }

    fn look_for_crowd(&self) {
        self.crowded.send_if_modified(|crowded| {
            let now = self.open.load(Ordering::Acquire) >= self.crowded_at();
            std::mem::replace(crowded, now) != now
        });
    }

    /// Waits until none is open.
    pub async fn all_closed(&self) {
        loop {
            let none_left = self.none_left.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            none_left.await;
        }
    }
}

impl OpenSocket {
    /// Waits until this socket has to go if nothing is under way on it: places are short, and it has
    /// had its time.
    pub async fn crowded_out(&self) {
        tokio::time::sleep_until(self.opened_at + IDLE_ALLOWED).await;
        // The sender lives as long as this does.
        let _ = self.sockets.crowded.subscribe().wait_for(|crowded| *crowded).await;
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let before = self.sockets.open.fetch_sub(1, Ordering::AcqRel);
        if before == self.sockets.crowded_at() {
            self.sockets.look_for_crowd();
        }
        if before == 1 {
            self.sockets.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_sockets_have_to_go_while_places_are_short_and_have_a_second_before() {
        let sockets = Sockets::new(SPARE_SOCKETS + 2);
        let early = sockets.open().unwrap();
        let waits = async |open: &OpenSocket| {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, open.crowded_out()).await.is_err()
        };
        assert!(waits(&early).await, "nobody is in need");
        let late = sockets.open().unwrap();
        let began_at = Instant::now();
        early.crowded_out().await;
        assert_eq!(began_at.elapsed(), Duration::ZERO);
        late.crowded_out().await;
        assert!(began_at.elapsed() >= IDLE_ALLOWED);
        drop(early);
        assert!(waits(&late).await, "there is room again");
        let others: Vec<OpenSocket> = std::iter::from_fn(|| sockets.open()).collect();
        assert_eq!(others.len(), SPARE_SOCKETS + 1);
        drop((late, others));
        sockets.all_closed().await;
    }

    #[test]
    fn limits_hold_and_places_come_back() {
        let admission = Admission::new(3, 2);
        let [a, b] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert_eq!(admission.admit(a).err(), Some(NotAdmitted::AddressFull));
        let third = admission.admit(b).unwrap();
        assert_eq!(admission.admit(b).err(), Some(NotAdmitted::Full));
        assert_eq!(admission.streams(), 3);
        drop(first);
        drop(third);
        assert_eq!(admission.streams(), 1);
        assert!(admission.admit(a).is_ok());
        assert_eq!(admission.streams(), 1);
        assert_eq!(admission.addresses.lock().unwrap().len(), 1);
    }
}
