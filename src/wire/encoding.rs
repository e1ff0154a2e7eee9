//! [`Encoding`]: how the bytes of a stream are encoded on top of its wire (RFC 9110, section 8.4).
//!
//! An entry is compressed once per node and encoding, however many streams carry it, and whenever
//! they began: what is compressed is a [`Piece`] that refers to nothing outside of itself, ends on a
//! whole byte, and can be decoded to its end as soon as it is there. So pieces of an encoding can
//! follow each other in any order. In front of them a stream says [how it begins](Encoding::begin),
//! and behind them [how it ends](Encoding::end). How each format allows that is said in its own
//! file: [`gzip`], [`brotli`], [`zstd`].
//!
//! What is small, or said by one stream alone, is not compressed: it goes out as it is in a *run*, a
//! block of the format that holds plain bytes. The id of an entry is such a run behind the
//! compressed fields, its own or a stream's cursor, so that all streams share the fields.
//!
//! Since no piece refers to another, nothing that somebody published decides how well somebody
//! else's event is compressed, and lengths tell of each event alone.

mod brotli;
mod gzip;
mod pool;
#[cfg(test)]
mod tests;
mod zstd;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::chunked::{CHUNK_END, chunk_head};
use crate::frame::Frame;
use crate::frame::digest::Digest;
use crate::frame::pieces::{Piece, Pieces};
use crate::said::Said;
use crate::telemetry::metric;

/// Fields smaller than this, in bytes, are not compressed. Of half as many, what the formats need beside
/// the text takes nearly all that is saved; of so many, a tenth to a third is saved, some twenty bytes
/// of a packet (measured: `tests::fields_are_compressed_from_where_that_pays`).
const COMPRESSED_BYTES_MIN: usize = 96;

/// What becomes smaller by less than this part of it goes out as it is: it would be kept twice, and
/// decoded by everybody, for next to nothing.
const GAIN_MIN: usize = 16;

/// Blocks that are not worth compressing are kept as pieces up to this size, in bytes; larger ones are
/// put together anew for each batch, rather than kept twice.
const KEPT_PLAIN_BYTES_MAX: usize = 1 << 10;

/// What is larger than this, in bytes, is not compressed: it would keep a thread busy for too long.
const COMPRESSED_BYTES_MAX: usize = 4 << 20;

/// What is larger than this, in bytes, is [compressed](Uncompressed) by whoever serves no streams
/// meanwhile. Below it, it takes a millisecond or two; as much is given to a stream at a time.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// How the bytes of a stream are encoded on top of its wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// Bytes that a stream sends, and what the end of a gzip stream has to say of them.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The bytes.
    pub bytes: Bytes,
    /// Of what they are when they are decoded; [empty](Digest::EMPTY) where nobody asks for it.
    pub digest: Digest,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Encoding; 4] =
        [Encoding::Identity, Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Brotli => "br",
            Encoding::Zstd => "zstd",
        }
    }

    /// What a stream says before anything else; empty if nothing.
    pub(super) fn begin(self) -> &'static [u8] {
        match self {
            Encoding::Gzip => gzip::BEGIN,
            Encoding::Brotli => brotli::BEGIN,
            Encoding::Identity | Encoding::Zstd => b"",
        }
    }

    /// What a stream says behind everything else, which was this; empty if nothing.
    pub(super) fn end(self, digest: Digest) -> Bytes {
        match self {
            Encoding::Gzip => Bytes::copy_from_slice(&gzip::end(digest)),
            Encoding::Brotli => Bytes::from_static(brotli::END),
            Encoding::Identity | Encoding::Zstd => Bytes::new(),
        }
    }

    /// The place of what is made in this encoding among the pieces of a frame.
    fn slot(self) -> usize {
        match self {
            Encoding::Gzip => 0,
            Encoding::Brotli => 1,
            Encoding::Zstd => 2,
            // There are no pieces of it.
            Encoding::Identity => usize::MAX,
        }
    }

    /// What stands in front of runs that follow no compressed fields.
    fn prefix(self) -> &'static [u8] {
        if self == Encoding::Zstd { zstd::FRAME_HEAD } else { b"" }
    }

    /// Bytes that one run holds at most.
    fn run_bytes_max(self) -> usize {
        match self {
            Encoding::Identity => usize::MAX,
            Encoding::Gzip => gzip::RUN_BYTES_MAX,
            Encoding::Brotli => brotli::RUN_BYTES_MAX,
            Encoding::Zstd => zstd::RUN_BYTES_MAX,
        }
    }

    /// Puts the head of a run of `size` bytes at the end of `out`; it is the `last` one of what belongs
    /// together.
    fn push_run_head(self, size: usize, last: bool, out: &mut Vec<u8>) {
        match self {
            Encoding::Identity => {}
            Encoding::Gzip => out.extend_from_slice(&gzip::run_head(size)),
            Encoding::Brotli => out.extend_from_slice(&brotli::run_head(size)),
            Encoding::Zstd => out.extend_from_slice(&zstd::run_head(size, last)),
        }
    }

    /// Whether so many bytes are to be compressed, and not by whoever has streams to serve.
    fn is_large(self, size: usize) -> bool {
        self != Encoding::Identity && size > AT_ONCE_BYTES_MAX && size <= COMPRESSED_BYTES_MAX
    }

    fn digest(self, bytes: &[u8]) -> Digest {
        if self == Encoding::Gzip { gzip::digest(bytes) } else { Digest::EMPTY }
    }

    /// Compressed fields, to be followed by the last run of the block; `None` if that does not pay,
    /// or the compressor has a defect: then they go out as they are.
    fn compress(self, fields: &[u8]) -> Option<Vec<u8>> {
        if !(COMPRESSED_BYTES_MIN..=COMPRESSED_BYTES_MAX).contains(&fields.len()) {
            return None;
        }
        let compressed = catch_unwind(AssertUnwindSafe(|| match self {
            Encoding::Identity => None,
            Encoding::Gzip => gzip::compress(fields),
            Encoding::Brotli => brotli::compress(fields),
            Encoding::Zstd => zstd::compress(fields),
        }));
        let mut compressed = compressed.unwrap_or(None)?;
        if compressed.len() >= fields.len() - fields.len() / GAIN_MIN {
            return None;
        }
        // What is kept is counted by its length.
        compressed.shrink_to_fit();
        Some(compressed)
    }
}

