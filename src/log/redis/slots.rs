//! Hash slots: on which of the 16,384 parts of a cluster a key lies. Pure.
//!
//! One server has all of them, and the same keys: what belongs together shares a slot everywhere.

use std::sync::LazyLock;

/// How many hash slots there are.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: of what stands between its first `{` and the next `}`, if anything does.
pub(super) fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

/// A short hash tag of this slot, which no topic has for a name: there is a comma in it.
pub(super) fn tag_of(slot: u16) -> String {
    format!("{},", TAGS[usize::from(slot % SLOTS)])
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// For each slot the smallest number that lies there, written with a comma behind it.
static TAGS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut tags = vec![None; usize::from(SLOTS)];
    let mut left = tags.len();
    let mut number = 0;
    while left > 0 {
        let tag = &mut tags[usize::from(slot(format!("{number},").as_bytes()))];
        left -= usize::from(tag.is_none());
        tag.get_or_insert(number);
        number += 1;
    }
    tags.into_iter().flatten().collect()
});

/// CRC-16/XMODEM, a byte at a time.
static CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-16/XMODEM of some bytes.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as the definition has it.
    fn crc16_by_definition(bytes: &[u8]) -> u16 {
        let mut crc = 0_u16;
        for byte in bytes {
            for bit in (0..8).rev() {
                let carry = (crc >> 15) ^ u16::from(byte >> bit & 1);
                crc = (crc << 1) ^ (carry * 0x1021);
            }
        }
        crc
    }

    #[test]
    fn keys_lie_where_the_cluster_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // As CLUSTER KEYSLOT of Redis 7.0 answers.
        for (key, expected) in [
            ("", 0),
            ("foo", 12_182),
            ("somekey", 11_058),
            ("foo{hash_tag}", 2_515),
            ("bar{hash_tag}", 2_515),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
            ("fantail:{board-1}:log", 1_041),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn every_slot_has_a_short_tag_of_its_own() {
        for number in 0..SLOTS {
            let tag = tag_of(number);
            assert!(tag.len() <= 8, "{tag}");
            assert_eq!(slot(format!("fantail:{{{tag}}}:births").as_bytes()), number);
        }
    }

    proptest! {
        #[test]
        fn a_table_says_the_same_as_the_definition(
            bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            prop_assert_eq!(crc16(&bytes), crc16_by_definition(&bytes));
        }

        #[test]
        fn keys_of_one_tag_share_a_slot(
            name in "[^{}]{1,30}", before in "[^{}]{0,9}", after in ".{0,9}",
        ) {
            let key = format!("{before}{{{name}}}{after}");
            prop_assert_eq!(slot(key.as_bytes()), slot(name.as_bytes()));
        }
    }
}
