//! [`Frame`]: an entry as the bytes that go out, made once per node and shared by all its streams.
//!
//! [`wire`](crate::wire) makes frames and knows what the bytes mean; here they are only kept, in one
//! allocation, in the layout that most sockets take as it is.

use bytes::Bytes;

use crate::position::Position;

/// What a frame takes beside its chunk, in bytes: its place in a queue that may be half empty, what
/// counts those who share the chunk, and what the allocator needs for both.
const OVERHEAD_BYTES: usize = 2 * size_of::<Frame>() + 64;

/// One entry, ready to send. Cloning it copies no bytes.
///
/// Invariant: `block` and `fields` are ranges of `chunk`, and `fields` lies within `block`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The place of the entry.
    pub position: Position,
    /// When the log took it, in milliseconds since 1970 by the log's clock.
    pub milliseconds: u64,
    /// The block as one chunk of a response in chunked transfer coding.
    chunk: Bytes,
    /// Where the block is in the chunk: from, to.
    block: (u32, u32),
    /// Where those fields of the block are that do not depend on the stream: from, to.
    fields: (u32, u32),
}

impl Frame {
    /// A frame whose chunk has its block and the block's fields at these ranges, in bytes.
    pub(crate) fn new(
        position: Position,
        milliseconds: u64,
        chunk: Bytes,
        block: std::ops::Range<usize>,
        fields: std::ops::Range<usize>,
    ) -> Frame {
        let range = |range: std::ops::Range<usize>| (range.start as u32, range.end as u32);
        Frame { position, milliseconds, chunk, block: range(block), fields: range(fields) }
    }

    /// The whole block with the entry's own position as its id.
    pub fn block(&self) -> Bytes {
        self.chunk.slice(self.block.0 as usize..self.block.1 as usize)
    }

    /// The whole block as a chunk (RFC 9112, section 7.1).
    pub fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// The fields of the block but its id, for a stream whose id is a cursor over several topics.
    pub fn fields(&self) -> Bytes {
        self.chunk.slice(self.fields.0 as usize..self.fields.1 as usize)
    }

    /// What it takes in memory, roughly, in bytes: an entry of a few bytes takes many times as much.
    pub fn memory(&self) -> usize {
        self.chunk.len() + OVERHEAD_BYTES
    }

    /// Size of the block in bytes.
    pub fn size(&self) -> usize {
        (self.block.1 - self.block.0) as usize
    }
}