/// The block of an entry in this encoding, as all streams share it whose id is the entry's own
/// position; `None` if it goes out as it is.
fn piece(encoding: Encoding, frame: &Frame) -> Option<Piece> {
    let (fields, id) = (frame.fields(), frame.id());
    let mut body = match encoding.compress(&fields) {
        Some(compressed) => compressed,
        None if frame.size() <= KEPT_PLAIN_BYTES_MAX => {
            let mut plain = encoding.prefix().to_vec();
            // A run holds something.
            if !fields.is_empty() {
                encoding.push_run_head(fields.len(), false, &mut plain);
                plain.extend_from_slice(&fields);
            }
            plain
        }
        None => return None,
    };
    let fields_size = body.len();
    encoding.push_run_head(id.len(), true, &mut body);
    body.extend_from_slice(&id);
    metric::entry_encoded(encoding.name(), frame.size(), body.len());
    let head = chunk_head(body.len());
    let body_at = head.len()..head.len() + body.len();
    let mut chunk = Vec::with_capacity(body_at.end + CHUNK_END.len());
    for part in [head.as_bytes(), &body, CHUNK_END] {
        chunk.extend_from_slice(part);
    }
    let fields_digest = encoding.digest(&fields);
    let digest = fields_digest.then(encoding.digest(&id));
    Some(Piece::new(chunk.into(), body_at, fields_size, digest, fields_digest))
}

/// The piece of an entry in this encoding, which is kept with its frame. `None` if the entry goes out
/// as it is: also where its frame keeps nothing, so that nobody compresses for one stream alone.
fn piece_of(encoding: Encoding, frame: &Frame) -> Option<&Piece> {
    frame.pieces()?.get_or_make(encoding.slot(), || piece(encoding, frame))
}

/// Something that is too large to be compressed by whoever has many streams to serve, and that was
/// not compressed yet.
#[derive(Debug, Clone)]
pub struct Uncompressed {
    encoding: Encoding,
    what: Large,
}

#[derive(Debug, Clone)]
enum Large {
    Entry(Frame),
    State { state: Bytes, pieces: Arc<Pieces> },
}

impl Uncompressed {
    /// The entry, if it is that for streams of this encoding.
    pub fn of_entry(encoding: Encoding, frame: &Frame) -> Option<Uncompressed> {
        let is_large = encoding.is_large(frame.size());
        let missing = is_large && !frame.pieces()?.is_made(encoding.slot());
        missing.then(|| Uncompressed { encoding, what: Large::Entry(frame.clone()) })
    }

    /// The same of whatever is said.
    pub fn of(encoding: Encoding, said: &Said) -> Option<Uncompressed> {
        match said {
            Said::Entry { frame, .. } => Uncompressed::of_entry(encoding, frame),
            Said::Snapshot { state, pieces: Some(pieces), .. } => {
                let missing = encoding.is_large(state.len()) && !pieces.is_made(encoding.slot());
                let what = Large::State { state: state.clone(), pieces: pieces.clone() };
                missing.then_some(Uncompressed { encoding, what })
            }
            _ => None,
        }
    }

