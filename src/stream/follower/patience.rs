//! [`Patience`]: when a stream may ask the log again about one of its topics.
//!
//! Whatever the log says, and for whatever reason it says nothing, there is no loop without a wait.
//! A log that is as the scripts leave it never makes a stream wait here unless it cannot be asked.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::position::Epoch;

/// The first and the longest wait before asking a log again that did not answer, or that says again
/// and again that a position is right which no tail and no page knows.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(4);

/// How often a position may be confirmed in a row without a wait. A node can be behind its client
/// more than once, while one server takes over from another.
const CONFIRMATIONS_FREE: u32 = 4;

/// The first and the longest wait before a reset that follows a reset.
const RESET_DELAY_MIN: Duration = Duration::from_millis(500);
const RESET_DELAY_MAX: Duration = Duration::from_secs(30);

/// How much of it one topic has left; a word as long as nobody has tried it.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Box<Tried>>);

#[derive(Debug)]
struct Tried {
    failures: Backoff,
    resets: Backoff,
    /// The log is not asked before that.
    wait: Option<Wait>,
    /// How often the position was confirmed since the last entry.
    confirmations: u32,
    /// A reset was told, and neither an entry that is new nor a wait has come since.
    was_reset: bool,
    /// How far entries were said in the current incarnation of the log. What is said again after a
    /// reset is no progress: a log whose entries lead to resets would go round in circles.
    furthest: Option<(Epoch, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    until: Instant,
    /// It ends earlier if the log can be heard again.
    for_log: bool,
}

impl Patience {
    /// Until when the log must not be asked, if there is such a time.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let wait = self.0.as_ref()?.wait?;
        (wait.until > Instant::now()).then_some(wait.until)
    }

    /// The log did not answer.
    pub(super) fn on_failure(&mut self) {
        let tried = self.tried();
        tried.wait = Some(Wait { until: Instant::now() + tried.failures.wait(), for_log: true });
    }

    /// The log can be heard again: what waits for it need not wait longer.
    pub(super) fn on_heard_again(&mut self) {
        if let Some(tried) = &mut self.0
            && tried.wait.is_some_and(|wait| wait.for_log)
        {
            tried.failures.reset();
            tried.wait = None;
        }
    }

    /// The log says that the position is right.
    pub(super) fn on_confirmed(&mut self) {
        let is_tried = self.is_tried();
        let tried = self.tried();
        if is_tried {
            let until = Instant::now() + tried.failures.wait();
            tried.wait = Some(Wait { until, for_log: false });
        }
        tried.confirmations = tried.confirmations.saturating_add(1);
    }

    /// Whether the log said so often that the position is right that something is wrong with it;
    /// then it is asked again only after a while.
    pub(super) fn is_tried(&self) -> bool {
        self.0.as_ref().is_some_and(|tried| tried.confirmations >= CONFIRMATIONS_FREE)
    }

    /// Whether a reset may be told now. One that follows another is told if the log still says so
    /// after a wait.
    pub(super) fn may_reset(&mut self) -> bool {
        let tried = self.tried();
        if !tried.was_reset {
            tried.was_reset = true;
            return true;
        }
        tried.was_reset = false;
        tried.wait = Some(Wait { until: Instant::now() + tried.resets.wait(), for_log: false });
        false
    }

    /// Entries up to `seq` were said, of a log whose incarnation is `current` now.
    pub(super) fn on_said(&mut self, current: Epoch, seq: u64) {
        let Some(tried) = &mut self.0 else { return };
        tried.confirmations = 0;
        tried.failures.reset();
        let is_progress =
            tried.furthest.is_none_or(|(epoch, furthest)| epoch != current || seq > furthest);
        if is_progress {
            tried.furthest = Some((current, seq));
            tried.resets.reset();
            tried.was_reset = false;
            tried.wait = None;
        }
    }

    fn tried(&mut self) -> &mut Tried {
        self.0.get_or_insert_with(|| {
            Box::new(Tried {
                failures: Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX),
                resets: Backoff::new(RESET_DELAY_MIN, RESET_DELAY_MAX),
                wait: None,
                confirmations: 0,
                was_reset: false,
                furthest: None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    /// How long until the log may be asked, once that time has come.
    async fn waited(patience: &Patience) -> Duration {
        let began_at = Instant::now();
        while let Some(until) = patience.waits_until() {
            tokio::time::sleep_until(until).await;
        }
        began_at.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_told_at_once_and_those_that_follow_it_wait_longer_each_time() {
        let mut patience = Patience::default();
        // The entries that the log has are said after the first reset, and again after each other.
        assert!(patience.may_reset());
        patience.on_said(epoch("aaaa"), 10);
        for full in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert!(patience.may_reset());
            patience.on_said(epoch("aaaa"), 10);
            assert!(!patience.may_reset(), "not again without a wait");
            let waited = waited(&patience).await.as_millis();
            assert!((full / 2..=full + 1).contains(&waited), "{waited} of {full}");
        }
        // An entry that is new, or another incarnation of the log, and all is well.
        patience.on_said(epoch("aaaa"), 11);
        assert!(patience.may_reset());
        patience.on_said(epoch("bbbb"), 1);
        assert!(patience.may_reset());
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_may_be_confirmed_a_few_times_and_then_not_without_a_wait() {
        let mut patience = Patience::default();
        for _ in 0..CONFIRMATIONS_FREE {
            assert!(!patience.is_tried());
            patience.on_confirmed();
            assert_eq!(patience.waits_until(), None);
        }
        let mut all = Duration::ZERO;
        for _ in 0..10 {
            assert!(patience.is_tried());
            patience.on_confirmed();
            patience.on_heard_again();
            all += waited(&patience).await;
        }
        assert!(all > Duration::from_secs(15), "{all:?}");
        patience.on_said(epoch("aaaa"), 1);
        assert!(!patience.is_tried());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_log_begins_anew_when_it_can_be_heard_again() {
        let mut patience = Patience::default();
        for full in [500, 1_000, 2_000, 4_000, 4_000] {
            patience.on_failure();
            let waited = waited(&patience).await.as_millis();
            assert!((full / 2..=full + 1).contains(&waited), "{waited} of {full}");
        }
        patience.on_failure();
        patience.on_heard_again();
        assert_eq!(patience.waits_until(), None);
        patience.on_failure();
        assert!(waited(&patience).await <= Duration::from_millis(501));
    }
}
