//! [`Verdict`]: what a check found, for people, for machines and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::checker::Checker;
use super::{Counts, GatewayUrl, Kind, LatencyHistogram, Plan, Violation};

/// How many violations are shown in full.
const SHOWN_MAX: usize = 20;

/// Whether the promises were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing that was seen breaks a promise.
    Kept,
    /// Something does.
    Violated,
    /// Nothing was acknowledged or nothing could be delivered, so nothing was tested.
    Inconclusive,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether the promises were kept.
    pub outcome: Outcome,
    /// The sums.
    pub counts: Counts,
    /// How many violations of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// The violations with their evidence, oldest first; at most 1,000, the others are counted.
    pub violations: Vec<Violation>,
    /// How long events were published.
    #[serde(serialize_with = "as_seconds")]
    pub published_for: Duration,
    /// From the last time an event was sent to its delivery: the time within which half of the
    /// deliveries came. Deliveries of events that are older than their subscriber do not count.
    #[serde(serialize_with = "as_seconds")]
    pub lag_p50: Duration,
    /// The time within which 99 % came.
    #[serde(serialize_with = "as_seconds")]
    pub lag_p99: Duration,
    /// The longest.
    #[serde(serialize_with = "as_seconds")]
    pub lag_max: Duration,
    /// The longest time that a subscriber waited for an event that was acknowledged already: how
    /// long the slowest of them was behind at its worst.
    #[serde(serialize_with = "as_seconds")]
    pub longest_wait: Duration,
    /// The same for each subscriber.
    #[serde(skip)]
    pub longest_waits: Vec<Duration>,
    /// Subscribers that asked for a stream and had not had an opening event when it ended.
    pub never_opened: usize,
    /// The random name of this run, which is in the names of its topics.
    pub run: String,
    /// The gateways that were asked.
    pub urls: Vec<GatewayUrl>,
    /// How many topics, publishers and subscribers there were.
    pub topics: usize,
    /// See [`Plan::publishers`].
    pub publishers: usize,
    /// See [`Plan::subscribers`].
    pub subscribers: usize,
    /// All lags, as a histogram.
    #[serde(skip)]
    pub lags: LatencyHistogram,
}

fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Verdict {
    pub(super) fn new(
        checker: &Checker,
        plan: &Plan,
        run: &str,
        published_for: Duration,
    ) -> Verdict {
        let counts = checker.counts();
        let outcome = if counts.violations > 0 {
            Outcome::Violated
        } else if counts.acknowledged == 0 || counts.delivered == 0 {
            Outcome::Inconclusive
        } else {
            Outcome::Kept
        };
        let lags = checker.lags().clone();
        let longest_waits = checker.longest_waits();
        Verdict {
            outcome,
            counts,
            kinds: checker.kinds().clone(),
            violations: checker.violations().to_vec(),
            published_for,
            lag_p50: lags.quantile(0.5),
            lag_p99: lags.quantile(0.99),
            lag_max: lags.max(),
            longest_wait: longest_waits.iter().copied().max().unwrap_or_default(),
            longest_waits,
            never_opened: checker.never_opened(),
            run: run.to_owned(),
            urls: plan.urls.clone(),
            topics: plan.topics,
            publishers: plan.publishers,
            subscribers: plan.subscribers,
            lags,
        }
    }

    /// Whether nothing that was seen breaks a promise, and something was seen.
    pub fn is_kept(&self) -> bool {
        self.outcome == Outcome::Kept
    }

    /// How many violations of this kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }
}

/// Milliseconds with as many digits as matter.
pub(super) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 100.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let seconds = self.published_for.as_secs_f64();
        let rate = if seconds > 0.0 { counts.acknowledged as f64 / seconds } else { 0.0 };
        writeln!(
            f,
            "run          {}: {} publishers, {} subscribers, {} topics, {} gateways",
            self.run,
            self.publishers,
            self.subscribers,
            self.topics,
            self.urls.len()
        )?;
        writeln!(
            f,
            "events       {} acknowledged in {seconds:.1} s ({rate:.0} a second); {} sent again, \
             {} never answered, {} refused",
            counts.acknowledged, counts.retries, counts.unknown, counts.refused
        )?;
        writeln!(
            f,
            "deliveries   {} over {} connections; {} left by roaming, {} dropped or refused, {} of them silent",
            counts.delivered, counts.connections, counts.roams, counts.drops, counts.silent_streams
        )?;
        writeln!(
            f,
            "lag          p50 {}, p99 {}, max {}; longest wait for an acknowledged event {}",
            milliseconds(self.lag_p50),
            milliseconds(self.lag_p99),
            milliseconds(self.lag_max),
            milliseconds(self.longest_wait)
        )?;
        writeln!(
            f,
            "resets       {}: {} justified, {} spurious, {} that could not be judged",
            counts.resets, counts.resets_justified, counts.resets_spurious, counts.resets_unjudged
        )?;
        writeln!(
            f,
            "lost         {} deliveries in silence, {} told by a reset, {} lost by the log",
            counts.lost_in_silence, counts.lost_and_told, counts.lost_by_log
        )?;
        writeln!(
            f,
            "duplicated   {} by a retry; {} published again after the log had lost them",
            counts.duplicate_appends, counts.republished_after_loss
        )?;
        if self.never_opened > 0 {
            writeln!(f, "never opened {} subscribers had no stream", self.never_opened)?;
        }
        for (n, violation) in self.violations.iter().take(SHOWN_MAX).enumerate() {
            writeln!(f, "\n{}. {violation}", n + 1)?;
        }
        let hidden = counts.violations.saturating_sub(SHOWN_MAX as u64);
        if hidden > 0 {
            writeln!(f, "\nand {hidden} more")?;
        }
        match self.outcome {
            Outcome::Kept => write!(f, "\nKEPT: everything was as promised"),
            Outcome::Inconclusive => {
                write!(
                    f,
                    "\nINCONCLUSIVE: nothing was acknowledged or delivered, so nothing was tested"
                )
            }
            Outcome::Violated => {
                write!(f, "\nVIOLATED: ")?;
                for (n, (kind, count)) in self.kinds.iter().enumerate() {
                    let comma = if n == 0 { "" } else { ", " };
                    write!(f, "{comma}{count} × {}", kind.as_str())?;
                }
                Ok(())
            }
        }
    }
}
