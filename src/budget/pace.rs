//! [`Pace`]: how fast a reader takes what the [budget](super) holds for it. Pure.
//!
//! A reader that takes a few bytes now and then lives, and its stream may be slow for as long as it
//! likes. But a megabyte that it takes a day for is kept from all others that day. So while somebody
//! waits for the budget, each reader must take what is held for it within [`TIMEOUTS_TO_TAKE_ALL`]
//! write timeouts, at its pace in the last window; otherwise its connection is ended, and it comes
//! back to where it was. With the default of a minute a page of a megabyte must go at 4.4 KB/s, a
//! board of 5 MB at 21 KB/s, and the largest at 100 KB/s.
//!
//! So whoever waits for readers that trickle waits one window, a quarter of the write timeout, and
//! the second until somebody looks, for each time that such readers have filled the whole budget
//! before it. For readers that keep their pace it waits no longer than they are allowed to take.

use std::time::{Duration, Instant};

/// How many write timeouts a reader may take for what is held for it, while somebody waits.
pub const TIMEOUTS_TO_TAKE_ALL: usize = 4;

/// Windows in a write timeout. In a shorter one a client that changes from one network to another
/// may take nothing at all.
const WINDOWS: u32 = 4;

/// How much a reader took lately.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    window_began_at: Instant,
    taken: usize,
}

impl Pace {
    /// Of a reader that begins now.
    pub fn new(now: Instant) -> Pace {
        Pace { window_began_at: now, taken: 0 }
    }

    /// It took so many bytes.
    pub fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// If a window is over: what was taken in it, in bytes. Then the next one begins.
    pub(super) fn taken_in_window(
        &mut self,
        now: Instant,
        write_timeout: Duration,
    ) -> Option<usize> {
        if now.saturating_duration_since(self.window_began_at) < write_timeout / WINDOWS {
            return None;
        }
        self.window_began_at = now;
        Some(std::mem::take(&mut self.taken))
    }
}

/// Whether these bytes in a window are too few for a reader for whom so many are held.
pub(super) fn is_too_little(taken: usize, held: usize) -> bool {
    taken < held / (TIMEOUTS_TO_TAKE_ALL * WINDOWS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a reader that takes so many bytes a second of what is held for it keeps its pace.
    fn keeps_pace(bytes_a_second: usize, held: usize) -> bool {
        let write_timeout = Duration::from_secs(60);
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        (0..60).all(|_| {
            now += Duration::from_secs(1);
            pace.took(bytes_a_second);
            pace.taken_in_window(now, write_timeout).is_none_or(|taken| !is_too_little(taken, held))
        })
    }

    #[test]
    fn a_phone_in_a_train_keeps_its_pace_and_a_trickle_does_not() {
        assert!(keeps_pace(50 << 10, 5 << 20));
        assert!(keeps_pace(5 << 10, 1 << 20));
        assert!(keeps_pace(128 << 10, 24 << 20));
        assert!(!keeps_pace(70, 1 << 20));
        assert!(!keeps_pace(4 << 10, 1 << 20));
        assert!(!keeps_pace(50 << 10, 24 << 20));
        // Nobody minds who holds nothing.
        assert!(keeps_pace(0, 0));
    }
}
