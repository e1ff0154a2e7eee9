//! [`Tail`]: the newest frames of one topic, and what of them comes after a position.
//!
//! The [`relay`](crate::relay) feeds it; [streams](crate::stream) ask it. Pure.

use std::collections::VecDeque;

use crate::frame::Frame;
use crate::position::{LogHistory, Position, Verdict};

/// Frames a tail holds at most: some seconds of a busy topic, so that only readers that are
/// really behind cost the log a read.
pub const TAIL_FRAMES_MAX: usize = 512;

/// Bytes of memory the frames of a tail take at most; a single larger frame is still held.
pub const TAIL_BYTES_MAX: usize = 1 << 20;

/// What one stream is given at a time, in frames: with [`BATCH_BYTES_MAX`], enough to fill
/// a socket, little enough that a reader that stops holds next to nothing.
pub const BATCH_FRAMES_MAX: usize = 64;

/// What one stream is given at a time, in bytes; a single larger frame is still given.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// The newest frames of one topic.
///
/// Invariants: `frames` is contiguous by seq, and its last one, if any, is at `history.head`. So
/// `history.head` is how far this node has followed the log, which may be less than the log has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tail {
    history: LogHistory,
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// What comes after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
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
pub enum Pushed {
    /// It was the next one.
    Appended,
    /// It was known already.
    Known,
    /// Entries before it are missing, or it belongs to another epoch: read the log first.
    Gap,
}

impl Tail {
    /// A tail that begins after everything the log has now.
    pub fn new(history: LogHistory) -> Tail {
        Tail { history, frames: VecDeque::new(), bytes: 0 }
    }

    /// Where the newest known entry is.
    pub fn head(&self) -> Position {
        self.history.at(self.history.head)
    }

    /// Whether nothing comes after `position` as far as is known, in its own epoch or a later one.
    pub fn is_head(&self, position: Position) -> bool {
        self.history.is_head(position)
    }

    /// Bytes of memory that the frames held take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What comes after `position`, a handful at a time.
    pub fn after(&self, position: Position) -> Next {
        let seq = position.seq;
        match self.history.last_seq_of(position.epoch) {
            None => return Next::Unsure,
            // An earlier epoch may have reached further than this tail has followed yet.
            Some(end) if seq > end || seq > self.history.head => return Next::Unsure,
            Some(_) if seq == self.history.head => return Next::Nothing,
            Some(_) => {}
        }
        let first = self.history.head + 1 - self.frames.len() as u64;
        if seq + 1 < first {
            return Next::Behind;
        }
        let mut bytes = 0;
        let frames = self
            .frames
            .iter()
            .skip((seq + 1 - first) as usize)
            .take(BATCH_FRAMES_MAX)
            .take_while(|frame| {
                let fits = bytes == 0 || bytes + frame.size() <= BATCH_BYTES_MAX;
                bytes += frame.size();
                fits
            })
            .cloned()
            .collect();
        Next::Frames(frames)
    }

    /// Takes an announced frame if it is the next one.
    pub fn push_announced(&mut self, frame: Frame) -> Pushed {
        let Position { seq, epoch } = frame.position;
        if epoch != self.history.epoch {
            // Known if it is an old announcement that came late.
            let old = self.history.last_seq_of(epoch).is_some_and(|end| seq <= end);
            return if old { Pushed::Known } else { Pushed::Gap };
        }
        if seq <= self.history.head {
            return Pushed::Known;
        }
        if seq > self.history.head + 1 {
            return Pushed::Gap;
        }
        self.push(frame);
        Pushed::Appended
    }

