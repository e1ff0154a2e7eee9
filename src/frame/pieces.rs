//! [`Pieces`]: what was made of an entry in encodings other than its own, once per node.
//!
//! [`wire`](crate::wire) makes a [`Piece`] when the first stream of an encoding needs it, and all
//! streams of that encoding send it. It stays as long as the [frame](super::Frame) does. What all
//! pieces of a kind take has a bound, [`PieceSum`]: what would go beyond it is not kept, and goes out
//! as it is, in blocks that are not compressed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::digest::Digest;

/// Encodings other than identity.
pub const ENCODINGS: usize = 3;

/// An entry as encoded bytes, ready to send.
///
/// Invariant: `fields` is a range of `chunk`.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The whole block as one chunk of a response in chunked transfer coding.
    chunk: Bytes,
    /// Where its encoded bytes are in the chunk: from, to.
    body: (u32, u32),
    /// Where those of its fields end that do not depend on the stream; they begin where the body
    /// does.
    fields_end: u32,
    /// Of the whole block.
    digest: Digest,
    /// Of the fields.
    fields_digest: Digest,
}

impl Piece {
    /// A piece whose chunk has its body here, and in it first the fields, so many bytes of it.
    pub(crate) fn new(
        chunk: Bytes,
        body: std::ops::Range<usize>,
        fields_size: usize,
        digest: Digest,
        fields_digest: Digest,
    ) -> Piece {
        let fields_end = (body.start + fields_size) as u32;
        let body = (body.start as u32, body.end as u32);
        Piece { chunk, body, fields_end, digest, fields_digest }
    }

    /// The whole block as a chunk (RFC 9112, section 7.1), and what a gzip stream has to know of it.
    pub fn chunk(&self) -> (&Bytes, Digest) {
        (&self.chunk, self.digest)
    }

    /// The whole block.
    pub fn block(&self) -> (Bytes, Digest) {
        (self.chunk.slice(self.body.0 as usize..self.body.1 as usize), self.digest)
    }

    /// The fields of the block but its id. What comes behind them ends the block.
    pub fn fields(&self) -> (Bytes, Digest) {
        (self.chunk.slice(self.body.0 as usize..self.fields_end as usize), self.fields_digest)
    }

    fn memory(&self) -> usize {
        self.chunk.len() + size_of::<Piece>() + 64
    }
}

/// What pieces of one kind of frames take all together, and may take at most, in bytes.
#[derive(Debug)]
pub struct PieceSum {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl PieceSum {
    /// Nothing yet, and at most so many bytes.
    pub fn new(bytes_max: usize) -> Arc<PieceSum> {
        Arc::new(PieceSum { bytes: AtomicUsize::new(0), bytes_max })
    }

    /// Bytes of memory that pieces take now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so much is taken that old ones should go.
    pub fn is_short(&self) -> bool {
        self.bytes() > self.bytes_max / 4 * 3
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.bytes_max;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// The pieces of one entry, by encoding.
#[derive(Debug)]
pub struct Pieces {
    /// None where the entry is to go out as it is.
    made: [OnceLock<Option<Box<Piece>>>; ENCODINGS],
    sum: Arc<PieceSum>,
}

impl Pieces {
    /// None yet. What will be made counts here.
    pub fn new(sum: Arc<PieceSum>) -> Pieces {
        Pieces { made: Default::default(), sum }
    }

    /// The piece in this encoding. Made by the first who asks, while others who ask wait for it;
    /// nobody makes it again. `None` if it was not worth it, or there was no room for it.
    pub fn get_or_make(&self, at: usize, make: impl FnOnce() -> Option<Piece>) -> Option<&Piece> {
        let kept = self.made.get(at)?.get_or_init(|| {
            let piece = make()?;
            self.sum.take(piece.memory()).then(|| Box::new(piece))
        });
        kept.as_deref()
    }

    /// Whether it is known what is sent in this encoding.
    pub fn is_made(&self, at: usize) -> bool {
        self.made.get(at).is_some_and(|made| made.get().is_some())
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let made = self.made.iter().filter_map(|made| made.get()?.as_ref());
        let bytes: usize = made.map(|piece| piece.memory()).sum();
        self.sum.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize) -> Option<Piece> {
        let chunk = Bytes::from(vec![0; bytes]);
        Some(Piece::new(chunk, 0..bytes, 0, Digest::EMPTY, Digest::EMPTY))
    }

    #[test]
    fn what_is_made_is_made_once_and_counts_as_long_as_it_is_kept() {
        let sum = PieceSum::new(3_000);
        let pieces = [(); 3].map(|()| Pieces::new(sum.clone()));
        assert!(!pieces[0].is_made(1));
        assert!(pieces[0].get_or_make(1, || piece(1_000)).is_some());
        assert!(pieces[0].get_or_make(1, || panic!("made twice")).is_some());
        assert!(pieces[0].is_made(1) && !pieces[0].is_made(0));
        assert!(sum.bytes() >= 1_000);
        assert!(pieces[1].get_or_make(1, || piece(1_000)).is_some());
        let two = sum.bytes();
        // No room, and nobody tries again.
        assert!(pieces[2].get_or_make(0, || piece(1_000)).is_none());
        assert!(pieces[2].get_or_make(0, || panic!("made twice")).is_none());
        // Not worth it.
        assert!(pieces[2].get_or_make(2, || None).is_none());
        assert_eq!(sum.bytes(), two);
        drop(pieces);
        assert_eq!(sum.bytes(), 0);
    }
}
