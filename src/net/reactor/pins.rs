//! [`Pins`]: memory of frames that only readers who stopped in the middle of them still need.

use std::collections::HashMap;

use bytes::Bytes;

/// Frames smaller than this, in bytes, are not counted: so many streams with one of them each take
/// no more than their sockets do.
const COUNTED_BYTES_MIN: usize = 4 << 10;

/// What blocked streams of one reactor keep in memory of frames, in bytes, each frame once: a tail
/// that goes on lets go of its frames, but a stream that has taken the beginning of one needs the
/// rest. Beyond it those that take nothing for longest are given up.
pub(super) const PINNED_BYTES_MAX: usize = 32 << 20;

/// The frames that streams stopped in, by where they end in memory.
#[derive(Default)]
pub(super) struct Pins {
    frames: HashMap<usize, Pinned>,
    bytes: usize,
}

struct Pinned {
    streams: usize,
    bytes: usize,
}

/// One stream's hold on a frame, to be given back.
#[derive(Clone, Copy)]
pub(super) struct Pin(usize);

impl Pins {
    /// Counts a stream that waits with the rest of a frame.
    pub(super) fn pin(&mut self, rest: &Bytes) -> Option<Pin> {
        if rest.len() < COUNTED_BYTES_MIN {
            return None;
        }
        // All rests of one frame end at the same place.
        let end = rest.as_ptr() as usize + rest.len();
        let pinned = self.frames.entry(end).or_insert(Pinned { streams: 0, bytes: 0 });
        pinned.streams += 1;
        // The whole frame stays, of which the longest rest gives the best idea.
        let grown = rest.len().saturating_sub(pinned.bytes);
        pinned.bytes += grown;
        self.bytes += grown;
        Some(Pin(end))
    }

    /// Counts it no longer.
    pub(super) fn unpin(&mut self, Pin(end): Pin) {
        let Some(pinned) = self.frames.get_mut(&end) else { return };
        pinned.streams -= 1;
        if pinned.streams == 0 {
            self.bytes -= pinned.bytes;
            self.frames.remove(&end);
        }
    }

    /// Whether more is kept than may be.
    pub(super) fn is_over(&self) -> bool {
        self.bytes > PINNED_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_once_however_many_stopped_in_it() {
        let mut pins = Pins::default();
        let frame = Bytes::from(vec![0; 1 << 20]);
        let held: Vec<Pin> = (0..1_000).filter_map(|n| pins.pin(&frame.slice(n..))).collect();
        assert_eq!(pins.bytes, 1 << 20);
        let others: Vec<Bytes> = (0..32).map(|_| Bytes::from(vec![0; 1 << 20])).collect();
        let other_pins: Vec<Pin> = others.iter().filter_map(|other| pins.pin(other)).collect();
        assert!(pins.is_over());
        held.into_iter().for_each(|pin| pins.unpin(pin));
        assert!(!pins.is_over());
        other_pins.into_iter().for_each(|pin| pins.unpin(pin));
        assert_eq!((pins.bytes, pins.frames.len()), (0, 0));
        assert!(pins.pin(&Bytes::from_static(b"small")).is_none());
    }
}