    /// Takes what was read from the log: `history` as it was then, and the entries after this
    /// tail's head, in order. Says whether the log had more.
    pub fn refresh(&mut self, history: LogHistory, read: Vec<Frame>) -> bool {
        let log_head = history.head;
        let continues = history.judge(self.head()) == Verdict::Continues;
        let head = self.history.head;
        let unwritten_since = self.history.unwritten_since;
        self.history = history;
        if continues {
            // Who waits here since before the first entry has missed none, whatever the log can say
            // of so long ago.
            self.history.unwritten_since = self.history.unwritten_since.min(unwritten_since);
        }
        let next = read.first().map(|frame| frame.position.seq);
        if continues && head < log_head && next != Some(head + 1) {
            // An entry that the log says it has is not in it: somebody deleted it by hand. Begin
            // after the hole; readers before it find their way through the log.
            self.shrink();
            self.history.head = next.map_or(log_head, |next| next - 1);
        } else if continues {
            self.history.head = head;
        } else {
            self.shrink();
            self.history.head = self.history.oldest - 1;
        }
        for frame in read {
            if frame.position.seq == self.history.head + 1 {
                self.push(frame);
            }
        }
        if !continues && self.frames.is_empty() {
            // Nothing usable was read: begin after everything the log has. Readers further back
            // find their way through the log.
            self.history.head = log_head;
        }
        self.history.head < log_head
    }

