//! How the streams of a reactor get what their topics' tails have for them.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::streams::{Member, Membership, Source, Stream, StreamSocket, Streams, advance, end_of};
use super::timer_wheel::Id;
use crate::frame::Frame;
use crate::frame::digest::Digest;
use crate::hub::HubTopic;
use crate::hub::tail::{BATCH_FRAMES_MAX, Next};
use crate::position::Position;
use crate::said::Said;
use crate::stream::decide::{self, Step};
use crate::telemetry::metric;
use crate::wire::{Encoded, Encoding, Parts, Speech, Uncompressed};

/// Streams served at a time before another topic has its turn: so a topic with ten thousand
/// listeners holds up the first byte of the others by about a millisecond.
const SLICE: usize = 128;

/// Frames given at a time to a stream of several topics, each with a cursor of its own.
const CURSOR_FRAMES_MAX: usize = 16;

/// What a slice of work delivered, for the metrics.
#[derive(Default)]
struct DeliveryStats {
    entries: usize,
    bytes: usize,
    batches: usize,
    newest: u64,
}

/// What a topic's tail has for those who stand at one position.
struct Batch {
    position: Position,
    step: Step<Vec<Frame>>,
    /// Whether the tail has more than that.
    is_part: bool,
    /// The frames as chunks of the encodings that somebody needs.
    encoded: Vec<(Encoding, Vec<Encoded>)>,
}

impl Batch {
    fn of(topic: &HubTopic, position: Position) -> Batch {
        let next = topic.after(position);
        let is_part = match &next {
            Some(Next::Frames(frames)) => frames.last().map(|frame| frame.position) != topic.head(),
            _ => false,
        };
        // A topic that is being opened anew has no tail; the log will tell.
        let step = match next {
            None => Step::AskLog,
            next => decide::after_tail(next, false),
        };
        Batch { position, step, is_part, encoded: Vec::new() }
    }

    /// Has the chunks of an encoding other than identity, once for all its streams.
    fn encode(&mut self, speech: Speech) {
        let Step::Say(frames) = &self.step else { return };
        if self.chunks(speech).is_empty() {
            let chunks = frames.iter().map(|frame| speech.entry_chunk(frame)).collect();
            self.encoded.push((speech.encoding, chunks));
        }
    }

    /// Its frames as chunks of an encoding that it was [encoded](Batch::encode) in.
    fn chunks(&self, speech: Speech) -> &[Encoded] {
        let known = self.encoded.iter().find(|(of, _)| *of == speech.encoding);
        known.map_or(&[], |(_, chunks)| chunks)
    }
}

impl<S: StreamSocket> Streams<S> {
    /// Whether there is something to do before anything happens.
    pub(super) fn is_busy(&self) -> bool {
        !self.changed.is_empty() || !self.ready.is_empty() || self.orders_heard_until.is_some()
    }

    /// A topic has changed.
    pub(super) fn topic_changed(&mut self, key: u32) {
        // The last stream of the topic may have left meanwhile.
        let Some(followed) = self.topics.get_mut(key as usize) else { return };
        if followed.is_queued {
            followed.requeue = true;
        } else {
            followed.is_queued = true;
            followed.remaining = followed.members.len();
            self.changed.push_back(key);
        }
    }

    /// Something large of a topic is compressed for its streams of this encoding.
    pub(super) fn compressed(&mut self, key: u32, encoding: Encoding) {
        self.compressing.remove(&(key, encoding));
        self.topic_changed(key);
    }

    /// Does one slice of what there is to do. A panic while a stream is served ends that stream.
    pub(super) fn run_slice(&mut self, now: Instant) {
        self.guarded(Streams::hear_orders);
        self.guarded(|streams| {
            for _ in 0..SLICE.min(streams.ready.len()) {
                if let Some(id) = streams.ready.pop_front() {
                    streams.deliver_one(id, now);
                }
            }
        });
        let Some(key) = self.changed.pop_front() else { return };
        let more = self.guarded(|streams| streams.deliver_slice(key, now));
        match more {
            Some(true) => self.changed.push_back(key),
            Some(false) => {}
            // After a panic the topic's other streams still have to get theirs.
            None => self.deliver_again(key),
        }
    }

    /// Begins a pass over a topic's streams anew.
    fn deliver_again(&mut self, key: u32) {
        if let Some(followed) = self.topics.get_mut(key as usize) {
            followed.is_queued = true;
            followed.remaining = followed.members.len();
            self.changed.retain(|queued| *queued != key);
            self.changed.push_back(key);
        }
    }

