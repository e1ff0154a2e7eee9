//! The run's clock: microseconds since the program's first look at it, the same in all threads.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, in microseconds of the run's clock.
pub(crate) fn now() -> u64 {
    BEGAN.elapsed().as_micros() as u64
}

/// Tries `done` every millisecond until it holds.
///
/// # Errors
/// After `at_most`, what was awaited.
pub(crate) fn until(
    what: &str,
    at_most: Duration,
    mut done: impl FnMut() -> bool,
) -> Result<(), String> {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > at_most {
            return Err(format!("waited {} s in vain: {what}", at_most.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
