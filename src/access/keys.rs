//! [`Keys`]: what the tokens of one issuer are verified with, and which algorithms each key allows.
//!
//! A token says itself by which algorithm it is signed; whoever believes that can be made to take a
//! public key for a secret, or no signature for one (RFC 8725 §2.1). So the kind of a key decides:
//! a secret verifies HS256, HS384 and HS512; RSA the RS and PS of the same sizes; a curve its one ES
//! (P-256, P-384, P-521); Ed25519 EdDSA. Where a key of a JWK set names its algorithm, it is that
//! one alone.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Known, DecodingKey};
use serde::Deserialize;

/// Keys of one issuer at most: a token that does not say which is tried with each that fits.
pub(super) const KEYS_MAX: usize = 100;

/// A shorter secret can be guessed sooner than the hash can be broken (RFC 7518 §3.2: as long as the
/// hash at least).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// An algorithm of RFC 7518 §3.1 or RFC 8037 §3.1, other than `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// One that the library verifies.
    Known(Known),
    /// ECDSA with P-521 and SHA-512.
    Es512,
}

/// One key.
pub(super) struct Key {
    /// The `kid` of a key of a set; without one it is tried for every token.
    pub(super) id: Option<String>,
    /// By which algorithms it may be used.
    pub(super) algorithms: Vec<Algorithm>,
    /// What verifies.
    pub(super) material: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

/// Why something holds no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyError {
    EmptySecret,
    SecretIsPem,
    NotPem,
    PrivateKey,
    Certificate,
    UnknownKind,
    NotJwks,
    NoUsableKey,
    TooManyKeys,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::EmptySecret => "the secret is empty",
            KeyError::SecretIsPem => {
                "the secret is a PEM file: a public key is no secret and belongs to \
                 --jwt-public-key (FANTAIL_JWT_PUBLIC_KEY)"
            }
            KeyError::NotPem => "it is no PEM file with a public key (-----BEGIN PUBLIC KEY-----)",
            KeyError::PrivateKey => {
                "it holds a private key: this node only verifies, give it the public one \
                 (openssl pkey -in private.pem -pubout)"
            }
            KeyError::Certificate => {
                "it holds a certificate: give the public key alone \
                 (openssl x509 -in certificate.pem -noout -pubkey)"
            }
            KeyError::UnknownKind => {
                "the key is none of RSA (2048 to 8192 bits), EC (P-256, P-384, P-521) and Ed25519"
            }
            KeyError::NotJwks => "it is no JWK set ({\"keys\": […]})",
            KeyError::NoUsableKey => "the JWK set has no public key that can verify a token",
            KeyError::TooManyKeys => return write!(f, "it has more than {KEYS_MAX} keys"),
        })
    }
}

impl Algorithm {
    /// The algorithm of this name; no name is `none`.
    pub(super) fn named(name: &str) -> Option<Algorithm> {
        match name {
            "ES512" => Some(Algorithm::Es512),
            name => name.parse().ok().map(Algorithm::Known),
        }
    }
}

/// Says what it may be used for, not what it is.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl Keys {
    /// One shared secret.
    ///
    /// # Errors
    /// When it is empty, or no secret at all.
    pub(super) fn of_secret(secret: &[u8]) -> Result<Keys, KeyError> {
        if secret.trim_ascii().is_empty() {
            return Err(KeyError::EmptySecret);
        }
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::SecretIsPem);
        }
        let algorithms = [Known::HS256, Known::HS384, Known::HS512].map(Algorithm::Known).to_vec();
        let material = DecodingKey::from_secret(secret);
        Ok(Keys(vec![Key { id: None, algorithms, material }]))
    }

    /// The public keys of a PEM file: several while one takes over from another.
    ///
    /// # Errors
    /// When one of its parts is something else.
    pub(super) fn of_pem(text: &[u8]) -> Result<Keys, KeyError> {
        let parts = pem::parse_many(text).map_err(|_| KeyError::NotPem)?;
        if parts.len() > KEYS_MAX {
            return Err(KeyError::TooManyKeys);
        }
        let key = |part: &pem::Pem| match part.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {
                Key::of_der(part.contents()).ok_or(KeyError::UnknownKind)
            }
            "CERTIFICATE" => Err(KeyError::Certificate),
            tag if tag.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
            _ => Err(KeyError::NotPem),
        };
        let keys: Vec<Key> = parts.iter().map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::NotPem) } else { Ok(Keys(keys)) }
    }

    /// The public keys of a JWK set (RFC 7517 §5) that can verify tokens. What else is in it is left
    /// out: keys for encryption, of kinds that are not known here, and secrets, which have no place
    /// in what is public.
    ///
    /// # Errors
    /// When it is no set, or nothing in it can be used.
    pub(super) fn of_jwks(json: &[u8]) -> Result<Keys, KeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| KeyError::NotJwks)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeyError::TooManyKeys);
        }
        let usable = |key| serde_json::from_value::<Jwk>(key).ok().and_then(Jwk::into_key);
        let keys: Vec<Key> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(KeyError::NoUsableKey) } else { Ok(Keys(keys)) }
    }

    /// All of them.
    #[cfg(feature = "fuzz")]
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// How many there are; at least one.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that a token with this `kid` may be signed with.
    pub(super) fn named<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        let fits = move |key: &&Key| match (&key.id, id) {
            (Some(key), Some(id)) => key == id,
            // One of them does not say.
            (None, _) | (_, None) => true,
        };
        self.0.iter().filter(fits)
    }
}

