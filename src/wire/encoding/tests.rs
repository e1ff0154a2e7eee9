//! Whatever streams say, in whatever order, and whenever they began: a decoder that knows nothing of
//! us has it at once, byte for byte as it would be without an encoding.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entry::{Data, Entry, Event};
use crate::frame::pieces::PieceSum;
use crate::position::Position;
use crate::said::{EndReason, Reset, ResetReason, Said};
use crate::wire::{Parts, Speech, Wire, sse};

#[allow(dead_code, unreachable_pub, reason = "the tests of streams need all of it")]
#[path = "../../../tests/promises/harness/encoding.rs"]
mod decoders;

use decoders::Decoder;

const ENCODED: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

fn decoder_of(encoding: Encoding) -> Decoder {
    Decoder::new(Some(encoding.name()))
}

/// A whole body. No frame of zstd is none that is incomplete; a real stream has one for its opening
/// event.
fn decode_whole(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    match (encoding, body) {
        (Encoding::Zstd, []) => Vec::new(),
        _ => decoders::decode_whole(encoding.name(), body),
    }
}

fn speech(encoding: Encoding) -> Speech {
    Speech { wire: Wire::Sse { named_heartbeat: false }, encoding }
}

fn entry(seq: u64, text: String) -> Frame {
    let position = Position { seq, epoch: "k3f9".parse().unwrap() };
    let event = Event { event_type: None, data: Data::Text(text) };
    let rest = sse::event_text(&event);
    sse::frame(&Entry { position, milliseconds: 0, json: false, rest })
}

/// Texts that compress well, badly and not at all, from nothing to more than any window or block.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("{\"id\":\"task-".to_owned()),
        Just("\",\"title\":\"the time of the people".to_owned()),
        "[a-z]{1,9}",
        "[0-9]{1,5}",
        ".{1,3}",
    ];
    let words = proptest::collection::vec(word, 0..120).prop_map(|words| words.concat());
    let repeated = (words.clone(), 1..60_usize).prop_map(|(words, times)| words.repeat(times));
    let noise = (any::<u64>(), 0..200_000_usize).prop_map(|(seed, length)| {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
    });
    prop_oneof![3 => "[a-z]{0,20}", 6 => words, 2 => repeated, 1 => noise]
}

/// One thing that is said: an entry of those that there are, with its own id or a cursor, or
/// something else.
fn any_said(frames: Vec<Frame>) -> impl Strategy<Value = Said> {
    let frame = proptest::sample::select(frames);
    let cursor =
        proptest::option::of("[a-z]{1,8}:[0-9]{1,9}-k3f9(,[a-z]{1,40}:[0-9]{1,9}-k3f9){0,20}");
    prop_oneof![
        8 => (frame, cursor).prop_map(|(frame, cursor)| Said::Entry { frame, cursor }),
        2 => Just(Said::Heartbeat),
        1 => Just(Said::Retry(Duration::from_secs(3))),
        1 => any::<bool>().prop_map(|named| Said::Opened {
            cursor: "42-k3f9".to_owned(),
            node: "node-1".to_owned(),
            named
        }),
        1 => (0..200_000_usize, any::<bool>()).prop_map(|(size, kept)| Said::Snapshot {
            cursor: "42-k3f9".to_owned(),
            state: Bytes::from("x".repeat(size)),
            pieces: kept.then(|| Arc::new(Pieces::new(PieceSum::new(1 << 20)))),
        }),
        1 => Just(Said::Goodbye { reason: EndReason::Revoked, retry: Duration::from_secs(1) }),
        1 => Just(Said::Reset {
            reset: Reset {
                topic: "t".to_owned(),
                reason: ResetReason::Lost,
                from: "1-k3f9".to_owned(),
                oldest: None,
                head: "2-k3f9".to_owned(),
            },
            cursor: Some("2-k3f9".to_owned()),
        }),
    ]
}

