//! [`Admission`]: how many streams a node takes on, and from whom; and how many topics they follow.
//!
//! Guards against one client that opens streams or names topics until the node has no descriptors
//! and no memory left, and against more of both than the machine can carry. What is refused gets 503
//! with `Retry-After`, so that the load balancer tries the next node. What clients do in a time is
//! held to [rates].

pub mod client;
pub mod client_rates;
pub mod per_address;
pub mod rates;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::AddressBlock;
use client::{Client, Subject};
use rates::TooFast;

/// What streams may take of a node.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// All of them.
    pub streams_max: usize,
    /// Those of one address; 0 is no limit.
    pub streams_per_address_max: usize,
    /// Those of one subject; 0 is no limit.
    pub streams_per_subject_max: usize,
    /// Topics that all of them follow.
    pub topics_max: usize,
    /// Topics that those of one address follow, once for each stream; 0 is no limit.
    pub topics_per_address_max: usize,
}

impl StreamLimits {
    /// So many streams, and no other limit.
    pub fn of_streams(streams_max: usize) -> StreamLimits {
        StreamLimits {
            streams_max,
            streams_per_address_max: 0,
            streams_per_subject_max: 0,
            topics_max: usize::MAX,
            topics_per_address_max: 0,
        }
    }
}

/// Counts open streams, and what they follow, against their limits.
pub struct Admission {
    limits: StreamLimits,
    streams: AtomicUsize,
    /// Topics that are about to be followed.
    topics_reserved: AtomicUsize,
    clients: Mutex<Clients>,
    hasher: RandomState,
}

#[derive(Default)]
struct Clients {
    addresses: HashMap<AddressBlock, OfAddress>,
    /// Streams of each.
    subjects: HashMap<Subject, usize>,
}

#[derive(Default)]
struct OfAddress {
    streams: usize,
    topics: usize,
}

/// The right to one stream; given back when dropped. Small, since every stream has one.
pub struct Admitted {
    admission: Arc<Admission>,
    /// Whose streams it is counted among.
    address: Option<AddressBlock>,
    /// Above the lowest byte whose it is, if that is counted; in it how many topics are counted for
    /// the address.
    subject_and_topics: u64,
}

/// Room for topics that are about to be followed.
pub struct TopicsReserved {
    admission: Arc<Admission>,
    count: usize,
}

/// Why a stream was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The node carries as many streams as it may.
    Full,
    /// The client's address has as many as it may.
    AddressFull,
    /// The subject has as many as it may.
    SubjectFull,
    /// The node follows as many topics as it may.
    TopicsFull,
    /// The streams of the client's address follow as many as they may.
    AddressTopicsFull,
    /// The client comes with new topics too fast.
    NewTopics(TooFast),
    /// The client asks too fast.
    Requests(TooFast),
}

impl NotAdmitted {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            NotAdmitted::Full => "full",
            NotAdmitted::AddressFull => "address",
            NotAdmitted::SubjectFull => "subject",
            NotAdmitted::TopicsFull => "topics",
            NotAdmitted::AddressTopicsFull => "address_topics",
            NotAdmitted::NewTopics(_) => "new_topics",
            NotAdmitted::Requests(_) => "requests",
        }
    }
}

