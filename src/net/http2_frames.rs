//! [`FrameBudget`]: how many HTTP/2 frames that carry nothing a connection may send.
//!
//! The HTTP server reads PRIORITY frames and those of types that it does not know for nothing, as
//! many as come, and answers each PING and each SETTINGS. Every frame is cheap, and some million a
//! second on two connections make everybody else wait. So the heads of frames are counted on their way
//! (RFC 9113 §4.1); their contents are the HTTP server's matter. What bears on something is not
//! counted: it is bounded by requests, or by what is delivered (WINDOW_UPDATE).

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::time::Instant;

use crate::backoff::Rarely;
use crate::telemetry::metric;

/// What each connection of HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length in three bytes, type, flags, stream in four.
const HEAD_BYTES: usize = 9;

/// Types of frames, and a flag (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// How many frames that carry nothing come at once, and in a second after that: a hundred times what
/// well-known clients send.
const AT_ONCE: u32 = 4_000;
const A_SECOND: u32 = 2_000;

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct FrameBudget {
    frames: Frames,
    left: u32,
    refilled_at: Instant,
}

impl Default for FrameBudget {
    fn default() -> FrameBudget {
        FrameBudget { frames: Frames::default(), left: AT_ONCE, refilled_at: Instant::now() }
    }
}

impl FrameBudget {
    /// Looks at what has come.
    ///
    /// # Errors
    /// When there were too many frames that carry nothing.
    pub(super) fn spend(&mut self, bytes: &[u8]) -> io::Result<()> {
        let spent = self.frames.read(bytes);
        if spent == 0 {
            return Ok(());
        }
        if spent > self.left {
            self.refill();
        }
        let Some(left) = self.left.checked_sub(spent) else {
            static LINE: Mutex<Option<Rarely>> = Mutex::new(None);
            metric::http2_abuse("frames");
            let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
            if line.get_or_insert_default().is_due() {
                tracing::warn!(
                    "a connection of HTTP/2 was ended: it sent too many frames that carry nothing"
                );
            }
            return Err(io::Error::other("too many frames that carry nothing"));
        };
        self.left = left;
        Ok(())
    }

    /// Asks the clock only when it has to be known.
    fn refill(&mut self) {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.refilled_at, now);
        let refill = since.as_secs_f64() * f64::from(A_SECOND);
        self.left = self.left.saturating_add(refill as u32).min(AT_ONCE);
    }
}

/// Where in its frames a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// So many bytes of the preface have come, and nothing else.
    Preface(usize),
    /// So many bytes of the head of a frame.
    Head([u8; HEAD_BYTES], usize),
    /// What is left of the contents of a frame.
    Contents(usize),
    /// It is no HTTP/2.
    Other,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames::Preface(0)
    }
}

impl Frames {
    /// Reads what comes next. How many frames began in it that carry nothing.
    fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        while !bytes.is_empty() {
            let read = match self {
                Frames::Other => return count,
                Frames::Preface(come) => {
                    let expected = &PREFACE[*come..];
                    let read = bytes.len().min(expected.len());
                    if bytes[..read] != expected[..read] {
                        *self = Frames::Other;
                        return count;
                    }
                    *self = match *come + read {
                        all if all == PREFACE.len() => Frames::Head([0; HEAD_BYTES], 0),
                        part => Frames::Preface(part),
                    };
                    read
                }
                Frames::Head(head, come) => {
                    let read = bytes.len().min(HEAD_BYTES - *come);
                    head[*come..*come + read].copy_from_slice(&bytes[..read]);
                    *come += read;
                    if *come == HEAD_BYTES {
                        let [high, middle, low, kind, flags, ..] = *head;
                        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                        count += u32::from(carries_nothing(kind, flags, length));
                        *self = Frames::Contents(length);
                    }
                    read
                }
                Frames::Contents(left) => {
                    let read = bytes.len().min(*left);
                    *left -= read;
                    if *left == 0 {
                        *self = Frames::Head([0; HEAD_BYTES], 0);
                    }
                    read
                }
            };
            bytes = &bytes[read..];
        }
        // A frame without contents is over with its head.
        if *self == Frames::Contents(0) {
            *self = Frames::Head([0; HEAD_BYTES], 0);
        }
        count
    }
}

fn carries_nothing(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS | PUSH_PROMISE | WINDOW_UPDATE | CONTINUATION => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PRIORITY: u8 = 2;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, high, middle, low] = (length as u32).to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + length, 0xff);
        frame
    }

    #[test]
    fn what_bears_on_something_is_not_counted() {
        let counted = |frame: Vec<u8>| {
            let mut frames = Frames::default();
            frames.read(&[PREFACE, &frame].concat())
        };
        for (kind, flags, length) in [
            (DATA, 0, 1),
            (DATA, END_STREAM, 0),
            (HEADERS, 4, 20),
            (WINDOW_UPDATE, 0, 4),
            (CONTINUATION, 0, 0),
        ] {
            assert_eq!(counted(frame(kind, flags, length)), 0, "{kind}");
        }
        for (kind, length) in
            [(DATA, 0), (PRIORITY, 5), (3, 4), (4, 0), (PING, 8), (7, 8), (0x10, 0), (0xff, 99)]
        {
            assert_eq!(counted(frame(kind, 0, length)), 1, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_send_some_thousands_at_once_and_in_a_second() {
        let ping = frame(PING, 0, 8);
        let mut budget = FrameBudget::default();
        budget.spend(PREFACE).unwrap();
        for _ in 0..AT_ONCE {
            budget.spend(&ping).unwrap();
        }
        assert!(budget.spend(&ping).is_err());
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..A_SECOND {
                budget.spend(&ping).unwrap();
            }
        }
        assert!(budget.spend(&ping).is_err());
        // Those who have been quiet for long have no more than at the beginning.
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert!(budget.spend(&ping.repeat(AT_ONCE as usize + 1)).is_err());
    }

    #[test]
    fn http_1_is_left_alone() {
        let mut budget = FrameBudget::default();
        budget.spend(b"PRI").unwrap();
        for _ in 0..1_000 {
            budget.spend(&frame(PING, 0, 8).repeat(100)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            kinds in prop::collection::vec((any::<u8>(), any::<u8>(), 0..300_usize), 0..40),
            cuts in prop::collection::vec(1..200_usize, 1..60),
        ) {
            let expected = kinds.iter().filter(|(kind, flags, length)| carries_nothing(*kind, *flags, *length));
            let expected = expected.count() as u32;
            let frames = kinds.iter().map(|(kind, flags, length)| frame(*kind, *flags, *length));
            let all: Vec<u8> = PREFACE.iter().copied().chain(frames.flatten()).collect();
            let mut rest = &all[..];
            let mut reading = Frames::default();
            let mut count = 0;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at((*cut).min(rest.len()));
                count += reading.read(part);
                rest = behind;
            }
            prop_assert_eq!(count, expected);
            prop_assert_eq!(reading, Frames::Head([0; HEAD_BYTES], 0));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            is_http_2: bool,
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let mut reading = Frames::default();
            if is_http_2 {
                reading.read(PREFACE);
            }
            for part in parts {
                reading.read(&part);
            }
        }
    }
}