    /// Forgets all frames: memory is short. Who is behind goes to the log.
    pub fn shrink(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Whether everything that comes after `position` is here, or nothing comes.
    pub fn reaches(&self, position: Position) -> bool {
        let first = self.history.head + 1 - self.frames.len() as u64;
        let known = self.history.last_seq_of(position.epoch).is_some_and(|end| position.seq <= end);
        known && position.seq <= self.history.head && position.seq + 1 >= first
    }

    fn push(&mut self, frame: Frame) {
        self.history.head = frame.position.seq;
        self.bytes += frame.memory();
        self.frames.push_back(frame);
        while self.frames.len() > TAIL_FRAMES_MAX
            || (self.bytes > TAIL_BYTES_MAX && self.frames.len() > 1)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Data, Entry, Event};
    use crate::position::Epoch;
    use crate::wire::sse;

    #[test]
    fn where_an_entry_was_deleted_it_begins_anew_behind_the_hole() {
        let mut log = Log::new();
        let mut tail = Tail::new(log.history());
        let frames: Vec<Frame> = (0..6).map(|_| log.append(1)).collect();
        // The third is gone.
        assert!(tail.refresh(log.history(), [&frames[..2], &frames[3..]].concat()));
        assert_eq!(tail.head(), frames[1].position);
        assert!(!tail.refresh(log.history(), frames[3..].to_vec()));
        assert_eq!(tail.head(), frames[5].position);
        assert_eq!(tail.after(frames[1].position), Next::Behind);
        assert_eq!(tail.after(frames[3].position), Next::Frames(frames[4..].to_vec()));
        // And the newest two.
        log.append(1);
        log.append(1);
        assert!(!tail.refresh(log.history(), Vec::new()));
        assert_eq!(tail.head().seq, 8);
        assert_eq!(tail.after(frames[5].position), Next::Behind);
    }

    /// The obvious model of a log: everything that was ever appended.
    struct Log {
        epochs: Vec<(Epoch, u64)>,
        entries: Vec<Frame>,
        trimmed: u64,
    }

    impl Log {
        fn new() -> Log {
            Log { epochs: vec![(epoch(0), 0)], entries: Vec::new(), trimmed: 0 }
        }

        fn append(&mut self, bytes: usize) -> Frame {
            let seq = self.entries.len() as u64 + 1;
            let (epoch, _) = self.epochs[self.epochs.len() - 1];
            let text = format!("{seq} {}", "x".repeat(bytes));
            let rest = sse::event_text(&Event { event_type: None, data: Data::Text(text) });
            let position = Position { seq, epoch };
            let frame = sse::frame(&Entry { position, milliseconds: 0, json: false, rest });
            self.entries.push(frame.clone());
            frame
        }

        fn history(&self) -> LogHistory {
            let head = self.entries.len() as u64;
            let mut past_epochs = Vec::new();
            for pair in self.epochs.windows(2) {
                past_epochs.insert(0, (pair[0].0, pair[1].1));
            }
            let (epoch, _) = self.epochs[self.epochs.len() - 1];
            let oldest = self.trimmed + 1;
            LogHistory {
                epoch,
                past_epochs,
                head,
                oldest,
                deleted_through: 0,
                unwritten_since: 0,
                begun_at: 0,
            }
        }

        fn read(&self, after: u64, count: usize) -> Vec<Frame> {
            let from = after.max(self.trimmed) as usize;
            self.entries.iter().skip(from).take(count).cloned().collect()
        }
    }

    fn epoch(n: usize) -> Epoch {
        format!("e{n:03}").parse().unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Append; the announcement comes, or not, or again.
        Append { bytes: usize, announced: usize },
        /// An announcement from long ago comes again.
        Echo(prop::sample::Index),
        /// The relay reads from the log.
        Repair { count: usize },
        /// Another Redis process takes over and has everything.
        Reign,
        /// The log forgets its oldest entries.
        Trim(u64),
        /// Memory is short.
        Shrink,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![4 => 0..20_usize, 1 => 10_000..400_000_usize];
        prop_oneof![
            8 => (bytes, 0..3_usize)
                .prop_map(|(bytes, announced)| Step::Append { bytes, announced }),
            1 => any::<prop::sample::Index>().prop_map(Step::Echo),
            2 => (1..50_usize).prop_map(|count| Step::Repair { count }),
            1 => Just(Step::Reign),
            1 => (0..10_u64).prop_map(Step::Trim),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_reader_of_the_tail_sees_the_log_and_nothing_else(
            steps in proptest::collection::vec(any_step(), 1..120)
        ) {
            let mut log = Log::new();
            let mut tail = Tail::new(log.history());
            for step in steps {
                match step {
                    Step::Append { bytes, announced } => {
                        let frame = log.append(bytes);
                        for n in 0..announced {
                            let fed = tail.push_announced(frame.clone());
                            prop_assert!(n == 0 || fed != Pushed::Appended, "appended twice");
                        }
                    }
                    Step::Echo(index) if !log.entries.is_empty() => {
                        let frame = index.get(&log.entries).clone();
                        let next = tail.head().seq + 1;
                        let fed = tail.push_announced(frame.clone());
                        prop_assert_eq!(
                            fed == Pushed::Appended,
                            frame.position.seq == next && frame.position.epoch == tail.head().epoch
                        );
                    }
                    Step::Echo(_) => {}
                    Step::Repair { count } => {
                        let read = log.read(tail.head().seq, count);
                        let more = tail.refresh(log.history(), read);
                        prop_assert_eq!(more, tail.head().seq < log.history().head);
                    }
                    Step::Reign => {
                        let next = (epoch(log.epochs.len()), log.entries.len() as u64);
                        log.epochs.push(next);
                        if log.epochs.len() > 10 {
                            log.epochs.remove(0);
                        }
                    }
                    Step::Trim(count) => {
                        log.trimmed = (log.trimmed + count).min(log.entries.len() as u64);
                    }
                    Step::Shrink => tail.shrink(),
                }
                prop_assert!(tail.frames.len() <= TAIL_FRAMES_MAX);
                prop_assert!(tail.bytes() <= TAIL_BYTES_MAX || tail.frames.len() == 1);
                prop_assert_eq!(tail.bytes(), tail.frames.iter().map(Frame::memory).sum::<usize>());
                // Every position that was ever handed out, and the one before the first.
                let start = Position { seq: 0, epoch: log.epochs[0].0 };
                for position in log.entries.iter().map(|f| f.position).chain([start]) {
                    match tail.after(position) {
                        Next::Frames(frames) => {
                            prop_assert!(!frames.is_empty());
                            prop_assert!(frames.len() <= BATCH_FRAMES_MAX);
                            let bytes: usize = frames.iter().map(Frame::size).sum();
                            prop_assert!(bytes <= BATCH_BYTES_MAX || frames.len() == 1);
                            for (n, frame) in frames.iter().enumerate() {
                                let expected = &log.entries[position.seq as usize + n];
                                prop_assert_eq!(frame.block(), expected.block());
                            }
                        }
                        Next::Nothing => prop_assert_eq!(position.seq, tail.head().seq),
                        Next::Behind => prop_assert!(position.seq < tail.head().seq),
                        Next::Unsure => {
                            // Never about a position that the tail has passed, in an epoch it
                            // knows.
                            let end = tail.history.last_seq_of(position.epoch);
                            let reached = end.map(|end| end.min(tail.head().seq));
                            prop_assert!(reached.is_none_or(|reached| position.seq > reached));
                        }
                    }
                }
            }
        }
    }
}
