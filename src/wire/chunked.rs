//! Chunked transfer coding (RFC 9112, section 7.1) around bytes that are shared and never copied.

use std::collections::VecDeque;

use bytes::Bytes;

/// What follows the data of a chunk.
pub(super) const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a response.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The line before the data of a chunk of `size` bytes.
pub(super) fn chunk_head(size: usize) -> String {
    format!("{size:X}\r\n")
}

/// Puts these parts, together one chunk, at the end of `out`. An empty chunk would end the response
/// and is left out.
pub fn push_chunk(out: &mut VecDeque<Bytes>, parts: impl IntoIterator<Item = Bytes>) {
    let head_at = out.len();
    out.push_back(Bytes::new());
    out.extend(parts.into_iter().filter(|part| !part.is_empty()));
    let size: usize = out.iter().skip(head_at).map(Bytes::len).sum();
    if size == 0 {
        out.truncate(head_at);
        return;
    }
    out[head_at] = chunk_head(size).into();
    out.push_back(Bytes::from_static(CHUNK_END));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_chunk_and_no_parts_become_none() {
        let mut out = VecDeque::new();
        push_chunk(&mut out, []);
        push_chunk(&mut out, [Bytes::new()]);
        assert!(out.is_empty());
        push_chunk(&mut out, [Bytes::from_static(b"0123456789"), Bytes::from_static(b"abcdef")]);
        let text: Vec<u8> = out.iter().flatten().copied().collect();
        assert_eq!(text, b"10\r\n0123456789abcdef\r\n");
    }
}
