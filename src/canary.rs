//! [`Canary`]: whether this node can deliver, found out by delivering
//! (`docs/guarantees.md`, 8).
//!
//! Every second a canary goes the way of an announcement: publish, log, this node's own
//! subscription. Readiness is when it was last heard. An outage shorter than [`GRACE`] only
//! degrades: if every replica left the load balancer at once, nobody would be served.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, Rarely};
use crate::log::Probe;
use crate::telemetry::metric;

/// How often a canary is sent; sooner after one that was not heard, at first.
const INTERVAL: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// How long one may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Heard within this time: ready.
const FRESH: Duration = Duration::from_secs(5);

/// Heard within this time: degraded, but not taken out of service.
const GRACE: Duration = Duration::from_secs(30);

/// Sends canaries and remembers when one was heard.
pub struct Canary {
    probe: Arc<dyn Probe>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    heard_at: Option<Instant>,
    error: Option<String>,
    line: Rarely,
    /// The log says that this node cannot deliver.
    is_told: bool,
}

/// Whether the node can deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It did so a moment ago.
    Ready,
    /// It could, until some seconds ago.
    Degraded,
    /// It never could, or could not for long.
    NotReady,
}

/// What is known of the canary.
#[derive(Debug, Clone)]
pub struct CanaryState {
    /// What follows from it.
    pub level: Level,
    /// Since one was last heard; `None` if none ever was.
    pub age: Option<Duration>,
    /// Why the last one was not heard, if it was not.
    pub reason: Option<String>,
}

impl Canary {
    /// A canary for a log.
    pub fn new(probe: Arc<dyn Probe>) -> Arc<Canary> {
        Arc::new(Canary { probe, last: Mutex::default() })
    }

    /// Sends canaries for ever.
    pub async fn run(&self) {
        let mut backoff = Backoff::new(RETRY_FIRST, INTERVAL);
        loop {
            let heard = tokio::time::timeout(PROBE_TIMEOUT, self.probe.canary()).await;
            let error = match heard {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the canary was published and not heard".to_owned()),
            };
            let wait = match error {
                Some(_) => backoff.wait(),
                None => {
                    backoff.reset();
                    INTERVAL
                }
            };
            self.note(error);
            tokio::time::sleep(wait).await;
        }
    }

    fn note(&self, error: Option<String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &error {
            // Before the first one, nothing that worked has stopped working.
            Some(error) if last.heard_at.is_some() && last.line.is_due() => {
                last.is_told = true;
                tracing::warn!(%error, "this node cannot deliver");
            }
            None if std::mem::take(&mut last.is_told) => {
                tracing::info!("this node can deliver again");
            }
            _ => {}
        }
        if error.is_none() {
            last.heard_at = Some(Instant::now());
        }
        last.error = error;
    }

    /// Puts what is known now into the metrics.
    pub fn measure(&self) {
        let state = self.state();
        let level = match state.level {
            Level::Ready => 2.0,
            Level::Degraded => 1.0,
            Level::NotReady => 0.0,
        };
        metric::ready(level, state.age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// What is known now.
    pub fn state(&self) -> CanaryState {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = last.heard_at.map(|heard_at| heard_at.elapsed());
        let level = match age {
            Some(age) if age <= FRESH => Level::Ready,
            Some(age) if age <= GRACE => Level::Degraded,
            _ => Level::NotReady,
        };
        let reason = if age.is_none() && last.error.is_none() {
            Some("the first canary has not come back yet".to_owned())
        } else {
            last.error.clone()
        };
        CanaryState { level, age, reason }
    }
}
