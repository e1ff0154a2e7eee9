//! The cookie that may carry a token, among those of other programs.

use fantail::http::fuzz::token_of_cookie;
use http::{HeaderMap, HeaderValue};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "cookie",
    run,
    words: &[
        "fantail=",
        "fantail=a.b.c",
        "Fantail=",
        "fantail =x",
        "; ",
        ";",
        "=",
        "\"a.b.c\"",
        "__Host-fantail=x",
        "other=fantail=a",
        "\n",
        ",",
        "\u{e4}",
    ],
};

fn run(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("cookie", value);
        }
    }
    let read = token_of_cookie(&headers, "fantail");
    // Told apart as strictly as can be, and as loosely: where both differ it has to be refused.
    let pairs = headers.values().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let pairs: Vec<&[u8]> = pairs.map(<[u8]>::trim_ascii).collect();
    let name_of = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().to_ascii_lowercase()
    };
    let ours: Vec<&[u8]> = pairs.into_iter().filter(|pair| name_of(pair) == b"fantail").collect();
    match (read, &ours[..]) {
        (Some(None), []) => {}
        (Some(Some(token)), [one]) => {
            assert_eq!(
                one.strip_prefix(b"fantail=").map(|value| value.len() >= token.len()),
                Some(true)
            );
            assert!(one.ends_with(token.as_bytes()) || one.ends_with(b"\""), "{token:?}");
            assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{token:?}");
        }
        (None, [_, ..]) => {}
        (read, ours) => panic!("{read:?} of {} cookies", ours.len()),
    }
}
