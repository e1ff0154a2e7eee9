//! [`verify`]: what a token is worth. Pure but for the mathematics.
//!
//! A token is a JWS in its compact form (RFC 7515 §7.1) that holds the claims of a JWT (RFC 7519).
//! First the signature: nothing of the claims is believed, or answered, before that is right.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::grant::{Claim, Grant};
use super::keys::{Algorithm, Key, Keys};
use super::mercure;

/// The longest token, in bytes: what a request head has room for, and what somebody without any
/// right can have looked at.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How far clocks may differ, in seconds: while a token is presented. A stream that runs ends on
/// time.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// Keys that are tried for one token at most: each costs as much as a signature.
const TRIES_MAX: usize = 4;

/// Numbers that JSON keeps exactly, and times that clocks can tell.
const SECONDS_MAX: f64 = (1_u64 << 53) as f64;

/// Why a token is worth nothing. None of them has a word of the token in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// It is not three parts of base64url, or the first is no header.
    Malformed,
    /// Its header has a `crit`, of which nothing is understood here (RFC 7515 §4.1.11).
    Critical,
    /// It is signed by an algorithm that the key is not for.
    Algorithm,
    /// It names a key that its issuer does not have.
    UnknownKey,
    /// Its signature is not one of its issuer's.
    Signature,
    /// Its claims are not what they have to be.
    Claims,
    /// Its claim `fantail` is not what it has to be.
    GrantClaim,
    /// It has no `exp`.
    NoExpiry,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is of another issuer.
    Issuer,
    /// It is for somebody else, or for whom is not known here.
    Audience,
    /// It may be good: the keys of its issuer have not come yet, or its issuer could not be asked
    /// whether there is one of this name.
    KeysMissing,
}

impl Refused {
    /// Whether it may be good once more keys are known.
    pub(crate) fn is_for_want_of_keys(self) -> bool {
        matches!(self, Refused::UnknownKey | Refused::KeysMissing)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::TooLong => return write!(f, "a token has at most {TOKEN_BYTES_MAX} bytes"),
            Refused::Malformed => "the token is no JWT in compact form",
            Refused::Critical => "the token has a header that must be understood and is not",
            Refused::Algorithm => "the token is signed by an algorithm that its key is not for",
            Refused::UnknownKey => "the token is signed with a key that is not known",
            Refused::Signature => "the token's signature is wrong",
            Refused::Claims => "one of the token's claims is not of its kind",
            Refused::GrantClaim => {
                "the token's claim fantail is not understood: it has lists of names as subscribe \
                 and publish, with * only at the end of a name, and admin as true or false"
            }
            Refused::NoExpiry => "the token has no exp",
            Refused::Expired => "the token has expired",
            Refused::NotYetValid => "the token is not valid yet",
            Refused::Issuer => "the token is of another issuer",
            Refused::Audience => "the token is not for this gateway: its aud is another",
            Refused::KeysMissing => "the key of this token has not come yet from its issuer",
        })
    }
}

/// What one issuer's tokens must say.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The `iss`, exactly.
    pub(super) issuer: Option<&'a str>,
    /// One of the `aud`. Without it a token that names an audience is refused (RFC 7519 §4.1.3: who
    /// does not find himself in it must reject it).
    pub(super) audience: Option<&'a str>,
    /// What tokens of Mercure hubs say is read, too.
    pub(super) mercure: bool,
}

/// What the header of a token says of how it is signed (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Whatever is in it. Without this, `null` would be no `crit`.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// The claims (RFC 7519 §4.1), those that are read.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
    iat: Option<Seconds>,
    jti: Option<String>,
    fantail: Option<Box<RawValue>>,
    authorization_details: Option<Box<RawValue>>,
    mercure: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A `NumericDate`: seconds since 1970, whole or not (RFC 7519 §2).
