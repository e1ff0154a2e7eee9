//! [`Frame`]: an entry as the bytes that go out, made once per node and shared by all its streams.
//!
//! [`wire`](crate::wire) makes frames and knows what the bytes mean; here they are only kept, in one
//! allocation, in the layout that most sockets take as it is. Where streams are compressed, what was
//! made of the entry for them is kept beside it ([`pieces`]).

pub mod digest;
pub mod pieces;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use pieces::{PieceSum, Pieces};

use crate::position::Position;

/// What a frame takes beside its chunk, in bytes: its place in a queue that may be half empty, what
/// counts those who share the chunk, and what the allocator needs for both.
const OVERHEAD_BYTES: usize = 2 * size_of::<Frame>() + 64;

/// What ends a chunk, behind the block, in bytes.
const CHUNK_END_BYTES: usize = 2;

/// One entry, ready to send. Cloning it copies no bytes.
///
/// Invariant: the block reaches from `block_begin` to the end of the chunk's data, and the fields
/// from there to `fields_end`.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The place of the entry.
    pub position: Position,
    /// When the log took it, in milliseconds since 1970 by the log's clock.
    pub milliseconds: u64,
    /// The block as one chunk of a response in chunked transfer coding.
    chunk: Bytes,
    /// Where the block begins in the chunk, and with it those of its fields that do not depend on the
    /// stream.
    block_begin: u32,
    /// Where those fields end.
    fields_end: u32,
    /// What is made of it in other encodings, if anything is.
    pieces: Option<Arc<Pieces>>,
}

impl Frame {
    /// A frame whose chunk has the block's fields at this range, in bytes, and behind them the rest of
    /// the block.
    pub(crate) fn new(
        position: Position,
        milliseconds: u64,
        chunk: Bytes,
        fields: std::ops::Range<usize>,
    ) -> Frame {
        let (block_begin, fields_end) = (fields.start as u32, fields.end as u32);
        Frame { position, milliseconds, chunk, block_begin, fields_end, pieces: None }
    }

    /// From now on keeps what is made of it in other encodings, and counts it here. To be called
    /// before it is shared.
    pub fn keep_pieces(&mut self, sum: &Arc<PieceSum>) {
        self.pieces = Some(Arc::new(Pieces::new(sum.clone())));
    }

    /// What was made of it in other encodings, if that is kept.
    pub fn pieces(&self) -> Option<&Pieces> {
        self.pieces.as_deref()
    }

    /// The whole block with the entry's own position as its id.
    pub fn block(&self) -> Bytes {
        self.chunk.slice(self.block_begin as usize..self.block_end())
    }

    /// The whole block as a chunk (RFC 9112, section 7.1).
    pub fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// The fields of the block but its id, for a stream whose id is a cursor over several topics.
    pub fn fields(&self) -> Bytes {
        self.chunk.slice(self.block_begin as usize..self.fields_end as usize)
    }

    /// The rest of the block: the entry's own position as its id, and the blank line.
    pub fn id(&self) -> Bytes {
        self.chunk.slice(self.fields_end as usize..self.block_end())
    }

    /// What it takes in memory, roughly, in bytes: an entry of a few bytes takes many times as much.
    /// What is made of it in other encodings [counts](PieceSum) by itself.
    pub fn memory(&self) -> usize {
        let pieces = if self.pieces.is_some() { size_of::<Pieces>() + 16 } else { 0 };
        self.chunk.len() + OVERHEAD_BYTES + pieces
    }

    /// Size of the block in bytes.
    pub fn size(&self) -> usize {
        self.block_end() - self.block_begin as usize
    }

    fn block_end(&self) -> usize {
        self.chunk.len() - CHUNK_END_BYTES
    }

    /// All that it is; what was made of it is none of that.
    fn identity(&self) -> (Position, u64, &Bytes, u32, u32) {
        (self.position, self.milliseconds, &self.chunk, self.block_begin, self.fields_end)
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Frame) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Frame {}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
