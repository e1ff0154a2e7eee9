//! The highest rate that a server keeps up with, on this machine and beside its load.

use super::fanout::{Shape, drive};
use super::{Measured, Settings};
use crate::server::Kind;

/// A rate counts as kept up with if 99 of 100 deliveries take no longer, in milliseconds.
const LATENCY_MAX: f64 = 500.0;
/// Where the search begins, in deliveries a second.
const RATE_MIN: f64 = 20_000.0;
/// How it goes up.
const FACTOR: f64 = 1.5;
/// Halvings of the last step.
const HALVINGS: usize = 3;

/// Deliveries a second to 1,000 streams of one topic, by search upwards.
///
/// # Errors
/// When the server cannot keep up with any rate.
pub(crate) fn limit(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("limit", kind);
    let (server, _) = settings.start(kind)?;
    let seconds = if settings.quick { 1.0 } else { 2.0 };
    let mut last_failure = String::new();
    let mut once = |rate: f64| {
        let subscribers = settings.at_most(1000);
        let shape = Shape { seconds, warm_up_seconds: 0.5, ..Shape::of(1, subscribers, rate) };
        let reason = match drive(settings, &server, shape) {
            Ok(cost) => {
                let latency = cost.account.latencies.milliseconds(0.99);
                if latency <= LATENCY_MAX {
                    return true;
                }
                format!("p99 is {latency:.0} ms")
            }
            Err(why) => why,
        };
        eprintln!("  limit      {} does not keep up with {rate:.0}/s: {reason}", kind.name);
        last_failure = reason;
        false
    };
    // Whatever else happens on the machine must happen twice to count.
    let mut keeps_up = |rate: f64| once(rate) || once(rate);
    let mut low = 0.0;
    let mut high = RATE_MIN;
    while keeps_up(high) {
        (low, high) = (high, high * FACTOR);
    }
    let halvings = if settings.quick { 1 } else { HALVINGS };
    for _ in 0..halvings {
        let middle = f64::midpoint(low, high);
        if keeps_up(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    if low == 0.0 {
        return Err(format!("not even {high:.0}/s: {last_failure}"));
    }
    samples.add("1 × 1000", "highest rate, deliveries/s", low);
    Ok(samples.all)
}
