//! [`LatencyHistogram`]: how long deliveries took, as counts in buckets that grow by 6 %.

use std::time::Duration;

/// Buckets per doubling of the time.
const STEPS: u32 = 16;

/// From a microsecond to some nineteen hours.
const BUCKETS: usize = (STEPS * 36) as usize;

/// A histogram of durations; its size does not depend on how many.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for LatencyHistogram {
    fn default() -> LatencyHistogram {
        LatencyHistogram { buckets: vec![0; BUCKETS], count: 0, max: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// Counts one.
    pub fn add(&mut self, lag: Duration) {
        let microseconds = lag.as_micros().max(1) as f64;
        let bucket = (microseconds.log2() * f64::from(STEPS)) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(lag);
    }

    /// The time within which this part of them was, 0 to 1; at most 5 % too long. Zero if there
    /// are none.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let microseconds = ((bucket + 1) as f64 / f64::from(STEPS)).exp2();
                return Duration::from_secs_f64(microseconds / 1e6).min(self.max);
            }
        }
        Duration::ZERO
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_list_within_a_bucket(
            mut times in proptest::collection::vec(1..100_000_000_u64, 1..200),
            part in 0.0..1.0_f64,
        ) {
            let mut lags = LatencyHistogram::default();
            for &time in &times {
                lags.add(Duration::from_micros(time));
            }
            times.sort_unstable();
            let rank = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len());
            let exact = times[rank - 1] as f64;
            let told = lags.quantile(part).as_secs_f64() * 1e6;
            prop_assert!(told >= exact * 0.999 && told <= exact * 1.05, "{told} for {exact}");
            prop_assert_eq!(lags.max(), Duration::from_micros(*times.last().unwrap()));
        }
    }
}