    /// Gives some of a topic's streams what comes next for them; says whether there are more.
    fn deliver_slice(&mut self, key: u32, now: Instant) -> bool {
        let Some(followed) = self.topics.get_mut(key as usize) else { return false };
        let topic = followed.topic.clone();
        // From the last to the first: one that leaves is replaced by one that had its turn.
        let until = followed.remaining.min(followed.members.len());
        let from = until.saturating_sub(SLICE);
        // What is done here is done, even if serving one of them panics.
        followed.remaining = from;
        let mut stats = DeliveryStats::default();
        // Nearly always all of them stand at the same position.
        let mut batch: Option<Batch> = None;
        for index in (from..until).rev() {
            let members = self.topics.get(key as usize).map(|followed| &followed.members);
            let Some(&member) = members.and_then(|members| members.get(index)) else { continue };
            self.serving = Some(member.stream);
            let Some(stream) = self.streams.get(member.stream as usize) else { continue };
            let Some(membership) = stream.source.membership(member.nth) else { continue };
            if stream.is_blocked {
                continue;
            }
            let id = Id { index: member.stream, serial: stream.serial };
            let position = membership.position;
            let batch = match &mut batch {
                Some(known) if known.position == position => known,
                _ => batch.insert(Batch::of(&topic, position)),
            };
            if self.deliver(member, batch, now, &mut stats) && batch.is_part {
                self.enqueue(id);
            }
        }
        self.serving = None;
        self.record(&stats);
        let Some(followed) = self.topics.get_mut(key as usize) else { return false };
        if from == 0 {
            followed.is_queued = std::mem::take(&mut followed.requeue);
            followed.remaining = followed.members.len();
        }
        followed.is_queued
    }

    /// Gives one stream what comes next for it.
    fn deliver_one(&mut self, id: Id, now: Instant) {
        let Some(stream) = self.get_mut(id) else { return };
        stream.is_queued = false;
        let mut stats = DeliveryStats::default();
        self.serving = Some(id.index);
        let mut nth = 0;
        let mut more = false;
        // A stream that leaves or whose socket takes no more is a member of no topic any more.
        while let Some(stream) = self.get(id)
            && !stream.is_blocked
            && let Some(membership) = stream.source.membership(nth)
            && let Some(followed) = self.topics.get(membership.topic as usize)
        {
            let mut batch = Batch::of(&followed.topic, membership.position);
            let member = Member { stream: id.index, nth };
            more |= self.deliver(member, &mut batch, now, &mut stats);
            nth += 1;
        }
        if more {
            self.enqueue(id);
        }
        self.serving = None;
        self.record(&stats);
    }

    /// Does what is to be done for a stream whose socket takes bytes; says whether there may be
    /// more.
    fn deliver(
        &mut self,
        member: Member,
        batch: &mut Batch,
        now: Instant,
        stats: &mut DeliveryStats,
    ) -> bool {
        match &batch.step {
            Step::Wait => false,
            Step::Say(frames) => {
                if self.waits_for_compression(member, frames) {
                    return false;
                }
                if member.nth == 0 && self.is_single(member.stream) {
                    self.send(member.stream, batch, now, stats);
                } else {
                    self.send_with_cursor(member, frames, now, stats);
                }
                true
            }
            Step::ReadLog | Step::AskLog => {
                self.ask(member.stream);
                false
            }
        }
    }

    /// Whether something of these frames is too large to be compressed here, and is not yet. All
    /// streams of the topic have their turn when it is.
    fn waits_for_compression(&mut self, member: Member, frames: &[Frame]) -> bool {
        let Some(stream) = self.streams.get(member.stream as usize) else { return false };
        let encoding = stream.terms.speech.encoding;
        if encoding == Encoding::Identity {
            return false;
        }
        let large = frames.iter().find_map(|frame| Uncompressed::of_entry(encoding, frame));
        let Some((large, membership)) = large.zip(stream.source.membership(member.nth)) else {
            return false;
        };
        let key = membership.topic;
        if self.compressing.insert((key, encoding)) {
            self.asker.compress(key, large);
        }
        true
    }

    fn is_single(&self, at: u32) -> bool {
        self.streams.get(at as usize).is_some_and(|stream| matches!(stream.source, Source::One(_)))
    }

    /// Frames for a stream of one topic go out as they are, or as they were encoded for all streams.
    fn send(&mut self, at: u32, batch: &mut Batch, now: Instant, stats: &mut DeliveryStats) {
        let Some(stream) = self.streams.get(at as usize) else { return };
        let speech = stream.terms.speech;
        if speech.encoding == Encoding::Identity {
            let Step::Say(frames) = &batch.step else { return };
            let chunks = frames.iter().map(|frame| (frame.chunk(), Digest::EMPTY));
            self.send_chunks(at, frames, chunks, now, stats);
        } else {
            batch.encode(speech);
            let Step::Say(frames) = &batch.step else { return };
            let chunks = batch.chunks(speech).iter();
            let chunks = chunks.map(|Encoded { bytes, digest }| (bytes, *digest));
            self.send_chunks(at, frames, chunks, now, stats);
        }
    }

