//! [`Admission`]: how many streams a node takes on, and from whom.
//!
//! Guards against one client address opening streams until the node has no descriptors left, and
//! against more streams than the machine can carry. What is refused gets 503 with `Retry-After`,
//! so that the load balancer tries the next node.

pub mod per_address;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use per_address::{Counted, PerAddress};

/// Counts open streams against their limits.
pub struct Admission {
    streams_max: usize,
    streams: AtomicUsize,
    per_address: Arc<PerAddress>,
}

/// The right to one stream; given back when dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    _counted: Option<Counted>,
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
            streams: AtomicUsize::new(0),
            per_address: PerAddress::new(per_address_max),
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
        let mut admitted = Admitted { admission: self.clone(), _counted: None };
        if taken >= self.streams_max {
            return Err(NotAdmitted::Full);
        }
        let counted = self.per_address.take(address);
        admitted._counted = counted.map_err(|_| NotAdmitted::AddressFull)?;
        Ok(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