/// Frames, of which some keep what is made of them, and what some streams say of them.
fn any_streams() -> impl Strategy<Value = Vec<Vec<Said>>> {
    let texts = proptest::collection::vec((any_text(), any::<bool>()), 1..8);
    texts.prop_flat_map(|texts| {
        let sum = PieceSum::new(1 << 20);
        let frames = texts.into_iter().enumerate().map(|(n, (text, kept))| {
            let mut frame = entry(n as u64 + 1, text);
            if kept {
                frame.keep_pieces(&sum);
            }
            frame
        });
        let said = any_said(frames.collect());
        proptest::collection::vec(proptest::collection::vec(said, 0..20), 1..4)
    })
}

/// The data of chunks.
fn without_chunks(mut chunks: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !chunks.is_empty() {
        let line_end = chunks.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&chunks[..line_end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        assert!(size > 0, "the end of a response in its middle");
        data.extend_from_slice(&chunks[line_end + 2..][..size]);
        assert_eq!(&chunks[line_end + 2 + size..][..2], b"\r\n");
        chunks = &chunks[line_end + 2 + size + 2..];
    }
    data
}

fn flat(parts: Parts) -> (Vec<u8>, Digest) {
    (parts.bytes.iter().flatten().copied().collect(), parts.digest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_said_is_decoded_at_once_wherever_a_stream_began(
        streams in any_streams(),
        cuts in proptest::collection::vec(1..2_000_usize, 1..40),
    ) {
        for (encoding, said) in ENCODED.iter().flat_map(|encoding| {
            streams.iter().map(move |said| (*encoding, said))
        }) {
            let (mut body, mut decoded, mut whole) = (Vec::<u8>::new(), Vec::<u8>::new(), Digest::EMPTY);
            let mut decoder = decoder_of(encoding);
            let mut begin = Parts::default();
            speech(encoding).begin(&mut begin);
            body.extend(flat(begin).0);
            decoder.decode(&body);
            for said in said {
                let mut plain = Parts::default();
                speech(Encoding::Identity).encode(said, &mut plain);
                let (plain, _) = flat(plain);
                let mut encoded = Parts::default();
                speech(encoding).encode(said, &mut encoded);
                let (encoded, digest) = flat(encoded);
                prop_assert_eq!(&decoder.decode(&encoded), &plain, "{}", encoding.name());
                whole = whole.then(digest);
                body.extend(&encoded);
                decoded.extend(&plain);
                // In chunks it is the same.
                let mut chunked = Parts::default();
                speech(encoding).encode_chunked(said, &mut chunked);
                let (chunked, digest_of_chunk) = flat(chunked);
                prop_assert_eq!(without_chunks(&chunked), encoded);
                prop_assert_eq!(digest_of_chunk, digest);
            }
            body.extend(speech(encoding).end(whole));
            prop_assert_eq!(&decode_whole(encoding, &body), &decoded, "{}", encoding.name());
            // Wherever the network cuts it.
            let (mut decoder, mut of_parts) = (decoder_of(encoding), Vec::new());
            let (mut left, mut cuts) = (&body[..], cuts.iter().cycle());
            while !left.is_empty() {
                let (part, rest) = left.split_at((*cuts.next().unwrap()).min(left.len()));
                of_parts.extend(decoder.decode(part));
                left = rest;
            }
            prop_assert_eq!(of_parts, decoded, "{}", encoding.name());
        }
    }
}

/// An entry that keeps what is made of it.
fn kept(mut frame: Frame) -> Frame {
    frame.keep_pieces(&PieceSum::new(64 << 20));
    frame
}

/// Bytes of an entry's block in an encoding.
fn size_in(encoding: Encoding, frame: &Frame) -> usize {
    let mut parts = Parts::default();
    speech(encoding).encode(&Said::Entry { frame: frame.clone(), cursor: None }, &mut parts);
    flat(parts).0.len()
}

/// Words of titles and texts.
const WORDS: &str = "time people something to do and some more of it tomorrow the first draft manual \
    write read call back about order delivery list board ready waiting for review customer invoice \
    after before quick garden water paper house number between small large green street letter \
    meeting notes plan question answer next week morning change price button page broken slow";

/// What applications send: a task, numbers by name, prose. Of so many bytes, cut off there.
fn any_data(kind: &str, size: usize, random: &mut fastrand::Rng) -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut prose = String::new();
    while prose.len() < size {
        prose += words[random.usize(..words.len())];
        prose.push(' ');
    }
    let mut data = match kind {
        "task" => {
            let (id, index) = (random.u32(..100_000), random.u8(..));
            let title = &prose[..size.saturating_sub(60).max(8)];
            let task = format!("{{\"task\":{{\"id\":\"task-{id}\",\"title\":\"{title}\",");
            task + &format!("\"listId\":\"list-todo\",\"index\":{index}}}}} ") + &prose
        }
        "numbers" => {
            let numbers = (0..size / 8)
                .map(|n| format!("\"sensor-{n}\":{}.{:02}", random.u8(..), random.u8(..100)));
            format!("{{{}}}", numbers.collect::<Vec<_>>().join(","))
        }
        _ => prose,
    };
    data.truncate(size);
    data
}

/// `COMPRESSED_BYTES_MIN` is where compression begins to pay, and what is left of fields of so many bytes
/// is what docs/operations.md says.
#[test]
fn fields_are_compressed_from_where_that_pays() {
    let mut random = fastrand::Rng::with_seed(1);
    for encoding in ENCODED {
        // What goes out beside the fields if they are not compressed.
        let plain_head = match encoding {
            Encoding::Gzip => 5,
            Encoding::Brotli => 3,
            _ => 9,
        };
        for (size, percent) in [
            (48, 81..=107),
            (COMPRESSED_BYTES_MIN, 70..=89),
            (256, 47..=69),
            (512, 38..=58),
            (1_024, 33..=45),
        ] {
            for kind in ["task", "numbers", "prose"] {
                let (mut before, mut after) = (0, 0);
                for _ in 0..50 {
                    let data = any_data(kind, size - "data: \n".len(), &mut random);
                    let fields = entry(1, data).fields();
                    assert_eq!(fields.len(), size);
                    before += size + plain_head;
                    let compressed = match encoding {
                        Encoding::Gzip => gzip::compress(&fields),
                        Encoding::Brotli => brotli::compress(&fields),
                        _ => zstd::compress(&fields),
                    };
                    after += compressed.unwrap().len();
                }
                let left = (after * 100 + before / 2) / before;
                let what = format!("{}, {kind}, {size} bytes", encoding.name());
                assert!(percent.contains(&left), "{what}: {left} %, not {percent:?}");
            }
        }
    }
}

#[test]
fn what_is_compressed_is_smaller_and_nothing_becomes_much_larger() {
    let json = (0..40).map(|n| format!("{{\"id\":\"task-{n}\",\"title\":\"Title {n}\"}},"));
    let json = kept(entry(1, json.collect()));
    let mut random = fastrand::Rng::with_seed(7);
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(2_000).collect();
    let (noise, small) = (kept(entry(1, noise)), kept(entry(1, "small".to_owned())));
    for encoding in ENCODED {
        let size = |frame: &Frame| size_in(encoding, frame);
        assert!(size(&json) < json.size() / 3, "{}: {}", encoding.name(), size(&json));
        assert!(size(&noise) <= noise.size() + 20, "{}: {}", encoding.name(), size(&noise));
        assert!(size(&small) <= small.size() + 20, "{}: {}", encoding.name(), size(&small));
    }
}

/// What somebody published decides nothing about how others' events are compressed.
#[test]
fn the_size_of_an_entry_does_not_depend_on_what_came_before() {
    let text = format!("{{\"token\":\"hunter2-hunter2\"}} {}", "abc ".repeat(50));
    let guesses = ["{\"token\":\"hunter2-hunter2\"}", "{\"token\":\"another-guess12\"}"];
    for encoding in ENCODED {
        let sizes = guesses.map(|guess| {
            let mut parts = Parts::default();
            for frame in [kept(entry(1, guess.repeat(20))), kept(entry(2, text.clone()))] {
                parts = Parts::default();
                speech(encoding).encode(&Said::Entry { frame, cursor: None }, &mut parts);
            }
            flat(parts).0
        });
        assert_eq!(sizes[0], sizes[1], "{}", encoding.name());
    }
}
