//! Where a value of RESP2 or RESP3 ends: enough to take a stream of replies apart into whole ones.

/// The length of the first whole value in `bytes`; `None` while some of it is missing.
pub fn value_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Values still to come before the first one is whole.
    let mut missing = 1_usize;
    while missing > 0 {
        missing -= 1;
        let line_end = at + line_length(bytes.get(at..)?)?;
        let count = || std::str::from_utf8(&bytes[at + 1..line_end - 2]).ok()?.parse::<i64>().ok();
        match bytes[at] {
            // What has a length in bytes; -1 is null.
            b'$' | b'=' | b'!' => {
                let count = count().expect("a length in bytes");
                at = if count < 0 { line_end } else { line_end + count as usize + 2 };
            }
            // What holds other values.
            b'*' | b'~' | b'>' => {
                missing += count().expect("a number of values").max(0) as usize;
                at = line_end;
            }
            b'%' => {
                missing += 2 * count().expect("a number of pairs").max(0) as usize;
                at = line_end;
            }
            // Attributes stand before the value that they belong to.
            b'|' => {
                missing += 2 * count().expect("a number of attributes").max(0) as usize + 1;
                at = line_end;
            }
            // Everything else is a line.
            _ => at = line_end,
        }
    }
    (at <= bytes.len()).then_some(at)
}

fn line_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|two| two == b"\r\n").map(|end| end + 2)
}

/// The texts of an array or push of bulk strings: a command, or an announcement.
pub fn texts(value: &[u8]) -> Vec<&[u8]> {
    let mut texts = Vec::new();
    let mut rest = &value[line_length(value).unwrap_or(0)..];
    while let Some(length) = value_length(rest) {
        let (text, following) = rest.split_at(length);
        let start = line_length(text).unwrap_or(0);
        texts.push(text.get(start..length - 2).unwrap_or_default());
        rest = following;
    }
    texts
}

/// The channel of a message that pub/sub pushes; `None` for every other value.
pub fn announced_on(value: &[u8]) -> Option<String> {
    if !value.starts_with(b">3\r\n$7\r\nmessage\r\n")
        && !value.starts_with(b"*3\r\n$7\r\nmessage\r\n")
    {
        return None;
    }
    texts(value).get(1).map(|channel| String::from_utf8_lossy(channel).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_kinds_are_taken_apart_wherever_the_stream_is_cut() {
        let values: [&[u8]; 12] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":42\r\n",
            b"_\r\n",
            b"#t\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$9\r\nin\r\nside\r\r\n",
            b"=5\r\ntxt:a\r\n",
            b"*2\r\n*0\r\n$1\r\na\r\n",
            b"|1\r\n+k\r\n:1\r\n%1\r\n+a\r\n*1\r\n:2\r\n",
            b">3\r\n$7\r\nmessage\r\n$9\r\nfantail:t\r\n$3\r\n1\r\n\r\n",
        ];
        let stream = values.concat();
        let mut rest = &stream[..];
        for value in values {
            for cut in 0..value.len() {
                assert_eq!(value_length(&rest[..cut]), None, "{cut} bytes of {value:?}");
            }
            assert_eq!(value_length(rest), Some(value.len()), "{value:?}");
            rest = &rest[value.len()..];
        }
        assert!(rest.is_empty());
        assert_eq!(announced_on(values[11]).as_deref(), Some("fantail:t"));
        assert_eq!(announced_on(values[9]), None);
        assert_eq!(texts(b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n"), [&b"PING"[..], b""]);
    }
}
