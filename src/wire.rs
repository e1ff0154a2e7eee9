//! ENCODE: what a stream says, as bytes.
//!
//! One file a wire; today there is [`sse`], the event stream of the HTML standard. An entry is
//! encoded once per node however many streams carry it, and kept as a [`Frame`],
//! whose bytes are those of that wire. What a further wire would change stands in the [tour](crate).
//! [`chunked`] is HTTP/1.1's framing, in which most streams travel; [`encoding`] compresses. Pure.

pub mod chunked;
pub mod encoding;
pub mod sse;

use std::collections::VecDeque;

use bytes::Bytes;

pub use encoding::{Encoded, Encoding, Uncompressed};

use crate::frame::Frame;
use crate::frame::digest::Digest;
use crate::said::{EndManner, EndReason, Said};

/// How a stream speaks, and how what it says is encoded: all that its bytes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Speech {
    /// How it speaks.
    pub wire: Wire,
    /// How its bytes are encoded.
    pub encoding: Encoding,
}

impl From<Wire> for Speech {
    /// Bytes as they are.
    fn from(wire: Wire) -> Speech {
        Speech { wire, encoding: Encoding::Identity }
    }
}

/// How a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// `text/event-stream` with everything that [`Said`] knows.
    Sse {
        /// Whether heartbeats are events, for pages that watch for silence: no script can see
        /// comments.
        named_heartbeat: bool,
    },
}

impl Wire {
    /// Puts the bytes of what is said at the end of `out`, as parts of a body. What is shared is
    /// not copied.
    pub fn encode(self, said: &Said, out: &mut VecDeque<Bytes>) {
        match self {
            Wire::Sse { named_heartbeat } => out.extend(
                sse::block(said, named_heartbeat).into_iter().filter(|part| !part.is_empty()),
            ),
        }
    }

    /// As [`encode`](Wire::encode), as one chunk of a response in chunked transfer coding.
    pub fn encode_chunked(self, said: &Said, out: &mut VecDeque<Bytes>) {
        match (self, said) {
            // Made once for all.
            (Wire::Sse { .. }, Said::Entry { frame, cursor: None }) => {
                out.push_back(frame.chunk().clone());
            }
            (Wire::Sse { named_heartbeat }, Said::Heartbeat) => {
                out.push_back(sse::heartbeat_chunk(named_heartbeat));
            }
            (Wire::Sse { named_heartbeat }, said) => {
                chunked::push_chunk(out, sse::block(said, named_heartbeat));
            }
        }
    }

    /// How a stream on this wire ends.
    pub fn end_manner(self, reason: EndReason) -> EndManner {
        match (self, reason) {
            (_, EndReason::Fault) => EndManner::Broken,
            // An `EventSource` takes either for a reason to come back.
            (Wire::Sse { .. }, _) => EndManner::Clean,
        }
    }
}

/// What a stream says, as parts of its body or as chunks, to be sent one behind the other.
#[derive(Debug, Default)]
pub struct Parts {
    /// The bytes.
    pub bytes: VecDeque<Bytes>,
    /// Of what they are when they are decoded, where the end of the stream has to say it.
    pub digest: Digest,
}

impl From<VecDeque<Bytes>> for Parts {
    /// Of a stream that has nothing to say of them at its end.
    fn from(bytes: VecDeque<Bytes>) -> Parts {
        Parts { bytes, digest: Digest::EMPTY }
    }
}

impl Speech {
    /// Puts what comes before everything else at the end of `out`.
    pub fn begin(self, out: &mut Parts) {
        let begin = self.encoding.begin();
        if !begin.is_empty() {
            out.bytes.push_back(Bytes::from_static(begin));
        }
    }

    /// As [`begin`](Speech::begin), as a chunk.
    pub fn begin_chunked(self, out: &mut Parts) {
        chunked::push_chunk(&mut out.bytes, [Bytes::from_static(self.encoding.begin())]);
    }

    /// What comes behind everything else, which has this digest; empty if nothing.
    pub fn end(self, digest: Digest) -> Bytes {
        self.encoding.end(digest)
    }

    /// Puts the bytes of what is said at the end of `out`, as parts of a body. What is shared is
    /// not copied.
    pub fn encode(self, said: &Said, out: &mut Parts) {
        if self.encoding == Encoding::Identity {
            return self.wire.encode(said, &mut out.bytes);
        }
        let mut parts = Vec::new();
        out.digest = out.digest.then(self.push(said, &mut parts));
        out.bytes.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// As [`encode`](Speech::encode), as one chunk of a response in chunked transfer coding.
    pub fn encode_chunked(self, said: &Said, out: &mut Parts) {
        if self.encoding == Encoding::Identity {
            return self.wire.encode_chunked(said, &mut out.bytes);
        }
        if let Said::Entry { frame, cursor: None } = said {
            let Encoded { bytes, digest } = self.entry_chunk(frame);
            out.bytes.push_back(bytes);
            out.digest = out.digest.then(digest);
            return;
        }
        let mut parts = Vec::new();
        out.digest = out.digest.then(self.push(said, &mut parts));
        chunked::push_chunk(&mut out.bytes, parts);
    }

    /// The block of an entry with its own position as its id, as one chunk.
    pub fn entry_chunk(self, frame: &Frame) -> Encoded {
        match self.encoding {
            Encoding::Identity => Encoded { bytes: frame.chunk().clone(), digest: Digest::EMPTY },
            encoding => encoding::entry_chunk(encoding, frame),
        }
    }

    /// Puts what is said at the end of `out`, encoded, and returns its digest.
    fn push(self, said: &Said, out: &mut Vec<Bytes>) -> Digest {
        let Wire::Sse { named_heartbeat } = self.wire;
        match said {
            Said::Entry { frame, cursor } => {
                let id = cursor.as_deref().map(sse::cursor_lines);
                encoding::push_entry(self.encoding, frame, id, out)
            }
            Said::Snapshot { cursor, state, pieces } => {
                let head = Bytes::from_static(sse::SNAPSHOT_HEAD);
                let end = sse::snapshot_end(cursor).into();
                encoding::push_state(self.encoding, head, state, pieces.as_deref(), end, out)
            }
            said => encoding::push_plain(self.encoding, &sse::block(said, named_heartbeat), out),
        }
    }
}
