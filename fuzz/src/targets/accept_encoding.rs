//! `Accept-Encoding`: what is chosen was asked for, and nothing that was excluded.

use fantail::http::fuzz::chosen_encoding;
use fantail::wire::Encoding;
use http::{HeaderMap, HeaderValue};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "accept_encoding",
    run,
    words: &[
        "gzip", "x-gzip", "br", "zstd", "identity", "*", ";q=0", ";q=0.5", ";q=1.000", ";q=0.001",
        ";q=1.1", "; Q = 0", ",", ", ", ";", "\n", "GZIP",
    ],
};

fn run(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("accept-encoding", value);
        }
    }
    let offered: Vec<Encoding> =
        Encoding::ALL.into_iter().filter(|encoding| *encoding != Encoding::Identity).collect();
    let chosen = chosen_encoding(&headers, &offered);
    // Each with its weight, those that can be read; one that is named twice counts as its largest.
    let lines = headers.values().filter_map(|line| line.to_str().ok());
    let items: Vec<(String, f64)> =
        lines.flat_map(|line| line.split(',')).filter_map(read).collect();
    let of = |name: &str| {
        let weights = items.iter().filter(|(other, _)| other == name).map(|(_, weight)| *weight);
        weights.reduce(f64::max)
    };
    let weight = |encoding: Encoding| {
        let others = if encoding == Encoding::Gzip { of("x-gzip") } else { None };
        of(encoding.name()).into_iter().chain(others).reduce(f64::max).or(of("*"))
    };
    let identity = of("identity").or(of("*").filter(|weight| *weight == 0.0));
    match chosen {
        Some(Encoding::Identity) => assert_ne!(identity, Some(0.0), "{items:?}"),
        Some(encoding) => {
            let its = weight(encoding).unwrap_or(0.0);
            assert!(its > 0.0, "{encoding:?} of {items:?}");
            let most = offered.iter().filter_map(|other| weight(*other)).fold(0.0, f64::max);
            assert!(its >= most, "{encoding:?} of {items:?}");
        }
        None => {
            assert_eq!(identity, Some(0.0), "{items:?}");
            assert!(offered.iter().all(|other| weight(*other).unwrap_or(0.0) == 0.0), "{items:?}");
        }
    }
    // Whoever names nothing gets the stream as it is.
    assert_eq!(chosen_encoding(&HeaderMap::new(), &offered), Some(Encoding::Identity));
}

/// A name in small letters and its weight.
fn read(item: &str) -> Option<(String, f64)> {
    let parts: Vec<&str> = item.split(';').map(str::trim).collect();
    let (name, weight) = match parts[..] {
        [name] => (name, "1"),
        [name, parameter] => {
            let (key, value) = parameter.split_once('=')?;
            if !key.trim().eq_ignore_ascii_case("q") {
                return None;
            }
            (name, value.trim())
        }
        _ => return None,
    };
    let is_weight = weight.len() <= 5
        && weight.starts_with(['0', '1'])
        && (weight.len() == 1 || weight[1..].starts_with('.'))
        && weight.bytes().filter(|byte| *byte != b'.').all(|byte| byte.is_ascii_digit())
        && weight.matches('.').count() <= 1;
    let weight =
        if is_weight { weight.trim_end_matches('.').parse::<f64>().ok()? } else { return None };
    (!name.is_empty() && weight <= 1.0).then(|| (name.to_ascii_lowercase(), weight))
}