impl Key {
    /// A `SubjectPublicKeyInfo`, or the `RSAPublicKey` of PKCS#1.
    fn of_der(der: &[u8]) -> Option<Key> {
        let can = |algorithm: &'static dyn VerificationAlgorithm| {
            ParsedPublicKey::new(algorithm, der).ok()
        };
        let (algorithms, material) = if let Some(key) = can(&signature::RSA_PKCS1_2048_8192_SHA256)
        {
            // Which checks its size.
            PublicEncryptingKey::from_der(key.as_der().ok()?.as_ref()).ok()?;
            (rsa(), DecodingKey::from_rsa_der(der))
        } else if can(&signature::ED25519).is_some() {
            (vec![Algorithm::Known(Known::EdDSA)], DecodingKey::from_ed_der(der))
        } else if can(&signature::ECDSA_P256_SHA256_FIXED).is_some() {
            (vec![Algorithm::Known(Known::ES256)], DecodingKey::from_ec_der(der))
        } else if can(&signature::ECDSA_P384_SHA384_FIXED).is_some() {
            (vec![Algorithm::Known(Known::ES384)], DecodingKey::from_ec_der(der))
        } else if can(&signature::ECDSA_P521_SHA512_FIXED).is_some() {
            (vec![Algorithm::Es512], DecodingKey::from_ec_der(der))
        } else {
            return None;
        };
        Some(Key { id: None, algorithms, material })
    }
}

/// What an RSA key may be used by.
fn rsa() -> Vec<Algorithm> {
    use Known::{PS256, PS384, PS512, RS256, RS384, RS512};
    [RS256, RS384, RS512, PS256, PS384, PS512].map(Algorithm::Known).to_vec()
}

/// A key of a JWK set, as far as it matters here.
#[derive(Deserialize)]
struct Jwk {
    #[serde(flatten)]
    kind: JwkKind,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(tag = "kty")]
enum JwkKind {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Ec { crv: String, x: String, y: String },
    #[serde(rename = "OKP")]
    Okp { crv: String, x: String },
}

impl Jwk {
    /// The key, if it can verify tokens.
    fn into_key(self) -> Option<Key> {
        let verifies = self.r#use.is_none_or(|usage| usage == "sig")
            && self.key_ops.is_none_or(|uses| uses.iter().any(|usage| usage == "verify"));
        if !verifies {
            return None;
        }
        let (mut algorithms, material) = match &self.kind {
            JwkKind::Rsa { n, e } => {
                let (n, e) = (number(n)?, number(e)?);
                let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
                if !(2048..=8192).contains(&bits) {
                    return None;
                }
                (rsa(), DecodingKey::from_rsa_raw_components(&n, &e))
            }
            JwkKind::Ec { crv, x, y } => {
                let (algorithm, by, bytes): (_, &'static dyn VerificationAlgorithm, _) = match crv
                    .as_str()
                {
                    "P-256" => {
                        (Algorithm::Known(Known::ES256), &signature::ECDSA_P256_SHA256_FIXED, 32)
                    }
                    "P-384" => {
                        (Algorithm::Known(Known::ES384), &signature::ECDSA_P384_SHA384_FIXED, 48)
                    }
                    "P-521" => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
                    _ => return None,
                };
                let coordinates = [decode(x)?, decode(y)?];
                if coordinates.iter().any(|coordinate| coordinate.len() != bytes) {
                    return None;
                }
                // A point as SEC 1 §2.3.3 writes it, uncompressed.
                let point = [&[4], &coordinates[0][..], &coordinates[1][..]].concat();
                ParsedPublicKey::new(by, &point).ok()?;
                (vec![algorithm], DecodingKey::from_ec_der(&point))
            }
            JwkKind::Okp { crv, x } => {
                let x = decode(x)?;
                if crv != "Ed25519" || x.len() != 32 {
                    return None;
                }
                (vec![Algorithm::Known(Known::EdDSA)], DecodingKey::from_ed_der(&x))
            }
        };
        if let Some(only) = self.alg {
            let only = Algorithm::named(&only);
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        (!algorithms.is_empty()).then_some(Key { id: self.kid, algorithms, material })
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A number without zeros before it, which some write all the same (RFC 7518 §6.3.1.1).
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

#[cfg(test)]
mod tests;
