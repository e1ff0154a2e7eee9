//! What decodes the streams of a node that compresses, as they come: the libraries that everybody has,
//! and nothing of ours. The unit tests of `src/wire/encoding.rs` have it, too.

use std::io::{Read, Write};

use flate2::{Decompress, FlushDecompress};

/// The encoding in which every [`Stream`](super::Stream) asks for its bytes, and every node offers
/// them: `COMPRESSION=gzip`, `br` or `zstd` in the environment runs the same tests with it.
pub fn wanted() -> Option<String> {
    std::env::var("COMPRESSION").ok().filter(|name| !name.is_empty())
}

/// More than anything is when it is decoded: the decoder of Brotli gives no more at a time.
const OUT_BYTES_MAX: usize = 4 << 20;

/// Decodes a body as it comes.
pub enum Decoder {
    Identity,
    /// The bytes of the head that have still to come, and what comes behind it.
    Gzip(usize, Box<Decompress>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    /// Of the encoding that a response has in its `Content-Encoding`.
    pub fn new(encoding: Option<&str>) -> Decoder {
        match encoding {
            None => Decoder::Identity,
            Some("gzip") => Decoder::Gzip(10, Box::new(Decompress::new(false))),
            Some("br") => Decoder::Brotli(Box::new(brotli::DecompressorWriter::new(
                Vec::new(),
                OUT_BYTES_MAX,
            ))),
            Some("zstd") => Decoder::Zstd(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
            Some(other) => panic!("an encoding that nobody asked for: {other}"),
        }
    }

    /// What can be known of these bytes, now.
    pub fn decode(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Decoder::Identity => bytes.to_vec(),
            Decoder::Gzip(head, decoder) => {
                let of_head = (*head).min(bytes.len());
                *head -= of_head;
                inflate(decoder, &bytes[of_head..])
            }
            Decoder::Brotli(decoder) => {
                decoder.write_all(bytes).unwrap();
                std::mem::take(decoder.get_mut())
            }
            Decoder::Zstd(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                std::mem::take(decoder.get_mut())
            }
        }
    }
}

fn inflate(decoder: &mut Decompress, bytes: &[u8]) -> Vec<u8> {
    let (mut out, begin) = (Vec::new(), decoder.total_in());
    loop {
        out.reserve(64 << 10);
        let taken = (decoder.total_in() - begin) as usize;
        let before = out.len();
        let status =
            decoder.decompress_vec(&bytes[taken..], &mut out, FlushDecompress::Sync).unwrap();
        let all_taken = decoder.total_in() - begin == bytes.len() as u64;
        let is_over = status == flate2::Status::StreamEnd;
        if is_over || (all_taken && out.len() < out.capacity()) || out.len() == before {
            return out;
        }
    }
}

/// A whole body, by a decoder that minds how it ends.
pub fn decode_whole(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out),
        other => panic!("{other}"),
    };
    read.unwrap_or_else(|error| panic!("{encoding}: {error}"));
    out
}
