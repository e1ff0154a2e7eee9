//! [`Parameters`]: the query of a request, by the same rules on every route.
//!
//! A parameter that a route does not know is refused: a misspelt `lastEventId` would otherwise be a
//! stream that silently starts now. What a route knows are the fields of the struct it reads. A
//! route without parameters is asked for behind [`no_parameters`].

use std::borrow::Cow;
use std::fmt::Display;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::value::{Error, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::super::problem::Problem;
use crate::nearest::{NAME_BYTES_MAX, nearest};

/// The position of a stream, which clients in use spell in three ways.
const POSITION: &str = "lastEventId";
const POSITION_SPELLINGS: [&str; 3] = [POSITION, "lastEventID", "last_event_id"];

/// A query of a known shape.
#[derive(Debug)]
pub(in crate::http) struct Parameters<T>(pub(in crate::http) T);

impl<T: Query, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Parameters::read(&parts.uri)
    }
}

impl<T: Query> Parameters<T> {
    pub(in crate::http) fn read(uri: &Uri) -> Result<Parameters<T>, Problem> {
        let mut known = Vec::new();
        T::names(&mut known);
        let given = Given::read(uri.query().unwrap_or_default(), &known)?;
        let read = T::read(&given).map(Parameters);
        read.map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// The value of this parameter, for whoever has to know it before the query is read. If it is there
/// twice, which is refused then, the first one.
pub(in crate::http) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(given, _)| *decode(given) == *name.as_bytes());
    value.map(|(_, value)| String::from_utf8_lossy(&decode(value)).into_owned())
}

/// For routes that take no parameters.
///
/// # Errors
/// When there is one.
pub(in crate::http) fn no_parameters(uri: &Uri) -> Result<(), Problem> {
    Given::read(uri.query().unwrap_or_default(), &[]).map(|_| ())
}

/// A struct whose fields are parameters, or two of them whose parameters may stand together.
pub(in crate::http) trait Query: DeserializeOwned {
    /// Adds the names of all its parameters.
    fn names(names: &mut Vec<&'static str>) {
        // Fails when it has them.
        let _ = Self::deserialize(FieldNames(names));
    }

    /// Reads it from what was given.
    fn read(given: &Given<'_>) -> Result<Self, Error> {
        Self::deserialize(given)
    }
}

impl<A: Query, B: Query> Query for (A, B) {
    fn names(names: &mut Vec<&'static str>) {
        A::names(names);
        B::names(names);
    }

    fn read(given: &Given<'_>) -> Result<Self, Error> {
        Ok((A::read(given)?, B::read(given)?))
    }
}

/// The parameters of one request, each known and given once.
pub(in crate::http) struct Given<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Given<'a> {
    fn read(query: &'a str, known: &[&'static str]) -> Result<Given<'a>, Problem> {
        let mut given = Given(Vec::new());
        let mut position = OnePosition::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name);
            let name = String::from_utf8_lossy(&name);
            if POSITION_SPELLINGS.contains(&&*name) && known.contains(&POSITION) {
                position.add(match decode(value) {
                    Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                    Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
                });
                continue;
            }
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                return Err(Problem::bad_request(unknown(&name, known)));
            };
            if given.0.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad_request(format!("{name} may be given once only")));
            }
            let not_utf8 = |_| Problem::bad_request(format!("{name} is not UTF-8"));
            let value = match decode(value) {
                Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map_err(not_utf8)?.into(),
                Cow::Owned(bytes) => {
                    let text = String::from_utf8(bytes).map_err(|error| error.utf8_error());
                    text.map_err(not_utf8)?.into()
                }
            };
            given.0.push((name, value));
        }
        if let Some(position) = position.said() {
            given.0.push((POSITION, position));
        }
        Ok(given)
    }
}

/// What several statements of one position come to, in a header or a query.
///
/// Those that are empty say nothing, and those that are equal say it once. Two that differ become a
/// text that is no position: whoever wrote it is told that it cannot be read, in a `reset`, instead
/// of going on after one of both by chance.
#[derive(Default)]
pub(in crate::http) struct OnePosition<'a> {
    first: Option<Cow<'a, str>>,
    different: Option<Cow<'a, str>>,
}

/// What divides positions that were joined: neither they nor names of topics have white space.
pub(in crate::http) const BETWEEN_POSITIONS: &str = ", ";

impl<'a> OnePosition<'a> {
    /// Adds what one header line or parameter says.
    pub(in crate::http) fn add(&mut self, text: Cow<'a, str>) {
        match &self.first {
            _ if text.is_empty() => {}
            None => self.first = Some(text),
            Some(first) if *first == text => {}
            Some(_) => self.different = Some(text),
        }
    }

    /// What was said, if anything was.
    pub(in crate::http) fn said(self) -> Option<Cow<'a, str>> {
        match (self.first, self.different) {
            (Some(first), Some(different)) => {
                Some(format!("{first}{BETWEEN_POSITIONS}{different}").into())
            }
            (said, _) => said,
        }
    }
}

/// Decodes `+` and `%20`; a `%` that begins no such code stands for itself, as in browsers.
fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return bytes.into();
    }
    let digit = |at: usize| bytes.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = if byte == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        match code {
            Some((high, low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            None if byte == b'+' => decoded.push(b' '),
            None => decoded.push(byte),
        }
        at += 1;
    }
    decoded.into()
}

/// What is said about a parameter that the route does not know.
fn unknown(name: &str, known: &[&str]) -> String {
    let told = match name.char_indices().nth(NAME_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    };
    let advice = match (nearest(name, known.iter().copied()), known) {
        (Some(nearest), _) => format!("did you mean {nearest}?"),
        (None, []) => "this request takes none".to_owned(),
        (None, [only]) => format!("this request takes {only}"),
        (None, [known @ .., last]) => {
            format!("this request takes {} and {last}", known.join(", "))
        }
    };
    format!("unknown query parameter {told:?}: {advice}")
}

/// Asks a struct for the names of its fields, and makes none.
struct FieldNames<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields);
        Err(Error::custom("only its names were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a query is a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> Deserializer<'de> for &'de Given<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let values = self.0.iter().map(|(name, text)| (*name, Value { name, text }));
        visitor.visit_map(MapDeserializer::new(values))
    }

    /// Of two structs that stand together, each takes what is its own.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let own = self.0.iter().filter(|(name, _)| fields.contains(name));
        let values = own.map(|(name, text)| (*name, Value { name, text }));
        visitor.visit_map(MapDeserializer::new(values))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// One parameter, which becomes what its field is.
#[derive(Clone, Copy)]
struct Value<'a> {
    name: &'static str,
    text: &'a str,
}

impl Value<'_> {
    fn must_be(&self, what: impl Display) -> Error {
        Error::custom(format!("{} must be {what}", self.name))
    }
}

impl<'de> IntoDeserializer<'de> for Value<'de> {
    type Deserializer = Value<'de>;

    fn into_deserializer(self) -> Value<'de> {
        self
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.text.parse().map_err(|_| self.must_be("true or false"))?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.text.parse().map_err(|_| self.must_be("a whole number"))?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !variants.contains(&self.text) {
            return Err(self.must_be(variants.join(" or ")));
        }
        visitor.visit_enum(self.text.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests;
