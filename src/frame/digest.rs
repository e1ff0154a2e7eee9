//! [`Digest`]: what the end of a gzip stream says of all that it held, put together piece by piece.
//! Pure.
//!
//! A gzip stream ends with the CRC-32 of what it held, and how much that was (RFC 1952, section 2.3.1).
//! A stream's bytes are pieces that many streams share, so nobody goes through them again for each:
//! the CRC of two texts, one behind the other, follows from theirs. CRC-32 is the rest of a text as
//! a polynomial over GF(2), divided by [`POLYNOMIAL`]; to put n bytes behind a text is to multiply it
//! by x to the power of 8n. Polynomials are written as the CRC itself is: the highest bit is the
//! factor of x⁰.

/// The polynomial of CRC-32 without its x³².
const POLYNOMIAL: u32 = 0xedb8_8320;

/// x⁰, that is, one.
const ONE: u32 = 1 << 31;

/// By n: x to the power of 2ⁿ.
const POWERS: [u32; 32] = powers();

/// CRC-32 and length of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// The CRC-32.
    pub crc: u32,
    /// How many bytes, modulo 2³².
    pub length: u32,
    /// x to the power of eight times the length: what a CRC is multiplied by to have these bytes
    /// behind it.
    shift: u32,
}

impl Digest {
    /// Of nothing.
    pub const EMPTY: Digest = Digest { crc: 0, length: 0, shift: ONE };

    /// Of so many bytes that have this CRC-32.
    pub fn new(crc: u32, length: usize) -> Digest {
        // x has the order 2³² − 1, so that it does not matter what a longer text leaves out of its
        // length here as well as there.
        let mut shift = ONE;
        for n in 0..usize::BITS as usize {
            if (length >> n) & 1 == 1 {
                shift = times(POWERS[(n + 3) % 32], shift);
            }
        }
        Digest { crc, length: length as u32, shift }
    }

    /// Of these bytes and those behind them.
    #[must_use]
    pub fn then(self, next: Digest) -> Digest {
        // As everything is where nobody asks for digests.
        if next == Digest::EMPTY {
            return self;
        }
        Digest {
            crc: times(next.shift, self.crc) ^ next.crc,
            length: self.length.wrapping_add(next.length),
            shift: times(next.shift, self.shift),
        }
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest::EMPTY
    }
}

/// The product of two polynomials, divided by that of the CRC.
const fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        // Times x; what becomes x³² is replaced by what it leaves.
        b = if b & 1 != 0 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

const fn powers() -> [u32; 32] {
    // x¹
    let mut power = 1 << 30;
    let mut powers = [power; 32];
    let mut n = 1;
    while n < 32 {
        power = times(power, power);
        powers[n] = power;
        n += 1;
    }
    powers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as RFC 1952 has it.
    fn crc(bytes: &[u8]) -> u32 {
        let register = bytes.iter().fold(u32::MAX, |register, byte| {
            (0..8).fold(register ^ u32::from(*byte), |register, _| {
                if register & 1 == 1 { (register >> 1) ^ POLYNOMIAL } else { register >> 1 }
            })
        });
        !register
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::new(crc(bytes), bytes.len())
    }

    proptest! {
        #[test]
        fn the_digest_of_pieces_is_that_of_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..9)
        ) {
            let one_by_one =
                pieces.iter().fold(Digest::EMPTY, |whole, piece| whole.then(digest(piece)));
            prop_assert_eq!(one_by_one, digest(&pieces.concat()));
            // However they are put together.
            let from_the_end =
                pieces.iter().rev().fold(Digest::EMPTY, |rest, piece| digest(piece).then(rest));
            prop_assert_eq!(one_by_one, from_the_end);
        }
    }

    #[test]
    fn the_digest_is_that_which_everybody_knows() {
        assert_eq!(digest(b"123456789").crc, 0xcbf4_3926);
    }

    /// Streams last for months.
    #[test]
    fn more_bytes_than_a_length_can_say_are_digested() {
        let gibibyte = Digest::new(0, 1 << 30);
        let five = (0..5).fold(Digest::EMPTY, |whole, _| whole.then(gibibyte));
        assert_eq!(five, Digest::new(0, 5 << 30));
    }
}
