//! [`Jwks`]: the keys of an issuer who publishes them, and changes them.
//!
//! One task fetches them: when it begins, when they have become old, and when a token names a key
//! that is not among them; however many ask, that is once in [`PAUSE`] at most. While they cannot be
//! fetched, those that were fetched before are used: an issuer that is away ends nobody's streams.
//! Nobody is refused for a key that is not there before the issuer was asked for it: a browser would
//! not come back.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::keys::Keys;
use crate::backoff::{Backoff, Rarely};
use crate::telemetry::metric;

/// After a fetch, the next begins no sooner than that, whoever asks for a key that is not there.
const PAUSE: Duration = Duration::from_secs(5);

/// How long keys are used before they are fetched again, at most.
const AGE_MAX: Duration = Duration::from_secs(600);

/// How long a request waits for keys.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Requests that wait for keys at the same time; more are told at once to come again.
const WAITING_MAX: usize = 1_000;

/// Waits between fetches that fail.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Where the keys of an issuer are fetched from.
#[async_trait]
pub trait KeyServer: Send + Sync + 'static {
    /// Where that is, for the log: nothing in it is a secret.
    fn place(&self) -> String;

    /// Fetches them. Bounded in bytes and in time.
    ///
    /// # Errors
    /// Why they are not there.
    async fn fetch(&self) -> Result<Published, String>;
}

/// What was fetched.
#[derive(Debug)]
pub struct Published {
    /// A JWK set, or what should be one.
    pub set: Vec<u8>,
    /// How long it may be used before it is fetched again, if that is told.
    pub fresh_for: Option<Duration>,
}

/// The keys of one issuer, as they were last fetched.
pub struct Jwks {
    server: Arc<dyn KeyServer>,
    current: RwLock<Current>,
    /// Somebody has a token that names a key which is not there.
    wanted: Notify,
    fetches: watch::Sender<Fetches>,
}

#[derive(Default)]
struct Current {
    keys: Option<Arc<Keys>>,
    /// Changes with the keys.
    version: u64,
    /// Of the set that they were in.
    digest: Vec<u8>,
}

/// Fetches have numbers, from 1 on, in the order in which they begin; one ends before the next begins.
#[derive(Debug, Clone, Copy, Default)]
struct Fetches {
    /// The last that has begun,
    begun: u64,
    /// that has ended,
    ended: u64,
    /// and that has ended well.
    succeeded: u64,
}

/// Somebody who waits for a key.
pub(super) struct Asking {
    fetches: watch::Receiver<Fetches>,
    /// The last fetch that had begun when they asked.
    begun: u64,
    /// The last whose end they have heard of.
    heard: u64,
    until: Instant,
}

/// What somebody has heard who waits for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Keys were fetched, but their issuer was asked before: a newer one may be missing.
    Keys,
    /// Their issuer was asked after that. What is not among them does not exist.
    AllKeys,
    /// Nothing, for as long as somebody waits, or that the issuer is away.
    Nothing,
}

impl Jwks {
    /// Nothing has been fetched yet; [`run`](Jwks::run) does it.
    pub(super) fn new(server: Arc<dyn KeyServer>) -> Jwks {
        Jwks {
            server,
            current: RwLock::default(),
            wanted: Notify::new(),
            fetches: watch::Sender::default(),
        }
    }

    /// These keys have been read already.
    pub(super) fn with(server: Arc<dyn KeyServer>, keys: Keys, set: &[u8]) -> Jwks {
        let jwks = Jwks::new(server);
        jwks.take(keys, set);
        jwks
    }

    /// The keys as they are, and a number that changes with them; none before the first came.
    pub(super) fn keys(&self) -> (Option<Arc<Keys>>, u64) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.keys.clone(), current.version)
    }

    /// Somebody needs a key that is not there: their issuer is asked for it as soon as that may be.
    pub(super) fn ask(&self) -> Asking {
        self.wanted.notify_one();
        let wait =
            if self.fetches.receiver_count() < WAITING_MAX { WAIT_MAX } else { Duration::ZERO };
        let mut fetches = self.fetches.subscribe();
        let Fetches { begun, ended, .. } = *fetches.borrow_and_update();
        Asking { fetches, begun, heard: ended, until: Instant::now() + wait }
    }

    /// Fetches the keys again and again.
    pub async fn run(&self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut line = Rarely::default();
        loop {
            self.fetches.send_modify(|fetches| fetches.begun += 1);
            let fetched = self.fetch().await;
            let is_good = fetched.is_ok();
            self.fetches.send_modify(|fetches| {
                fetches.ended = fetches.begun;
                if is_good {
                    fetches.succeeded = fetches.begun;
                }
            });
            let ended_at = Instant::now();
            let wait = match fetched {
                Ok(age) => {
                    metric::keys_fetched("ok");
                    backoff.reset();
                    age
                }
                Err(why) => {
                    metric::keys_fetched("failed");
                    if line.is_due() {
                        let has_older = self.keys().0.is_some();
                        let place = self.server.place();
                        tracing::warn!(place, why, has_older, "cannot fetch the keys of an issuer");
                    }
                    backoff.wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(ended_at + wait) => {}
                () = self.wanted.notified() => {
                    tokio::time::sleep_until(ended_at + wait.min(PAUSE)).await;
                }
            }
        }
    }

    /// Fetches the keys once; how long they may be used.
    async fn fetch(&self) -> Result<Duration, String> {
        let Published { set, fresh_for } = self.server.fetch().await?;
        let keys = Keys::of_jwks(&set).map_err(|error| error.to_string())?;
        if let Some(count) = self.take(keys, &set) {
            tracing::info!(place = self.server.place(), count, "new keys of an issuer");
        }
        Ok(fresh_for.unwrap_or(AGE_MAX).clamp(PAUSE, AGE_MAX))
    }

    /// These are the keys from now on; how many, if they are others than before.
    fn take(&self, keys: Keys, set: &[u8]) -> Option<usize> {
        let digest = digest(&SHA256, set).as_ref().to_vec();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.digest == digest {
            return None;
        }
        let (count, version) = (keys.len(), current.version + 1);
        *current = Current { keys: Some(Arc::new(keys)), version, digest };
        Some(count)
    }
}

impl Asking {
    /// Waits for the next fetch to end.
    pub(super) async fn heard(&mut self) -> Heard {
        let last = self.heard;
        let ended = self.fetches.wait_for(|fetches| fetches.ended > last);
        let Ok(Ok(fetches)) = tokio::time::timeout_at(self.until, ended).await else {
            return Heard::Nothing;
        };
        self.heard = fetches.ended;
        if fetches.succeeded > self.begun {
            Heard::AllKeys
        } else if fetches.succeeded == fetches.ended {
            Heard::Keys
        } else {
            Heard::Nothing
        }
    }
}

#[cfg(test)]
mod tests;
