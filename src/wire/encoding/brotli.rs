//! Brotli (RFC 7932): a stream has one head, its pieces are meta-blocks.
//!
//! Each meta-block has codes of its own, but what it means depends on what came before in four ways,
//! which a compressor can do without (its parameter `catable`): matches that reach back; the last four
//! distances, which a match can name by their place; the two bytes before a literal, by which its
//! code can be chosen; and the dictionary of the format, whose words are found at distances that count
//! from the beginning of the stream. Such a compressor refers to nothing before its own bytes, and
//! sends the first two of them in a meta-block that is not compressed. What it gives up for that is
//! the dictionary. A piece ends with an empty meta-block, which ends on a whole byte.

use ::brotli::enc::StandardAlloc;
use ::brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};

/// How hard it is tried, of 0 to 11.
const QUALITY: u32 = 4;

/// How far matches reach back at most, as a power of two in bytes: more than most entries are long.
const WINDOW_BITS: u32 = 18;

/// The head of a stream, which says how far matches reach back at most (four bits for 18), and an
/// empty meta-block, so that it ends on a whole byte.
pub(super) const BEGIN: &[u8] = &[0b0110_0011, 0b0000_0000];

/// An empty last meta-block.
pub(super) const END: &[u8] = &[3];

/// A meta-block whose length is written in sixteen bits.
pub(super) const RUN_BYTES_MAX: usize = 1 << 16;

/// The head of a meta-block that is not compressed (section 9.2), of at least one byte: it is not the
/// last, its length less one follows in sixteen bits, and its bytes as they are, from a whole byte on.
pub(super) fn run_head(size: usize) -> [u8; 3] {
    let length = size.wrapping_sub(1) as u32 & 0xffff;
    let [a, b, c, _] = ((length << 3) | (1 << 19)).to_le_bytes();
    [a, b, c]
}

/// Meta-blocks that refer to nothing before them.
pub(super) fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    use BrotliEncoderParameter as Parameter;
    let mut encoder = BrotliEncoderStateStruct::new(StandardAlloc::default());
    for (parameter, value) in [
        (Parameter::BROTLI_PARAM_QUALITY, QUALITY),
        (Parameter::BROTLI_PARAM_LGWIN, WINDOW_BITS),
        (Parameter::BROTLI_PARAM_SIZE_HINT, bytes.len() as u32),
        (Parameter::BROTLI_PARAM_CATABLE, 1),
        (Parameter::BROTLI_PARAM_APPENDABLE, 1),
        // No head, no end, and whole bytes.
        (Parameter::BROTLI_PARAM_BYTE_ALIGN, 1),
        (Parameter::BROTLI_PARAM_BARE_STREAM, 1),
    ] {
        encoder.set_parameter(parameter, value);
    }
    let mut out = vec![0; bytes.len() + bytes.len() / 8 + 256];
    let (mut left, mut taken) = (bytes.len(), 0);
    let (mut room, mut written) = (out.len(), 0);
    let mut total = None;
    let compressed = encoder.compress_stream(
        BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
        &mut left,
        bytes,
        &mut taken,
        &mut room,
        &mut out,
        &mut written,
        &mut total,
        &mut |_, _, _, _| (),
    );
    // What does not fit is larger than it was before.
    let is_whole = compressed && left == 0 && encoder.is_finished();
    out.truncate(written);
    is_whole.then_some(out)
}
