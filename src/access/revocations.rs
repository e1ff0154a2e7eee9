//! [`Revocations`]: what was taken back of those who have a grant.
//!
//! `POST /admin/revoke` says whom; every node keeps the whole list in its own memory, where each
//! request and each stream is held to it, and asks the [`RevocationStore`] a few times a second what
//! is new there. So what a node knows holds whatever becomes of the store, and a store that has lost
//! its list gets it back from those who know it. What the list says is decided in [`list`].

mod list;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{self, SHA256};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::grant::Grant;
use crate::log::{LogError, Probe, RevocationState, RevocationStore, RevocationsPut, RevokedKey};
use crate::telemetry::metric;
use list::List;

/// How many revocations there may be, with those that were lifted within the last day; in memory
/// some 100 bytes each.
pub const REVOCATIONS_MAX: usize = 100_000;

/// How often a node asks for what is new. What one node is told, all know after this time and the
/// time of one answer.
const INTERVAL: Duration = Duration::from_millis(300);

/// A store without a list may have just lost it. A node that has just started believes it after this
/// time, in which those that have the list put it back.
const ABSENT_FOR: Duration = Duration::from_secs(2);

/// How often records are removed whose time is over.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Records that are told or removed in one step.
const BATCH_RECORDS_MAX: usize = 200;

/// Whose grants are taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Those of this subject (the claim `sub`) that were given until now.
    Subject(String),
    /// That of the token of this id (the claim `jti`).
    TokenId(String),
}

/// By what one grant can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revocable {
    subject: Option<RevokedKey>,
    token_id: Option<RevokedKey>,
    /// In seconds since 1970.
    issued_at: Option<u64>,
}

impl Whom {
    fn key(&self) -> RevokedKey {
        match self {
            Whom::Subject(subject) => subject_key(subject),
            Whom::TokenId(id) => key("jti", id),
        }
    }
}

impl Revocable {
    /// By what these claims of a token say: `sub`, `jti` and `iat`.
    pub fn new(subject: Option<&str>, token_id: Option<&str>, issued_at: Option<u64>) -> Revocable {
        Revocable {
            subject: subject.map(subject_key),
            token_id: token_id.map(|id| key("jti", id)),
            issued_at,
        }
    }

    fn of(grant: &Grant) -> Revocable {
        Revocable::new(grant.subject.as_deref(), grant.token_id.as_deref(), grant.issued_at)
    }
}

/// The digest of a subject, as everything that is kept of one is found by.
pub(super) fn subject_key(subject: &str) -> RevokedKey {
    key("sub", subject)
}

fn key(claim: &str, value: &str) -> RevokedKey {
    let mut digest = digest::Context::new(&SHA256);
    // No claim's name has a colon.
    for part in [claim, ":", value] {
        digest.update(part.as_bytes());
    }
    let mut key = RevokedKey::default();
    key.copy_from_slice(digest.finish().as_ref());
    key
}

/// Why something could not be revoked, or that could not be undone.
#[derive(Debug, Clone)]
pub enum NotRevoked {
    /// There are [`REVOCATIONS_MAX`] already; nothing has changed.
    Full,
    /// It holds on this node, and the others are told of it as soon as that can be done.
    HereAlone(LogError),
}

/// The list, and what keeps it the same on all nodes.
pub struct Revocations {
    store: Arc<dyn RevocationStore>,
    clock: Arc<dyn Probe>,
    list: Mutex<List>,
    /// The list was read.
    known: watch::Sender<bool>,
    /// How often something was revoked that was not before; wraps around.
    revoked: watch::Sender<u64>,
}

impl Revocations {
    /// Knows nothing before it [runs](Revocations::run).
    pub fn new(store: Arc<dyn RevocationStore>, clock: Arc<dyn Probe>) -> Arc<Revocations> {
        Arc::new(Revocations {
            store,
            clock,
            list: Mutex::default(),
            known: watch::Sender::new(false),
            revoked: watch::Sender::new(0),
        })
    }

    /// Waits until the list was read, for this time at most; says whether it was. Before, nobody can
    /// say what holds.
    pub async fn are_known(&self, within: Duration) -> bool {
        let mut known = self.known.subscribe();
        if *known.borrow_and_update() {
            return true;
        }
        matches!(tokio::time::timeout(within, known.wait_for(|known| *known)).await, Ok(Ok(_)))
    }

