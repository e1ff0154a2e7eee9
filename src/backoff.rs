//! [`Backoff`]: how long to wait before trying again; [`Rarely`]: how often to say so.
//!
//! Every loop that tries again uses these, whatever the reason: what fails at once fails thousands
//! of times a second otherwise, here and at whoever is asked.

use std::time::Duration;

use tokio::time::Instant;

/// Waits that double from the first to the longest, each a random 50 to 100 % of it, so that those
/// who failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, next: first }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: the next failure is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Lets through one line a minute.
#[derive(Debug, Default)]
pub struct Rarely(Option<Instant>);

/// The time between two lines of the same kind.
const RARELY: Duration = Duration::from_secs(60);

impl Rarely {
    /// Whether it is time for a line; the first one is always in time.
    pub fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= RARELY);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_begin_anew_once_it_worked() {
        let milliseconds = Duration::from_millis;
        let mut backoff = Backoff::new(milliseconds(100), milliseconds(1_000));
        for _ in 0..3 {
            for full in [100, 200, 400, 800, 1_000, 1_000] {
                let wait = backoff.wait();
                assert!((milliseconds(full / 2)..=milliseconds(full)).contains(&wait), "{wait:?}");
            }
            backoff.reset();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute() {
        let mut rarely = Rarely::default();
        let mut lines = 0;
        for _ in 0..1_000 {
            lines += usize::from(rarely.is_due());
            tokio::time::sleep(Duration::from_millis(180)).await;
        }
        assert_eq!(lines, 3);
    }
}