    /// In which encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Compresses it, once for all who need it. Takes up to a tenth of a second, and as long as
    /// somebody else is at it.
    pub fn compress(&self) {
        match &self.what {
            Large::Entry(frame) => {
                piece_of(self.encoding, frame);
            }
            Large::State { state, pieces } => {
                state_of(self.encoding, state, pieces);
            }
        }
    }
}

/// Puts the block of an entry at the end of `out`, with these lines for its id if they are not its
/// own, and returns its digest.
pub(super) fn push_entry(
    encoding: Encoding,
    frame: &Frame,
    id: Option<String>,
    out: &mut Vec<Bytes>,
) -> Digest {
    match (piece_of(encoding, frame), id) {
        (Some(piece), None) => {
            let (block, digest) = piece.block();
            out.push(block);
            digest
        }
        (Some(piece), Some(id)) => {
            let (fields, digest) = piece.fields();
            let mut run = Vec::with_capacity(id.len() + 8);
            encoding.push_run_head(id.len(), true, &mut run);
            run.extend_from_slice(id.as_bytes());
            out.extend([fields, run.into()]);
            digest.then(encoding.digest(id.as_bytes()))
        }
        (None, id) => {
            let id = id.map_or_else(|| frame.id(), Bytes::from);
            push_plain(encoding, &[frame.fields(), id], out)
        }
    }
}

/// The block of an entry with its own position as its id, as one chunk.
pub(super) fn entry_chunk(encoding: Encoding, frame: &Frame) -> Encoded {
    match piece_of(encoding, frame) {
        Some(piece) => {
            let (chunk, digest) = piece.chunk();
            Encoded { bytes: chunk.clone(), digest }
        }
        None => {
            let mut parts = Vec::new();
            let digest = push_plain(encoding, &[frame.fields(), frame.id()], &mut parts);
            let size: usize = parts.iter().map(Bytes::len).sum();
            let head = chunk_head(size);
            let mut chunk = Vec::with_capacity(head.len() + size + CHUNK_END.len());
            chunk.extend_from_slice(head.as_bytes());
            parts.iter().for_each(|part| chunk.extend_from_slice(part));
            chunk.extend_from_slice(CHUNK_END);
            Encoded { bytes: chunk.into(), digest }
        }
    }
}

/// Puts a block at the end of `out` that has a state, of which the pieces are shared, between this head
/// and this end, and returns its digest.
pub(super) fn push_state(
    encoding: Encoding,
    head: Bytes,
    state: &Bytes,
    pieces: Option<&Pieces>,
    end: Bytes,
    out: &mut Vec<Bytes>,
) -> Digest {
    let Some(piece) = pieces.and_then(|pieces| state_of(encoding, state, pieces)) else {
        return push_plain(encoding, &[head, state.clone(), end], out);
    };
    let head = push_plain(encoding, &[head], out);
    let (state, digest) = piece.fields();
    let mut run = Vec::with_capacity(end.len() + 8);
    encoding.push_run_head(end.len(), true, &mut run);
    run.extend_from_slice(&end);
    out.extend([state, run.into()]);
    head.then(digest).then(encoding.digest(&end))
}

/// A state in this encoding, to be followed by the last run of its block.
fn state_of<'a>(encoding: Encoding, state: &Bytes, pieces: &'a Pieces) -> Option<&'a Piece> {
    pieces.get_or_make(encoding.slot(), || {
        let compressed = Bytes::from(encoding.compress(state)?);
        metric::entry_encoded(encoding.name(), state.len(), compressed.len());
        let (size, digest) = (compressed.len(), encoding.digest(state));
        Some(Piece::new(compressed, 0..size, size, digest, digest))
    })
}

/// Parts up to this size, in bytes, are copied behind the head of their run, rather than sent as a
/// part of their own.
const COPIED_BYTES_MAX: usize = 512;

/// Puts these parts at the end of `out` as they are, in runs, and returns their digest. What is large
/// is not copied.
pub(super) fn push_plain(encoding: Encoding, parts: &[Bytes], out: &mut Vec<Bytes>) -> Digest {
    let run_bytes_max = encoding.run_bytes_max();
    let runs = parts.iter().flat_map(|part| {
        let begins = (0..part.len()).step_by(run_bytes_max);
        begins.map(move |begin| {
            part.slice(begin..part.len().min(begin.saturating_add(run_bytes_max)))
        })
    });
    let mut runs = runs.peekable();
    let mut digest = Digest::EMPTY;
    let mut head = if runs.peek().is_some() { encoding.prefix().to_vec() } else { Vec::new() };
    while let Some(run) = runs.next() {
        encoding.push_run_head(run.len(), runs.peek().is_none(), &mut head);
        digest = digest.then(encoding.digest(&run));
        if run.len() <= COPIED_BYTES_MAX {
            head.extend_from_slice(&run);
        } else {
            out.extend([std::mem::take(&mut head).into(), run]);
        }
    }
    if !head.is_empty() {
        out.push(head.into());
    }
    digest
}
