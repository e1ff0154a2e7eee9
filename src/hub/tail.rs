//! [`Tail`]: the newest frames of one topic, and what of them comes after a position.
//!
//! The [`relay`](crate::relay) feeds it; [connections](crate::connection) ask it. Pure.

use std::collections::VecDeque;

use crate::frame::Frame;
use crate::position::{Lineage, Position, Verdict};

/// Frames a tail holds at most: some seconds of a busy topic, so that only readers that are
/// really behind cost the log a read.
pub const TAIL_FRAMES_MAX: usize = 512;

/// Bytes the frames of a tail hold at most; a single larger frame is still held.
pub const TAIL_BYTES_MAX: usize = 1 << 20;

/// What one connection is handed at a time, in frames: with [`HANDOUT_BYTES_MAX`], enough to fill
/// a socket, little enough that a reader that stops holds next to nothing.
pub const HANDOUT_FRAMES_MAX: usize = 64;

/// What one connection is handed at a time, in bytes; a single larger frame is still handed out.
pub const HANDOUT_BYTES_MAX: usize = 64 << 10;

/// The newest frames of one topic.
///
/// Invariants: `frames` is contiguous by seq, and its last one, if any, is at `lineage.head`. So
/// `lineage.head` is how far this node has followed the log, which may be less than the log has.
#[derive(Debug)]
pub struct Tail {
    lineage: Lineage,
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// What comes after a position.
#[derive(Debug)]
pub enum After {
    /// Nothing yet.
    Nothing,
    /// These, and perhaps more.
    Frames(Vec<Frame>),
    /// Entries that the tail holds no longer: ask the log.
    Behind,
    /// The position is ahead of this tail or of an epoch it does not know. The node may be late,
    /// or the client's log may be gone: only a fresh look at the log can tell.
    Unsure,
}

/// What became of an announced frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// It was the next one.
    Appended,
    /// It was known already.
    Known,
    /// Entries before it are missing, or it belongs to another epoch: read the log first.
    Gap,
}

impl Tail {
    /// A tail that begins after everything the log has now.
    pub fn new(lineage: Lineage) -> Tail {
        Tail { lineage, frames: VecDeque::new(), bytes: 0 }
    }

    /// Where the newest known entry is.
    pub fn head(&self) -> Position {
        self.lineage.at(self.lineage.head)
    }

    /// Bytes of the frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What comes after `position`, a handful at a time.
    pub fn after(&self, position: Position) -> After {
        let seq = position.seq;
        match self.lineage.end_of(position.epoch) {
            None => return After::Unsure,
            Some(end) if seq > end => return After::Unsure,
            Some(_) if seq == self.lineage.head => return After::Nothing,
            Some(_) => {}
        }
        let first = self.lineage.head + 1 - self.frames.len() as u64;
        if seq + 1 < first {
            return After::Behind;
        }
        let mut bytes = 0;
        let frames = self
            .frames
            .iter()
            .skip((seq + 1 - first) as usize)
            .take(HANDOUT_FRAMES_MAX)
            .take_while(|frame| {
                let fits = bytes == 0 || bytes + frame.size() <= HANDOUT_BYTES_MAX;
                bytes += frame.size();
                fits
            })
            .cloned()
            .collect();
        After::Frames(frames)
    }

    /// Takes an announced frame if it is the next one.
    pub fn feed(&mut self, frame: Frame) -> Fed {
        let Position { seq, epoch } = frame.position;
        if epoch != self.lineage.epoch {
            // Known if it is an old announcement that came late.
            let old = self.lineage.end_of(epoch).is_some_and(|end| seq <= end);
            return if old { Fed::Known } else { Fed::Gap };
        }
        if seq <= self.lineage.head {
            return Fed::Known;
        }
        if seq > self.lineage.head + 1 {
            return Fed::Gap;
        }
        self.push(frame);
        Fed::Appended
    }

    /// Takes what was read from the log: `lineage` as it was then, and the entries after this
    /// tail's head, in order. Says whether the log had more.
    pub fn renew(&mut self, lineage: Lineage, read: Vec<Frame>) -> bool {
        let log_head = lineage.head;
        let continues = lineage.judge(self.head()) == Verdict::Continues;
        let head = self.lineage.head;
        self.lineage = lineage;
        if continues {
            self.lineage.head = head;
        } else {
            self.frames.clear();
            self.bytes = 0;
            self.lineage.head = self.lineage.oldest - 1;
        }
        for frame in read {
            if frame.position.seq == self.lineage.head + 1 {
                self.push(frame);
            }
        }
        if !continues && self.frames.is_empty() {
            // Nothing usable was read: begin after everything the log has. Readers further back
            // find their way through the log.
            self.lineage.head = log_head;
        }
        self.lineage.head < log_head
    }

    /// Forgets all frames but the newest: memory is short.
    pub fn shrink(&mut self) {
        while self.frames.len() > 1 {
            self.pop();
        }
    }

    fn push(&mut self, frame: Frame) {
        self.lineage.head = frame.position.seq;
        self.bytes += frame.size();
        self.frames.push_back(frame);
        while self.frames.len() > TAIL_FRAMES_MAX
            || (self.bytes > TAIL_BYTES_MAX && self.frames.len() > 1)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.size();
        }
    }
}
