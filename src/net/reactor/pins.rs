//! [`Pins`]: memory of frames that only readers who stopped in the middle of them still need.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Frames smaller than this, in bytes, are not counted: so many streams with one of them each take
/// no more than their sockets do.
const COUNTED_BYTES_MIN: usize = 4 << 10;

/// What blocked streams of a node keep in memory of frames, in bytes, each frame once a reactor: a
/// tail that goes on lets go of its frames, but a stream that has taken the beginning of one, or was
/// told of it by its follower, needs the rest. Beyond it those that take nothing for longest are
/// given up, in the reactors that keep more than their share.
pub(super) const PINNED_BYTES_MAX: usize = 32 << 20;

/// What the reactors of a node keep together.
pub(super) struct PinnedByNode {
    bytes: AtomicUsize,
    reactors: usize,
}

impl PinnedByNode {
    pub(super) fn new(reactors: usize) -> Arc<PinnedByNode> {
        Arc::new(PinnedByNode { bytes: AtomicUsize::new(0), reactors: reactors.max(1) })
    }
}

/// The frames that streams of a reactor stopped in, by where they end in memory.
pub(super) struct Pins {
    frames: HashMap<usize, Pinned>,
    bytes: usize,
    node: Arc<PinnedByNode>,
}

struct Pinned {
    streams: usize,
    bytes: usize,
}

/// One stream's hold on a frame, to be given back.
#[derive(Clone, Copy)]
pub(super) struct Pin(usize);

impl Pins {
    pub(super) fn new(node: Arc<PinnedByNode>) -> Pins {
        Pins { frames: HashMap::new(), bytes: 0, node }
    }

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
        self.node.bytes.fetch_add(grown, Ordering::Relaxed);
        Some(Pin(end))
    }

    /// Counts it no longer.
    pub(super) fn unpin(&mut self, Pin(end): Pin) {
        let Some(pinned) = self.frames.get_mut(&end) else { return };
        pinned.streams -= 1;
        if pinned.streams == 0 {
            self.bytes -= pinned.bytes;
            self.node.bytes.fetch_sub(pinned.bytes, Ordering::Relaxed);
            self.frames.remove(&end);
        }
    }

    /// Whether more is kept than may be, and more here than this reactor's share: if all of them
    /// together keep too much, at least one does.
    pub(super) fn is_over(&self) -> bool {
        self.node.bytes.load(Ordering::Relaxed) > PINNED_BYTES_MAX
            && self.bytes > PINNED_BYTES_MAX / self.node.reactors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_once_however_many_stopped_in_it() {
        let mut pins = Pins::new(PinnedByNode::new(1));
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

    #[test]
    fn reactors_have_one_sum_and_those_with_more_than_their_share_give_way() {
        let node = PinnedByNode::new(2);
        let (mut greedy, mut modest) = (Pins::new(node.clone()), Pins::new(node));
        let frames: Vec<Bytes> = (0..33).map(|_| Bytes::from(vec![0; 1 << 20])).collect();
        let held: Vec<Pin> = frames[..30].iter().filter_map(|frame| greedy.pin(frame)).collect();
        assert!(!greedy.is_over());
        for frame in &frames[30..] {
            modest.pin(frame);
        }
        assert!(greedy.is_over() && !modest.is_over());
        greedy.unpin(held[0]);
        assert!(!greedy.is_over());
    }
}