    /// Sends these frames, each as this chunk, of which that is the digest.
    fn send_chunks<'a>(
        &mut self,
        at: u32,
        frames: &[Frame],
        chunks: impl Iterator<Item = (&'a Bytes, Digest)> + Clone,
        now: Instant,
        stats: &mut DeliveryStats,
    ) {
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let Source::One(membership) = &mut stream.source else { return };
        let frames = &frames[..frames.len().min(BATCH_FRAMES_MAX)];
        let written = match (frames, chunks.clone().next()) {
            ([_], Some((one, _))) => stream.socket.write(&[IoSlice::new(one)]),
            (several, _) => {
                let mut parts = [IoSlice::new(&[]); BATCH_FRAMES_MAX];
                for (part, (chunk, _)) in parts.iter_mut().zip(chunks.clone()) {
                    *part = IoSlice::new(chunk);
                }
                stream.socket.write(&parts[..several.len()])
            }
        };
        let mut left = match written {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return self.close(at, end_of(error.kind())),
        };
        let mut pending = VecDeque::new();
        let mut is_blocked = false;
        let mut said = Digest::EMPTY;
        for (frame, (chunk, digest)) in frames.iter().zip(chunks) {
            if left == 0 {
                is_blocked = true;
                break;
            }
            // One that was taken in part will be: its rest goes out before anything else.
            membership.position = frame.position;
            said = said.then(digest);
            stats.count(frame, frame.size());
            if left < chunk.len() {
                pending.push_back(chunk.slice(left..));
                is_blocked = true;
                break;
            }
            left -= chunk.len();
        }
        stats.batches += 1;
        stream.written = self.wheel.tick();
        self.add_digest(at, said);
        if is_blocked {
            self.block(at, pending, None, now);
        }
    }

    /// Frames for a stream of several topics go out with its own cursor as their id.
    fn send_with_cursor(
        &mut self,
        member: Member,
        frames: &[Frame],
        now: Instant,
        stats: &mut DeliveryStats,
    ) {
        let Member { stream: at, nth } = member;
        let Some(stream) = self.streams.get(at as usize) else { return };
        let speech = stream.terms.speech;
        if frames.len() > CURSOR_FRAMES_MAX {
            self.enqueue(Id { index: at, serial: stream.serial });
        }
        let frames = &frames[..frames.len().min(CURSOR_FRAMES_MAX)];
        let Some(Stream { source: Source::Several(memberships), .. }) =
            self.streams.get(at as usize)
        else {
            return;
        };
        let mut memberships: Vec<Membership> = memberships.to_vec();
        let mut parts = Parts::default();
        // Where each frame begins in `parts`, counted in bytes, how large it is, and its digest.
        let mut blocks = Vec::with_capacity(frames.len());
        let mut size = 0;
        for frame in frames {
            memberships[nth as usize].position = frame.position;
            let cursor = Some(self.cursor(&memberships));
            let begins = parts.bytes.len();
            parts.digest = Digest::EMPTY;
            speech.encode_chunked(&Said::Entry { frame: frame.clone(), cursor }, &mut parts);
            let block: usize = parts.bytes.iter().skip(begins).map(Bytes::len).sum();
            blocks.push((size, block, parts.digest));
            size += block;
        }
        let Parts { mut bytes, .. } = parts;
        let parts: Vec<IoSlice<'_>> = bytes.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let Some(stream) = self.streams.get_mut(at as usize) else { return };
        let taken = match stream.socket.write(&parts) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return self.close(at, end_of(error.kind())),
        };
        // What was begun is said; what was not will be asked for again.
        let said = blocks.iter().take_while(|(begins, ..)| *begins < taken).count();
        let said_bytes = blocks[..said].last().map_or(0, |(begins, block, _)| begins + block);
        if let Source::Several(memberships) = &mut stream.source
            && let Some(last) = frames[..said].last()
        {
            memberships[nth as usize].position = last.position;
        }
        let mut digest = Digest::EMPTY;
        for (frame, (_, block, of_block)) in frames[..said].iter().zip(&blocks) {
            stats.count(frame, *block);
            digest = digest.then(*of_block);
        }
        stats.batches += 1;
        stream.written = self.wheel.tick();
        self.add_digest(at, digest);
        if taken < size {
            advance(&mut bytes, taken);
            truncate(&mut bytes, said_bytes - taken.min(said_bytes));
            self.block(at, bytes, None, now);
        }
    }

    fn record(&self, stats: &DeliveryStats) {
        if stats.batches == 0 {
            return;
        }
        metric::delivered(stats.entries, stats.bytes);
        if stats.newest > 0
            && let Some(now) = (self.settings.clock)()
        {
            let lag = Duration::from_millis(now.saturating_sub(stats.newest));
            metric::delivery_lags(lag, stats.batches);
        }
    }
}

impl DeliveryStats {
    fn count(&mut self, frame: &Frame, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
        self.newest = frame.milliseconds;
    }
}

impl Source {
    /// Where it stands in the topic with this index among its own.
    fn membership(&self, nth: u32) -> Option<&Membership> {
        match self {
            Source::One(membership) if nth == 0 => Some(membership),
            Source::Several(memberships) => memberships.get(nth as usize),
            _ => None,
        }
    }
}

/// Keeps the first so many bytes.
fn truncate(bytes: &mut VecDeque<Bytes>, mut count: usize) {
    for at in 0..bytes.len() {
        let part = &mut bytes[at];
        if part.len() >= count {
            part.truncate(count);
            bytes.truncate(if count == 0 { at } else { at + 1 });
            return;
        }
        count -= part.len();
    }
}