    /// Whether this grant was taken back, as far as is known.
    pub fn have_revoked_grant(&self, grant: &Grant) -> bool {
        let list = self.list();
        !list.is_empty() && list.revokes(&Revocable::of(grant), self.now() / 1_000)
    }

    /// Whether what can be taken back by this was.
    pub fn have_revoked(&self, revocable: &Revocable) -> bool {
        self.list().revokes(revocable, self.now() / 1_000)
    }

    /// Notified when something was revoked that was not before.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// Takes back the grants of somebody, until then (in seconds since 1970) or for good. Holds on
    /// this node at once, and on all when it returns `Ok`, after at most half a second.
    ///
    /// # Errors
    /// When it does not hold, or not everywhere yet.
    pub async fn take_back(&self, whom: &Whom, until: Option<u64>) -> Result<(), NotRevoked> {
        self.say(whom, RevocationState::Revoked { until }).await
    }

    /// Has a revocation hold no more.
    ///
    /// # Errors
    /// When it does still, or not yet everywhere.
    pub async fn lift(&self, whom: &Whom) -> Result<(), NotRevoked> {
        self.say(whom, RevocationState::Lifted).await
    }

    async fn say(&self, whom: &Whom, state: RevocationState) -> Result<(), NotRevoked> {
        let now = self.now();
        let record = {
            let mut list = self.list();
            let record = list.say(whom.key(), state, now, REVOCATIONS_MAX);
            record.ok_or(NotRevoked::Full)?
        };
        if matches!(state, RevocationState::Revoked { .. }) {
            self.tell_revoked();
        }
        match self.store.put_revocations(&[record], Some(REVOCATIONS_MAX)).await {
            Ok(RevocationsPut::Taken) => {
                self.list().shared(&[record]);
                Ok(())
            }
            Ok(RevocationsPut::Full) => {
                self.list().take_out(&record);
                Err(NotRevoked::Full)
            }
            Err(error) => Err(NotRevoked::HereAlone(error)),
        }
    }

    /// Keeps the list up to date for ever.
    pub async fn run(self: Arc<Revocations>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut absent_since = None;
        let mut forgotten_at = Instant::now();
        loop {
            interval.tick().await;
            if let Err(error) = self.exchange(&mut absent_since).await {
                tracing::debug!(%error, "cannot ask what was revoked, or tell it");
            }
            if forgotten_at.elapsed() >= FORGET_INTERVAL {
                forgotten_at = Instant::now();
                self.forget_old().await;
            }
            metric::revocations(self.list().len());
        }
    }

    /// Reads what is new, and tells what the store does not have.
    async fn exchange(&self, absent_since: &mut Option<Instant>) -> Result<(), LogError> {
        loop {
            let known = self.list().version().clone();
            let page = self.store.revocations(&known).await?;
            let more = page.more;
            let is_news = self.list().merge(page);
            if is_news {
                self.tell_revoked();
            }
            if !more {
                break;
            }
        }
        loop {
            let records = self.list().unshared(BATCH_RECORDS_MAX);
            if records.is_empty() {
                break;
            }
            self.store.put_revocations(&records, None).await?;
            self.list().shared(&records);
        }
        if !*self.known.borrow() {
            let is_there = !self.list().version().list.is_empty();
            let absent_since = *absent_since.get_or_insert_with(Instant::now);
            if !is_there && absent_since.elapsed() < ABSENT_FOR {
                return Ok(());
            }
            if !is_there {
                // The next to start need not wait.
                self.store.put_revocations(&[], None).await?;
            }
            self.known.send_replace(true);
        }
        Ok(())
    }

    async fn forget_old(&self) {
        let old = self.list().take_old(self.now());
        for records in old.chunks(BATCH_RECORDS_MAX) {
            // What stays there is over as well.
            if let Err(error) = self.store.forget_revocations(records).await {
                tracing::debug!(%error, "cannot remove what is revoked no longer");
            }
        }
    }

    fn tell_revoked(&self) {
        self.revoked.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// The log's clock, which is the same for all nodes; in milliseconds since 1970.
    fn now(&self) -> u64 {
        self.clock.now_milliseconds().unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_millis() as u64
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Nothing under this lock panics half-way through a change that matters to others.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
