//! Alters inputs: what is nearly right is where readers disagree.

use fastrand::Rng;

use crate::INPUT_BYTES_MAX;

/// Bytes that mean something to most readers.
const MARKS: &[u8] = b"\0\t\n\r ,:;%+&=?/\\\"'{}[]()<>~-.0129azAZ\x7f\x80\xc3\xff";

/// How often a part is repeated at most. What is not linear shows in many of the same.
const REPEATED_MAX: usize = 4_096;

/// Alters an input in a few places. `others` are what it may take parts of.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str]) {
    for _ in 0..1 << rng.u32(..4) {
        let at = rng.usize(..=input.len());
        match rng.u32(..10) {
            0 if at < input.len() => input[at] ^= 1 << rng.u32(..8),
            1 if at < input.len() => input[at] = MARKS[rng.usize(..MARKS.len())],
            2 => input.insert(at, MARKS[rng.usize(..MARKS.len())]),
            3 => input.insert(at, rng.u8(..)),
            4 => {
                let end = part_end(rng, input.len(), at);
                input.drain(at..end);
            }
            5 => repeat(rng, input, at),
            6 if !others.is_empty() => {
                let other = &others[rng.usize(..others.len())];
                let begin = rng.usize(..=other.len());
                let end = part_end(rng, other.len(), begin);
                let part = other[begin..end].to_vec();
                input.splice(at..at, part);
            }
            7 | 8 if !words.is_empty() => {
                let word = words[rng.usize(..words.len())].bytes();
                let end = if rng.bool() { at } else { part_end(rng, input.len(), at) };
                input.splice(at..end, word);
            }
            _ => input.truncate(if rng.u32(..8) == 0 { at } else { input.len() }),
        }
        input.truncate(INPUT_BYTES_MAX);
    }
}

/// The end of a part that is short most of the time.
fn part_end(rng: &mut Rng, length: usize, begin: usize) -> usize {
    let longest = length - begin;
    begin + if rng.bool() { rng.usize(..=longest.min(8)) } else { rng.usize(..=longest) }
}

fn repeat(rng: &mut Rng, input: &mut Vec<u8>, begin: usize) {
    let end = part_end(rng, input.len(), begin);
    let times = 1 << rng.u32(..=REPEATED_MAX.ilog2());
    let room = INPUT_BYTES_MAX.saturating_sub(input.len());
    let part = input[begin..end].to_vec();
    if !part.is_empty() {
        let repeated = part.repeat(times.min(room / part.len()));
        input.splice(end..end, repeated);
    }
}
