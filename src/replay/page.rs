//! [`ReplayPage`]: a stretch of a log, and what of it a stream may be told. Pure.

use crate::frame::Frame;
use crate::position::{LogHistory, Position, Verdict};

/// A stretch of a log as frames.
pub struct ReplayPage {
    /// The log at the moment of reading.
    pub history: LogHistory,
    /// Frames in order. Without a hole, unless somebody deleted entries by hand.
    pub frames: Vec<Frame>,
    /// Up to which entry was to be read. It has fewer if they are large, or if there are no more.
    pub to: u64,
}

impl ReplayPage {
    /// Whether it ends before the entry after `seq` because its entries are large: then another page
    /// has that one.
    pub fn ends_before(&self, seq: u64) -> bool {
        let last = self.frames.last().map(|frame| frame.position.seq);
        last.is_some_and(|last| last <= seq && last < self.to.min(self.history.head))
    }
}

/// What of a page comes after `position`, up to a hole; nothing unless the page's own view of the log says that
/// the position continues: the log may have become another one since the tail was asked.
pub fn frames_after<'a>(
    history: &LogHistory,
    frames: &'a [Frame],
    position: Position,
) -> Option<&'a [Frame]> {
    if history.judge(position) != Verdict::Continues {
        return None;
    }
    let next = frames.iter().position(|frame| frame.position.seq == position.seq + 1)?;
    let next = &frames[next..];
    let follows = |pair: &[Frame]| pair[1].position.seq == pair[0].position.seq + 1;
    let count = 1 + next.windows(2).take_while(|pair| follows(pair)).count();
    Some(&next[..count])
}

/// Whether a page that was read before the question will do for a stream at `position`: it has the
/// entry after it, is of the incarnation that the tail follows, and knows no more than the tail.
///
/// Within one incarnation entries do not change. But after a flush or a lossy failover the same
/// numbers stand for other entries, or for none: until somebody writes, a server that went back in
/// time keeps the epoch, and a page from before knows more than there is.
pub fn page_will_do(
    history: &LogHistory,
    frames: &[Frame],
    position: Position,
    tail_head: Position,
) -> bool {
    history.epoch == tail_head.epoch
        && history.head <= tail_head.seq
        && frames_after(history, frames, position).is_some()
}