impl Admission {
    /// Admits as many as these limits say.
    pub fn new(limits: StreamLimits) -> Arc<Admission> {
        Arc::new(Admission {
            limits,
            streams: AtomicUsize::new(0),
            topics_reserved: AtomicUsize::new(0),
            clients: Mutex::default(),
            hasher: RandomState::new(),
        })
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whom a token is of: two issuers may call different people the same.
    pub fn subject(&self, issuer: Option<&str>, subject: &str) -> Subject {
        Subject::of_digest(self.hasher.hash_one((issuer, subject)))
    }

    /// Takes on one stream of `client`, of so many topics, 255 at most.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(
        self: &Arc<Admission>,
        client: Client,
        topics: usize,
    ) -> Result<Admitted, NotAdmitted> {
        let StreamLimits { streams_max, streams_per_address_max, topics_per_address_max, .. } =
            self.limits;
        let taken = self.streams.fetch_add(1, Ordering::Relaxed);
        // From here on, dropping `admitted` gives back what was counted.
        let mut admitted =
            Admitted { admission: self.clone(), address: None, subject_and_topics: 0 };
        if taken >= streams_max {
            return Err(NotAdmitted::Full);
        }
        let counts_topics = topics_per_address_max > 0 && !client.is_exempt;
        if streams_per_address_max == 0 && !counts_topics {
            return Ok(admitted);
        }
        let topics = if counts_topics { topics.min(u8::MAX.into()) } else { 0 };
        let mut clients = self.clients();
        let before = clients.addresses.get(&client.address);
        let before = before.map_or((0, 0), |before| (before.streams, before.topics));
        if streams_per_address_max > 0 && before.0 >= streams_per_address_max {
            return Err(NotAdmitted::AddressFull);
        }
        if counts_topics && before.1 + topics > topics_per_address_max {
            return Err(NotAdmitted::AddressTopicsFull);
        }
        let of_address = clients.addresses.entry(client.address).or_default();
        of_address.streams += 1;
        of_address.topics += topics;
        admitted.address = Some(client.address);
        admitted.subject_and_topics = topics as u64;
        Ok(admitted)
    }

    /// Makes room for so many topics that nobody follows yet, until they are followed; `followed`
    /// says how many are by now.
    ///
    /// # Errors
    /// When there would be too many.
    pub fn reserve_topics(
        self: &Arc<Admission>,
        count: usize,
        followed: impl FnOnce() -> usize,
    ) -> Result<TopicsReserved, NotAdmitted> {
        // Whoever reserved before either is counted here or follows them already: asked in this
        // order, nobody is missed. Somebody may be counted twice, for a moment.
        let before = self.topics_reserved.fetch_add(count, Ordering::AcqRel);
        let reserved = TopicsReserved { admission: self.clone(), count };
        if count > 0 && followed() + before + count > self.limits.topics_max {
            return Err(NotAdmitted::TopicsFull);
        }
        Ok(reserved)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Counts it for a subject too, once.
    ///
    /// # Errors
    /// When that has as many as it may.
    pub fn count_for(&mut self, subject: Subject) -> Result<(), NotAdmitted> {
        let each_max = self.admission.limits.streams_per_subject_max;
        if each_max == 0 || self.subject().is_some() {
            return Ok(());
        }
        let mut clients = self.admission.clients();
        let streams = clients.subjects.entry(subject).or_insert(0);
        if *streams >= each_max {
            return Err(NotAdmitted::SubjectFull);
        }
        *streams += 1;
        drop(clients);
        self.subject_and_topics |= subject.bits() << u8::BITS;
        Ok(())
    }

    fn subject(&self) -> Option<Subject> {
        Subject::of_bits(self.subject_and_topics >> u8::BITS)
    }

    fn topics(&self) -> usize {
        (self.subject_and_topics & u64::from(u8::MAX)) as usize
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.streams.fetch_sub(1, Ordering::Relaxed);
        if self.address.is_none() && self.subject().is_none() {
            return;
        }
        let mut clients = self.admission.clients();
        if let Some(address) = self.address
            && let Some(of_address) = clients.addresses.get_mut(&address)
        {
            of_address.streams -= 1;
            of_address.topics -= self.topics();
            if of_address.streams == 0 {
                clients.addresses.remove(&address);
            }
        }
        if let Some(subject) = self.subject()
            && let Some(streams) = clients.subjects.get_mut(&subject)
        {
            *streams -= 1;
            if *streams == 0 {
                clients.subjects.remove(&subject);
            }
        }
        // Ten thousand that left leave no room behind.
        if clients.addresses.is_empty() {
            clients.addresses.shrink_to_fit();
        }
        if clients.subjects.is_empty() {
            clients.subjects.shrink_to_fit();
        }
    }
}

impl Drop for TopicsReserved {
    fn drop(&mut self) {
        self.admission.topics_reserved.fetch_sub(self.count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
