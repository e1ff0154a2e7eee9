//! ENCODE: what a stream says, as bytes.
//!
//! One file a wire; today there is [`sse`], the event stream of the HTML standard. An entry is
//! encoded once per node however many streams carry it, and kept as a [`Frame`](crate::frame::Frame),
//! whose bytes are those of that wire. What a further wire would change stands in the [tour](crate).
//! [`chunked`] is HTTP/1.1's framing, in which most streams travel. Pure.

pub mod chunked;
pub mod sse;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::said::{EndManner, EndReason, Said};

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

/// How the bytes of a stream are encoded on top of its wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
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
