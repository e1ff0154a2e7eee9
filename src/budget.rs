//! [`Budget`]: how many bytes a node holds of what it has made for readers and they have not taken.
//!
//! Pages of the log, states of topics and answers about history are made when somebody asks for
//! them, and stay until the last reader has taken them. A reader that is slow, or does not read at
//! all, keeps them. So all of them together have one bound: whoever finds nothing left waits until
//! others have read. So that nobody waits for readers who take a few bytes now and then, readers
//! have a [pace] to keep while somebody waits.

pub mod pace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::telemetry::metric;
use pace::Pace;

/// What a node holds at most, in bytes.
pub const BUDGET_BYTES_MAX: usize = 48 << 20;

/// Bytes that may be held over the whole node.
///
/// What is reserved is an estimate, and what comes of it is held even if it is more: nobody waits
/// with something in his hands, so nobody waits for ever. Then the budget is overdrawn until the
/// next bytes are given back, and nobody else gets anything meanwhile. By how much is bounded by
/// how many read at the same time.
#[derive(Clone)]
pub struct Budget(Arc<Account>);

struct Account {
    free: Semaphore,
    bytes_max: usize,
    write_timeout: Duration,
    held: AtomicUsize,
    waiting: AtomicUsize,
    ledger: Mutex<Ledger>,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
}

#[derive(Default)]
struct Ledger {
    /// Bytes that are held beyond the budget.
    overdrawn: usize,
    /// What is held: where it begins in memory, and how many bytes it takes.
    held: BTreeMap<usize, usize>,
}

/// A part of the budget, given back when it is dropped.
pub struct Reserved {
    budget: Budget,
    bytes: usize,
}

/// Somebody who has bytes for a reader, and can let go of them.
pub trait Holder: Send + Sync {
    /// Lets go of them if the reader is too slow.
    fn look(&self, now: Instant);
}

impl Budget {
    /// A budget of so many bytes, for readers of whom each has this time to take anything at all.
    pub fn new(bytes_max: usize, write_timeout: Duration) -> Budget {
        Budget(Arc::new(Account {
            free: Semaphore::new(bytes_max),
            bytes_max,
            write_timeout,
            held: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            ledger: Mutex::default(),
            holders: Mutex::default(),
        }))
    }

    /// Reserves so many bytes if they are free now. What is larger than the whole budget takes all
    /// of it.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permit = self.0.free.try_acquire_many(self.clamped(bytes)).ok()?;
        Some(self.reserved(permit))
    }

    /// Waits until so many bytes are free, and reserves them. In the order of asking.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        if let Some(reserved) = self.try_reserve(bytes) {
            return reserved;
        }
        let _waiting = Waiting::new(&self.0);
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.0.free.acquire_many(self.clamped(bytes)).await {
                return self.reserved(permit);
            }
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for others to read.
    pub fn is_waited_for(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether these bytes are held by the budget: as long as they are kept, everything is that was
    /// held with them.
    pub fn holds(&self, bytes: &Bytes) -> bool {
        self.held() > 0 && self.ledger().of(bytes).is_some()
    }

    /// What is held, in bytes, for a reader who has still to take these parts.
    pub fn held_for<'a>(&self, parts: impl IntoIterator<Item = &'a Bytes>) -> usize {
        if self.held() == 0 {
            return 0;
        }
        let ledger = self.ledger();
        let mut counted: Vec<usize> = Vec::new();
        let mut sum = 0;
        for (begin, bytes) in parts.into_iter().filter_map(|part| ledger.of(part)) {
            if !counted.contains(&begin) {
                counted.push(begin);
                sum += bytes;
            }
        }
        sum
    }

    /// Whether a reader who has still to take these parts must let go of them: somebody waits, and
    /// it does not keep its pace. To be asked about once a second.
    pub fn is_behind<'a>(
        &self,
        pace: &mut Pace,
        now: Instant,
        parts: impl IntoIterator<Item = &'a Bytes>,
    ) -> bool {
        let Some(taken) = pace.taken_in_window(now, self.0.write_timeout) else { return false };
        self.is_waited_for() && pace::is_too_little(taken, self.held_for(parts))
    }

    /// Has somebody [looked after](Budget::look) from now on.
    pub fn watch(&self, holder: &Arc<impl Holder + 'static>) {
        let holder: Weak<dyn Holder> = Arc::downgrade(holder) as Weak<dyn Holder>;
        lock(&self.0.holders).push(holder);
    }

    /// Has all holders look whether their readers are too slow. To be called once a second.
    pub fn look(&self) {
        let holders = {
            let mut holders = lock(&self.0.holders);
            holders.retain(|holder| holder.strong_count() > 0);
            if holders.capacity() > 64 && holders.len() < holders.capacity() / 4 {
                holders.shrink_to_fit();
            }
            holders.clone()
        };
        let now = Instant::now();
        for holder in holders.iter().filter_map(Weak::upgrade) {
            holder.look(now);
        }
    }

    fn reserved(&self, permit: SemaphorePermit<'_>) -> Reserved {
        let bytes = permit.num_permits();
        permit.forget();
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        Reserved { budget: self.clone(), bytes }
    }

    fn give_back(&self, bytes: usize) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
        let mut ledger = self.ledger();
        let paid = ledger.overdrawn.min(bytes);
        ledger.overdrawn -= paid;
        drop(ledger);
        self.0.free.add_permits(bytes - paid);
    }

    fn clamped(&self, bytes: usize) -> u32 {
        bytes.min(self.0.bytes_max).try_into().unwrap_or(u32::MAX)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.0.ledger)
    }
}

impl Ledger {
    /// Where what has these bytes begins, and how many it takes.
    fn of(&self, bytes: &Bytes) -> Option<(usize, usize)> {
        let at = bytes.as_ptr() as usize;
        let (&begin, &held) = self.held.range(..=at).next_back()?;
        (at < begin + held).then_some((begin, held))
    }
}

impl Reserved {
    /// Keeps these bytes for readers: what they need of the budget is given back when the last
    /// reader lets go of them, what was reserved beyond that at once. If it was too little the
    /// budget is overdrawn.
    pub fn hold(mut self, mut bytes: Vec<u8>) -> Bytes {
        bytes.shrink_to_fit();
        let needed = bytes.capacity();
        if let Some(rest) = self.bytes.checked_sub(needed) {
            self.budget.give_back(rest);
        } else {
            self.budget.overdraw(needed - self.bytes);
        }
        self.bytes = needed;
        if needed > 0 {
            self.budget.ledger().held.insert(bytes.as_ptr() as usize, needed);
        }
        Bytes::from_owner(Held { bytes, reserved: self })
    }
}

impl Budget {
    fn overdraw(&self, bytes: usize) {
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        let mut ledger = self.ledger();
        // What is free is taken first; none is while somebody waits.
        let free = self.0.free.forget_permits(bytes);
        ledger.overdrawn += bytes - free;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Invariant: it is in the ledger exactly while it lives.
struct Held {
    bytes: Vec<u8>,
    reserved: Reserved,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reserved.budget.ledger().held.remove(&(self.bytes.as_ptr() as usize));
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a Account);

impl Waiting<'_> {
    fn new(account: &Account) -> Waiting<'_> {
        account.waiting.fetch_add(1, Ordering::Relaxed);
        metric::budget_waiting(1.0);
        Waiting(account)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        metric::budget_waiting(-1.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
