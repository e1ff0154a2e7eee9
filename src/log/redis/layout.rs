//! [`Layout`]: what an earlier version has named otherwise, and how it is moved to where this one looks.
//!
//! Nothing is read or written before that is done. Each step may be done twice, and by several nodes
//! at a time: whoever is cut off, or comes in between, leaves what the next one goes on with. What
//! shows that there is something to move goes last.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::RedisLog;
use super::registry::STATS_LIFETIME;
use super::scripts::{self, Call};
use super::slots::SLOTS;
use crate::log::LogError;

/// Slots that are written to in one batch.
const SLOTS_BATCH: u16 = 512;

/// Whether all keys are where this version looks for them.
#[derive(Default)]
pub(super) struct Layout {
    is_settled: AtomicBool,
    /// Held by whoever moves.
    moving: Mutex<()>,
    /// Why this node cannot go on.
    refusal: OnceLock<String>,
}

impl Layout {
    /// Why this node cannot go on, if it cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.get().cloned()
    }
}

impl RedisLog {
    /// Returns when all keys are where this version looks for them.
    ///
    /// # Errors
    /// Redis cannot be asked, or nodes of an earlier version are alive.
    pub(super) async fn settled(&self) -> Result<(), LogError> {
        if self.layout.is_settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let _moving = self.layout.moving.lock().await;
        if !self.layout.is_settled.load(Ordering::Acquire) {
            self.settle().await?;
            self.layout.is_settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), LogError> {
        let keys = [self.keys.shared("births"), self.keys.shared("stats")];
        let call = Call::new(&scripts::LAYOUT, &keys).arg(STATS_LIFETIME.as_millis() as u64);
        let answer: Vec<String> = self.commands.call(call).await?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["alive", ref nodes @ ..] => {
                let why = format!(
                    "Redis has keys of an earlier version, whose nodes are still alive ({}): end \
                     them, and start this version when they are gone",
                    nodes.join(", ")
                );
                let why = self.layout.refusal.get_or_init(|| why);
                Err(LogError::Unavailable(why.clone()))
            }
            ["old", at, now, reign, evicted] => {
                tracing::info!("moving the keys of an earlier version");
                self.move_births(at, now, reign, evicted).await
            }
            _ => Ok(()),
        }
    }

    /// Writes for each slot what was known of all topics: when Redis was found empty, and that any log
    /// may have begun until now.
    async fn move_births(
        &self,
        at: &str,
        now: &str,
        reign: &str,
        evicted: &str,
    ) -> Result<(), LogError> {
        for first in (0..SLOTS).step_by(usize::from(SLOTS_BATCH)) {
            let mut pipe = redis::pipe();
            for slot in first..first + SLOTS_BATCH {
                let births = self.keys.births_of(slot);
                for (field, value) in
                    [("reign", reign), ("evicted", evicted), ("born", now), ("at", at)]
                {
                    pipe.hset_nx(&births, field, value).ignore();
                }
            }
            let _: () = self.commands.pipe("move", &pipe).await?;
        }
        let mut pipe = redis::pipe();
        pipe.del(self.keys.shared("births")).ignore();
        self.commands.pipe("move", &pipe).await
    }
}
