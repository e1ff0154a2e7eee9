//! gzip (RFC 1952 around RFC 1951): a stream is one member, its pieces are blocks of deflate.
//!
//! A deflate stream is a sequence of blocks, and matches may reach back 32 KiB over their borders. A
//! piece is made by a compressor that has seen nothing yet, so its matches stay within it, and ends
//! with an empty block that is not compressed, which begins on a whole byte and ends on one
//! (`Z_SYNC_FLUSH`). Huffman codes are each block's own. The one thing that a stream adds up is the
//! [digest](Digest) at its end, which decoders compare.

use std::sync::Mutex;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::pool::Pool;
use crate::frame::digest::Digest;

/// How hard it is tried, of 1 to 9.
const LEVEL: u32 = 6;

/// The head of the member: deflate, no flags, no time, no system.
pub(super) const BEGIN: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A block that is not compressed has a length of sixteen bits.
pub(super) const RUN_BYTES_MAX: usize = u16::MAX as usize;

static COMPRESSORS: Pool<Compress> = Pool(Mutex::new(Vec::new()));

/// The head of a block that is not compressed (RFC 1951, section 3.2.4). It begins on a whole byte,
/// as all of ours do.
pub(super) fn run_head(size: usize) -> [u8; 5] {
    let [low, high] = (size as u16).to_le_bytes();
    [0, low, high, !low, !high]
}

/// An empty last block, and the end of the member.
pub(super) fn end(digest: Digest) -> [u8; 10] {
    let [a, b, c, d] = digest.crc.to_le_bytes();
    let [e, f, g, h] = digest.length.to_le_bytes();
    [3, 0, a, b, c, d, e, f, g, h]
}

/// What the end of the member has to know of these bytes.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut crc = Crc::new();
    crc.update(bytes);
    Digest::new(crc.sum(), bytes.len())
}

/// Blocks of deflate that refer to nothing before them.
pub(super) fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut compressor =
        COMPRESSORS.take().unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
    compressor.reset();
    let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
    // It is flushed when there is room left: as long as there is none it may have more to say.
    while compressor.total_in() < bytes.len() as u64 || out.len() == out.capacity() {
        out.reserve(bytes.len() / 4 + 64);
        let left = bytes.get(compressor.total_in() as usize..)?;
        match compressor.compress_vec(left, &mut out, FlushCompress::Sync) {
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) | Err(_) => return None,
        }
    }
    COMPRESSORS.give_back(compressor);
    Some(out)
}
