//! `Accept-Encoding` (RFC 9110, section 12.5.3): which encodings a client understands, and which of
//! them it would rather have.

use std::cmp::Reverse;

use axum::http::{HeaderMap, header};

use crate::wire::Encoding;

/// How much a client wants something, in thousandths; 0 if not at all.
type Weight = u16;

/// The encoding of a stream: of those that are offered, the preferred one first, the one that the
/// client wants most. `None` if it excludes all of them, and identity, too. Where nothing is offered
/// nobody is asked: identity it is.
pub(crate) fn choose(headers: &HeaderMap, offered: &[Encoding]) -> Option<Encoding> {
    if offered.is_empty() || !headers.contains_key(header::ACCEPT_ENCODING) {
        return Some(Encoding::Identity);
    }
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut wanted: [Option<Weight>; Encoding::ALL.len()] = Default::default();
    let mut all_others = None;
    for item in lines.flat_map(|line| line.split(',')) {
        let Some((name, weight)) = read(item) else { continue };
        let named = Encoding::ALL.iter().position(|encoding| is_name_of(name, *encoding));
        let place = match named {
            Some(at) => &mut wanted[at],
            None if name == "*" => &mut all_others,
            None => continue,
        };
        // Whoever names one twice has said what it wants at least.
        *place = Some(place.map_or(weight, |known: Weight| known.max(weight)));
    }
    let named = |encoding: Encoding| wanted[encoding as usize];
    let identity = match (named(Encoding::Identity), all_others) {
        (Some(weight), _) => weight,
        // Everything that it does not name.
        (None, Some(0)) => 0,
        // Rather anything that it does name.
        (None, _) => 1,
    };
    let others = offered.iter().enumerate().map(|(nth, encoding)| {
        let weight = named(*encoding).or(all_others).unwrap_or(0);
        (weight, Reverse(nth), *encoding)
    });
    let others = others.filter(|(weight, ..)| *weight > 0 && *weight >= identity);
    let best = others.max_by_key(|(weight, nth, _)| (*weight, *nth));
    match best {
        Some((.., encoding)) => Some(encoding),
        None => (identity > 0).then_some(Encoding::Identity),
    }
}

/// A name and its weight; `None` if that cannot be read.
fn read(item: &str) -> Option<(&str, Weight)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let Some(parameter) = parts.next() else { return Some((name, 1000)) };
    let (key, value) = parameter.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("q") || parts.next().is_some() {
        return None;
    }
    Some((name, weight(value.trim())?))
}

/// `0`, `1`, and up to three digits between them.
fn weight(text: &str) -> Option<Weight> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: Weight = format!("{digits:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

fn is_name_of(name: &str, encoding: Encoding) -> bool {
    name.eq_ignore_ascii_case(encoding.name())
        // As it was called once (section 8.4.1.3).
        || (encoding == Encoding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn chosen(accept: &[&str], offered: &[Encoding]) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        choose(&headers, offered)
    }

    #[test]
    fn a_client_gets_what_it_wants_most_of_what_there_is() {
        use Encoding::{Brotli, Gzip, Identity, Zstd};
        let all = &[Zstd, Brotli, Gzip][..];
        for (accept, expected) in [
            // What browsers, curl and Go send.
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("deflate, GZIP, br;q=0", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Brotli)),
            ("gzip;q=1.0, zstd;q=0.999", Some(Gzip)),
            ("br;q=0.5,gzip;q=0.5", Some(Brotli)),
            ("gzip;q=0.5, identity", Some(Identity)),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            ("gzip;q=0.001", Some(Gzip)),
            ("", Some(Identity)),
            ("deflate", Some(Identity)),
            ("identity", Some(Identity)),
            ("gzip;q=0", Some(Identity)),
            ("*;q=0", None),
            ("*;q=0, identity;q=0.1", Some(Identity)),
            ("*;q=0, gzip", Some(Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, deflate", None),
            ("identity;q=0, br", Some(Brotli)),
            ("identity;q=0, *", Some(Zstd)),
            // What cannot be read was not said.
            ("gzip;q=2", Some(Identity)),
            ("gzip;q=0.1234", Some(Identity)),
            ("gzip;q=-1, br;q=+1", Some(Identity)),
            ("gzip;level=9", Some(Identity)),
            ("gzip;q=1;q=0", Some(Identity)),
            (" gzip ; Q = 0.5 ,, ;", Some(Gzip)),
        ] {
            assert_eq!(chosen(&[accept], all), expected, "{accept:?}");
        }
        assert_eq!(chosen(&[], all), Some(Identity));
        assert_eq!(chosen(&["identity;q=0", "gzip"], all), Some(Gzip));
        assert_eq!(chosen(&["br, gzip"], &[Gzip, Brotli]), Some(Gzip));
        assert_eq!(chosen(&["zstd, br, gzip"], &[Gzip]), Some(Gzip));
        // Where there is nothing, nobody is asked.
        assert_eq!(chosen(&["gzip, identity;q=0"], &[]), Some(Identity));
    }
}