#[derive(Clone, Copy)]
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if (0.0..=SECONDS_MAX).contains(&seconds) {
            Ok(Seconds(seconds as u64))
        } else {
            Err(serde::de::Error::custom("no time"))
        }
    }
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// What this token grants, at this time in seconds since 1970.
///
/// # Errors
/// Why it is worth nothing.
pub(super) fn verify(
    token: &str,
    keys: &Keys,
    expected: Expected<'_>,
    now: u64,
) -> Result<Grant, Refused> {
    let claims = signed_claims(token, keys)?;
    check_times(&claims, now)?;
    if expected.issuer.is_some() && claims.iss.as_deref() != expected.issuer {
        return Err(Refused::Issuer);
    }
    check_audience(claims.aud.as_ref(), expected.audience)?;
    let claim = match &claims.fantail {
        // A list would be read as the fields of an object in their order.
        Some(claim) if !claim.get().starts_with('{') => return Err(Refused::GrantClaim),
        Some(claim) => serde_json::from_str(claim.get()).map_err(|_| Refused::GrantClaim)?,
        None => Claim::default(),
    };
    let mut grant = Grant::of(claim);
    if expected.mercure {
        let of_hub =
            mercure::granted(claims.authorization_details.as_deref(), claims.mercure.as_deref());
        grant.subscribe = grant.subscribe.and(&of_hub.subscribe);
        grant.publish = grant.publish.and(&of_hub.publish);
    }
    Ok(Grant {
        subject: claims.sub,
        token_id: claims.jti,
        issuer: claims.iss,
        issued_at: claims.iat.map(|Seconds(at)| at),
        expires_at: claims.exp.map(|Seconds(at)| at),
        ..grant
    })
}

/// The parts of a token, encoded.
struct Parts<'a> {
    /// What is signed: header and payload.
    message: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Parts<'a>, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
        Ok(Parts { message, header, payload, signature })
    }
}

/// Whose token it says that it is. Nobody has looked at its signature then: this says with whose keys
/// to do that, and nothing else.
///
/// # Errors
/// When it says nothing that can be read.
pub(super) fn told_issuer(token: &str) -> Result<Option<String>, Refused> {
    #[derive(Deserialize)]
    struct Told {
        iss: Option<String>,
    }
    let payload = decode(Parts::of(token)?.payload)?;
    let told: Told = serde_json::from_slice(&payload).map_err(|_| Refused::Malformed)?;
    Ok(told.iss)
}

/// The claims of a token whose signature is right.
fn signed_claims(token: &str, keys: &Keys) -> Result<Claims, Refused> {
    let Parts { message, header, payload, signature } = Parts::of(token)?;
    let header = decode(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| Refused::Malformed)?;
    if header.crit {
        return Err(Refused::Critical);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or(Refused::Algorithm)?;
    let mut named = keys.named(header.kid.as_deref()).peekable();
    if named.peek().is_none() {
        return Err(Refused::UnknownKey);
    }
    let mut refused = Refused::Algorithm;
    for key in named.filter(|key| key.algorithms.contains(&algorithm)).take(TRIES_MAX) {
        match algorithm {
            Algorithm::Es512 => {
                let is_right = ECDSA_P521_SHA512_FIXED
                    .verify_sig(bytes(key)?, message.as_bytes(), &decode(signature)?)
                    .is_ok();
                if is_right {
                    return serde_json::from_slice(&decode(payload)?).map_err(|_| Refused::Claims);
                }
                refused = Refused::Signature;
            }
            Algorithm::Known(known) => {
                use jsonwebtoken::errors::ErrorKind;
                match jsonwebtoken::decode::<Claims>(token, &key.material, &by(known)) {
                    Ok(token) => return Ok(token.claims),
                    // It parses the claims only after it has verified the signature.
                    Err(error) => match error.kind() {
                        ErrorKind::InvalidSignature => refused = Refused::Signature,
                        ErrorKind::Json(_) | ErrorKind::Utf8(_) => return Err(Refused::Claims),
                        _ => return Err(Refused::Malformed),
                    },
                }
            }
        }
    }
    Err(refused)
}

/// Nothing but the signature: all claims are checked in one place, at one time, for every algorithm.
fn by(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn bytes(key: &Key) -> Result<&[u8], Refused> {
    key.material.try_get_as_bytes().map_err(|_| Refused::Algorithm)
}

fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)
}

fn check_times(claims: &Claims, now: u64) -> Result<(), Refused> {
    let Seconds(expires_at) = claims.exp.ok_or(Refused::NoExpiry)?;
    // RFC 7519 §4.1.4: on or after this time it must not be accepted.
    if now >= expires_at + LEEWAY_SECONDS {
        return Err(Refused::Expired);
    }
    match claims.nbf {
        Some(Seconds(begins_at)) if now + LEEWAY_SECONDS < begins_at => Err(Refused::NotYetValid),
        _ => Ok(()),
    }
}

fn check_audience(told: Option<&Audience>, expected: Option<&str>) -> Result<(), Refused> {
    let is_right = match (told, expected) {
        (None, None) => true,
        (Some(Audience::One(told)), Some(expected)) => told == expected,
        (Some(Audience::Several(told)), Some(expected)) => told.iter().any(|told| told == expected),
        (None, Some(_)) | (Some(_), None) => false,
    };
    if is_right { Ok(()) } else { Err(Refused::Audience) }
}

#[cfg(test)]
mod tests;
