//! What an input costs: processor time of this thread, which no neighbour on the machine adds to.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What any input may cost, and every KiB of it more. A reading takes some microseconds a KiB, and the
/// checks of a target some times that; what goes over its input again for each of its bytes takes
/// hundreds of milliseconds for 64 KiB.
const BASE: Duration = Duration::from_millis(20);
const EACH_KIB: Duration = Duration::from_millis(1);

/// Tries until an input has failed. Interrupts and cold caches cost too, but not again and again.
const TRIES: usize = 4;

/// Runs something that has read so many bytes.
///
/// # Panics
/// It took longer than they allow, each time.
pub fn is_linear(bytes: usize, run: impl Fn()) {
    let allowed = BASE + EACH_KIB * u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        let began_at = processor_time();
        run();
        least = least.min(processor_time().saturating_sub(began_at));
        if least <= allowed {
            return;
        }
    }
    panic!("{bytes} bytes took {least:?} of a processor, and {allowed:?} are allowed");
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_at_every_pair_is_not_linear() {
        let bytes = vec![b'a'; 8 << 10];
        let pairs = || {
            let mut same = 0_u64;
            for one in &bytes {
                same += std::hint::black_box(&bytes).iter().filter(|other| *other == one).count()
                    as u64;
            }
            std::hint::black_box(same);
        };
        assert!(std::panic::catch_unwind(|| is_linear(bytes.len(), pairs)).is_err());
        is_linear(bytes.len(), || {
            std::hint::black_box(&bytes).iter().for_each(|byte| {
                std::hint::black_box(byte);
            });
        });
    }
}
