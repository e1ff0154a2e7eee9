//! [`Body`]: a JSON body of a known shape.
//!
//! Whatever can be refused by the head of the request is refused before the body is asked for: a
//! client that waits for `100 Continue` is spared sending it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::super::problem::Problem;
use super::body_limit::{BodyLimit, BodyMemory};
use super::only;
use crate::telemetry::metric;

/// Time to send a body: guards against peers that fill memory with bodies they never end.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body of a known shape; fields it does not know are an error, so that a misspelt one is
/// not taken for absent. With it comes its part of what all bodies may take together, to be kept
/// until the request is answered.
pub(in crate::http) struct Body<T>(pub(in crate::http) T, pub(in crate::http) BodyMemory);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        is_json(request.headers())?;
        is_encoded_as_it_is(request.headers())?;
        let limit = request.extensions().get().cloned();
        let limit: BodyLimit = limit.unwrap_or_else(|| BodyLimit::new(0));
        let read = read(request.into_body(), &limit);
        let (bytes, memory) =
            tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| {
                Err(Problem::body_too_slow(format!(
                    "the body did not arrive within {BODY_TIMEOUT:?}"
                )))
            })?;
        let parsed = parse(&bytes).map_err(Problem::bad_request)?;
        Ok(Body(parsed, memory))
    }
}

/// Whether `Content-Type` says JSON.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = only(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = media_type.strip_prefix("application/").is_some_and(|subtype| {
        subtype == "json"
            || subtype.strip_suffix("+json").is_some_and(|kind| {
                !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_graphic())
            })
    });
    if !is_json {
        return Err(Problem::not_json("send the body as Content-Type: application/json"));
    }
    let charset = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let is_utf8 = |charset: &str| {
        ["utf-8", "utf8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset))
    };
    if charset.is_none_or(is_utf8) {
        Ok(())
    } else {
        Err(Problem::not_json("send the body in UTF-8, as JSON always is"))
    }
}

/// Whether the body comes as it is: we decode none. The HTTP server takes off `chunked`, and leaves
/// whatever else was put around the body by `Transfer-Encoding`.
fn is_encoded_as_it_is(headers: &HeaderMap) -> Result<(), Problem> {
    for (name, called, plain) in [
        (header::CONTENT_ENCODING, "Content-Encoding", "identity"),
        (header::TRANSFER_ENCODING, "Transfer-Encoding", "chunked"),
    ] {
        for line in headers.get_all(name) {
            let line = String::from_utf8_lossy(line.as_bytes());
            let mut codings = line.split(',').map(str::trim);
            let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case(plain);
            if let Some(coding) = codings.find(|coding| !is_plain(coding)) {
                let coding: String = coding.chars().take(40).collect();
                return Err(Problem::content_encoding(format!(
                    "{called}: {coding} is not understood here: send the body as it is"
                )));
            }
        }
    }
    Ok(())
}

/// Reads all of a body.
async fn read(mut body: HttpBody, limit: &BodyLimit) -> Result<(Vec<u8>, BodyMemory), Problem> {
    let bytes_max = limit.bytes_max;
    let too_large = || {
        let detail = format!("the body is larger than the {bytes_max} bytes that are accepted");
        Problem::body_too_large(detail)
    };
    // What the head says of it.
    let claimed = body.size_hint().lower();
    if claimed > bytes_max as u64 {
        return Err(too_large());
    }
    // Nothing is made ready for what is only claimed.
    let (mut bytes, mut memory) = (Vec::new(), limit.memory());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| {
            Problem::bad_request(format!("the body cannot be read to its end: {error}"))
        })?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        bytes.reserve(data.len());
        memory.grow_to(bytes.capacity()).await.map_err(|full| {
            metric::request_limited("bodies");
            Problem::try_later("bodies-full", "Too many bodies", full.to_string())
        })?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, memory))
}

/// Reads JSON; otherwise says in words what it is instead.
pub(in crate::http) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // Some writers begin UTF-8 with a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.is_empty() {
        return Err("the body is empty: send JSON".to_owned());
    }
    if let Some(encoding) = other_encoding(text) {
        return Err(format!("the body is in {encoding}: send JSON in UTF-8"));
    }
    if let Some(compression) = compression(text) {
        return Err(format!(
            "the body is compressed ({compression}): send JSON as it is, without compression"
        ));
    }
    let first = text[0];
    if !first.is_ascii_graphic() && !first.is_ascii_whitespace() {
        return Err(format!(
            "the body is not JSON: it begins with byte {first:#04x}; send JSON as it is, in UTF-8 \
             and without compression"
        ));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let at = bytes.len() - text.len() + error.valid_up_to();
        format!("the body is not UTF-8 at byte {at}: send JSON in UTF-8, without compression")
    })?;
    serde_json::from_str(text).map_err(|error| {
        format!("the body is not the JSON wanted: {}", shortened(&error.to_string()))
    })
}

/// What is told of an error that repeats a name or a value of the client, in characters: its
/// beginning, and its end, which says what would be right, and where.
const TOLD_START_CHARACTERS: usize = 120;
const TOLD_END_CHARACTERS: usize = 180;

/// The same without its middle, if it is long.
fn shortened(text: &str) -> Cow<'_, str> {
    let start = text.char_indices().nth(TOLD_START_CHARACTERS).map(|(at, _)| at);
    let end = text.char_indices().nth_back(TOLD_END_CHARACTERS).map(|(at, _)| at);
    match start.zip(end) {
        Some((start, end)) if start < end => format!("{}…{}", &text[..start], &text[end..]).into(),
        _ => text.into(),
    }
}

/// The encoding of a text that is not UTF-8, as its mark or its first characters tell: those of
/// JSON are ASCII, which has zeros in other encodings.
fn other_encoding(text: &[u8]) -> Option<&'static str> {
    match text {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [0, 1..=u8::MAX, ..] | [1..=u8::MAX, 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// The compression whose mark stands at the beginning. No JSON begins with one.
fn compression(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some("deflate"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        _ => None,
    }
}

/// A struct that is written as an object. A list of its fields' values, which serde takes for one,
/// has no names: a client that sends it means something else.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct Object<T>(pub(in crate::http) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A list of objects that is counted while it is read: nothing is made of what is beyond `MAX`.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct AtMost<T, const MAX: usize>(pub(in crate::http) Vec<T>);

impl<T, const MAX: usize> Default for AtMost<T, MAX> {
    fn default() -> AtMost<T, MAX> {
        AtMost(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AtMost<T, MAX>, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = AtMost<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut read = Vec::new();
                while let Some(Object(element)) = list.next_element()? {
                    if read.len() == MAX {
                        return Err(A::Error::custom(format!("at most {MAX} at once")));
                    }
                    read.push(element);
                }
                Ok(AtMost(read))
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl Problem {
    fn body_too_large(detail: String) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", detail)
    }

    fn body_too_slow(detail: String) -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "Request timeout", detail)
    }

    fn not_json(detail: &str) -> Problem {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Problem::new(status, "not-json", "Unsupported media type", detail.to_owned())
    }

    fn content_encoding(detail: String) -> Problem {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Problem::new(status, "content-encoding", "Unsupported content encoding", detail)
            .with_header(&["accept-encoding", "identity"])
    }
}

#[cfg(test)]
mod tests;
