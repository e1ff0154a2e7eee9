//! [`Histogram`]: latencies in microseconds, counted to within one per cent.

/// Buckets for each doubling of the value: the error is at most one in 128.
const STEPS: usize = 128;
/// Doublings from [`STEPS`] on that are told apart: up to 2^(7+29) µs, 19 hours.
const DOUBLINGS: usize = 29;

/// How often each latency was seen.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; STEPS * (DOUBLINGS + 1)], total: 0, most: 0 }
    }
}

impl Histogram {
    /// Counts one latency, in microseconds.
    pub(crate) fn record(&mut self, microseconds: u64) {
        let index = index(microseconds).min(self.counts.len() - 1);
        self.counts[index] += 1;
        self.total += 1;
        self.most = self.most.max(microseconds);
    }

    /// Counts everything that `other` has counted.
    pub(crate) fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    /// How many latencies were counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latency in milliseconds that `share` (0 to 1) of all do not exceed; 0 if there is none.
    pub(crate) fn milliseconds(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return upper(index).min(self.most) as f64 / 1e3;
            }
        }
        0.0
    }
}

/// The bucket of a value: itself below [`STEPS`], then its highest seven bits after the first.
fn index(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let doubling = (value.ilog2() - STEPS.ilog2()) as usize;
    (doubling + 1) * STEPS + ((value >> doubling) as usize - STEPS)
}

/// The greatest value of a bucket.
fn upper(index: usize) -> u64 {
    match index / STEPS {
        0 => index as u64,
        row => ((STEPS + index % STEPS + 1) as u64) << (row - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantile_is_within_one_per_cent() {
        let mut histogram = Histogram::default();
        for value in 1..=1_000_000 {
            histogram.record(value);
        }
        for share in [0.001, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let found = histogram.milliseconds(share);
            let right = 1000.0 * share;
            assert!((found - right).abs() <= right / 100.0, "{share}: {found} is not {right}");
        }
    }

    #[test]
    fn sums_are_the_same_as_counting_together() {
        let (mut one, mut two, mut both) = <(Histogram, Histogram, Histogram)>::default();
        for value in [0, 1, 127, 128, 129, 5_000, u64::MAX] {
            one.record(value);
            two.record(value / 3);
            both.record(value);
            both.record(value / 3);
        }
        one.add(&two);
        assert_eq!((one.counts, one.total, one.most), (both.counts, both.total, both.most));
    }
}
