//! [`Server`]: one Redis with the keys of one topic, by the rules of its scripts.

use bytes::Bytes;
use fantail::frame::Frame;
use fantail::position::{Epoch, Lineage, Position};

use crate::broken::Break;
use crate::keyspace::{Key, Keyspace};
use crate::truth::{Moment, Truth};

/// A Redis process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    keys: Keyspace,
    reign: u64,
    /// What has truly happened to this log.
    pub tip: Moment,
}

/// What a script returned, and the truth at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// `None` if the topic has no log.
    pub page: Option<Page>,
    pub tip: Moment,
    /// The oldest entry that could be read.
    pub oldest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Page {
    pub lineage: Lineage,
    pub frames: Vec<Frame>,
}

impl Server {
    pub fn new(tip: Moment) -> Server {
        Server { keys: Keyspace::default(), reign: 0, tip }
    }

    /// A replica that takes over, or a process that starts again from an old file.
    pub fn take_over(&mut self, copy: &Server) {
        *self = Server { reign: self.reign + 1, ..copy.clone() };
    }

    /// As a replica has it.
    pub fn copy(&self) -> Server {
        Server { reign: 0, ..self.clone() }
    }

    pub fn flush(&mut self, truth: &mut Truth) {
        self.keys = Keyspace::default();
        self.tip = truth.anew();
    }

    pub fn has(&self, key: Key) -> bool {
        match key {
            Key::Seq => self.keys.seq.is_some(),
            Key::Log => self.keys.log.is_some(),
            Key::Meta => self.keys.meta.is_some(),
        }
    }

    pub fn lose(&mut self, key: Key, truth: &mut Truth) {
        self.keys.lose(key);
        if key == Key::Meta {
            truth.forget();
        }
    }

    pub fn head(&self) -> Option<(Epoch, u64)> {
        self.keys.head()
    }

    fn open_keys(&mut self, truth: &mut Truth, broken: Option<Break>) {
        let is_left = self.keys.seq.is_some() || self.keys.log.is_some();
        let epoch = truth.next_epoch();
        if !self.keys.open(self.reign, epoch) {
            return;
        }
        if !is_left {
            self.tip = truth.anew();
        }
        self.tip = truth.begin(self.tip, epoch);
        let meta = self.keys.meta.as_mut().expect("opened");
        match broken {
            Some(Break::PastForgotten) => meta.past.clear(),
            Some(Break::EndNotedTooFar) => meta.past.iter_mut().for_each(|(_, end)| *end += 1),
            Some(Break::EndNotedTooEarly) => {
                meta.past.iter_mut().for_each(|(_, end)| *end = end.saturating_sub(1));
            }
            _ => {}
        }
    }

    /// `append.lua`: the entry, as it is announced.
    pub fn append(
        &mut self,
        truth: &mut Truth,
        entries_max: usize,
        broken: Option<Break>,
    ) -> Frame {
        self.open_keys(truth, broken);
        let (epoch, seq) = self.keys.head().expect("opened");
        self.tip = truth.append(self.tip, Position { seq: seq + 1, epoch });
        // The time of an entry tells which one it is.
        let name = u64::from(self.tip.0);
        let entry = self.keys.append(entries_max, name, false, Bytes::from_static(b"data:\n\n"));
        Frame::new(&entry)
    }

    /// `open.lua`.
    pub fn open(&mut self, truth: &mut Truth, broken: Option<Break>) -> Answer {
        self.open_keys(truth, broken);
        let lineage = self.keys.lineage().expect("opened");
        self.answer(Some(Page { lineage, frames: Vec::new() }))
    }

    /// `read.lua`, with everything after `after`.
    pub fn read(&self, after: u64) -> Answer {
        let page = self.keys.lineage().map(|lineage| {
            let frames = self.keys.entries(after, u64::MAX).map(Frame::new).collect();
            Page { lineage, frames }
        });
        self.answer(page)
    }

    /// An answer of this moment, with this page.
    pub fn answer(&self, page: Option<Page>) -> Answer {
        let kept = self.keys.log.as_ref().and_then(|log| log.front());
        let oldest = kept.map_or(self.keys.seq.unwrap_or(0) + 1, |entry| entry.position.seq);
        Answer { page, tip: self.tip, oldest }
    }
}

/// Which entry a frame is.
pub fn moment(frame: &Frame) -> Moment {
    Moment(frame.milliseconds as u8)
}
