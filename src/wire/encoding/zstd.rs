//! Zstandard (RFC 8878): a stream is a sequence of frames, each of them a piece.
//!
//! Frames that follow each other are one stream to a decoder (section 3.1), and none knows of another.
//! Within a frame the compressed blocks of the fields come first, and a block that is not compressed
//! is the last: it has the id, so that each stream can end the frame with its own.

use std::sync::Mutex;

use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::pool::Pool;

/// How hard it is tried, of 1 to 22.
const LEVEL: i32 = 3;

/// How far matches reach back at most, as a power of two in bytes: more than most entries are long,
/// and little for a decoder to hold.
const WINDOW_LOG: u32 = 17;

/// The head of a frame without compressed blocks: no checksum, no length, and the same window.
pub(super) const FRAME_HEAD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0, ((WINDOW_LOG - 10) << 3) as u8];

/// A block holds no more than the window does.
pub(super) const RUN_BYTES_MAX: usize = 1 << WINDOW_LOG;

static COMPRESSORS: Pool<Encoder<'static>> = Pool(Mutex::new(Vec::new()));

/// The head of a block that is not compressed (section 3.1.1.2).
pub(super) fn run_head(size: usize, last: bool) -> [u8; 3] {
    let [a, b, c, _] = (((size as u32) << 3) | u32::from(last)).to_le_bytes();
    [a, b, c]
}

/// The head of a frame and all its blocks but the last.
pub(super) fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = match COMPRESSORS.take() {
        Some(encoder) => encoder,
        None => new_encoder().ok()?,
    };
    encoder.reinit().ok()?;
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 128 + 256);
    let mut room = OutBuffer::around(&mut out);
    let mut input = InBuffer::around(bytes);
    while input.pos() < bytes.len() {
        let before = (input.pos(), room.pos());
        encoder.run(&mut input, &mut room).ok()?;
        if (input.pos(), room.pos()) == before {
            return None;
        }
    }
    // What does not fit is larger than it was before.
    if encoder.flush(&mut room).ok()? > 0 {
        return None;
    }
    COMPRESSORS.give_back(encoder);
    Some(out)
}

fn new_encoder() -> std::io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(LEVEL)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    encoder.set_parameter(CParameter::ContentSizeFlag(false))?;
    encoder.set_parameter(CParameter::ChecksumFlag(false))?;
    Ok(encoder)
}
