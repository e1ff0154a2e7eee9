//! Somebody who signs tokens, with a key of their own that nobody has seen before.

#![allow(dead_code, unreachable_pub, reason = "unit tests of the library use a part of it, too")]

use std::time::SystemTime;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Every algorithm that a token may be signed by.
pub const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "ES512", "EdDSA",
];

/// A secret of a good length, for nodes that tests start.
pub const SECRET: &str = "a secret for tests alone, and long enough for HS512 at 64 bytes";

/// Somebody who signs tokens.
pub struct Signer {
    algorithm: &'static str,
    key: PrivateKey,
}

enum PrivateKey {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// With a new key for this algorithm.
    pub fn new(algorithm: &'static str) -> Signer {
        let key = match &algorithm[..2] {
            "HS" => {
                let mut secret = vec![0; 64];
                rand::fill(&mut secret).unwrap();
                PrivateKey::Secret(URL_SAFE_NO_PAD.encode(secret).into())
            }
            "RS" | "PS" => PrivateKey::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            "ES" => PrivateKey::Ec(
                EcdsaKeyPair::generate(match algorithm {
                    "ES256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                    "ES384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                    _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
                })
                .unwrap(),
            ),
            _ => PrivateKey::Ed(Ed25519KeyPair::generate().unwrap()),
        };
        Signer { algorithm, key }
    }

    /// With this secret.
    pub fn with_secret(algorithm: &'static str, secret: &str) -> Signer {
        Signer { algorithm, key: PrivateKey::Secret(secret.into()) }
    }

    /// The same key for another algorithm of its kind.
    pub fn by(self, algorithm: &'static str) -> Signer {
        Signer { algorithm, ..self }
    }

    /// What it signs with, if that is a secret.
    pub fn secret(&self) -> &str {
        match &self.key {
            PrivateKey::Secret(secret) => std::str::from_utf8(secret).unwrap(),
            _ => panic!("{} has no secret", self.algorithm),
        }
    }

    /// The public key as a PEM file.
    pub fn public_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PUBLIC KEY", self.public_der()))
    }

    /// The public key as `SubjectPublicKeyInfo`.
    pub fn public_der(&self) -> Vec<u8> {
        let der = match &self.key {
            PrivateKey::Secret(_) => panic!("a secret has no public part"),
            PrivateKey::Rsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap()
            }
            PrivateKey::Ec(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap()
            }
            PrivateKey::Ed(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap()
            }
        };
        der.as_ref().to_vec()
    }

    /// The public key as a JWK, for this algorithm alone.
    pub fn jwk(&self, id: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.key {
            PrivateKey::Secret(secret) => json!({ "kty": "oct", "k": encode(secret) }),
            PrivateKey::Rsa(pair) => {
                let key = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": encode(key.modulus().big_endian_without_leading_zero()),
                    "e": encode(key.exponent().big_endian_without_leading_zero()),
                })
            }
            PrivateKey::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match self.algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            PrivateKey::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) })
            }
        };
        key["kid"] = id.into();
        key["alg"] = self.algorithm.into();
        key["use"] = "sig".into();
        key
    }

    /// A token for ten minutes that has this as its claim `fantail`.
    pub fn grant(&self, grant: Value) -> String {
        self.token(&json!({ "exp": in_seconds(600), "sub": "somebody", "fantail": grant }))
    }

    /// A token that may do everything.
    pub fn everything(&self) -> String {
        self.grant(json!({ "subscribe": ["*"], "publish": ["*"], "admin": true }))
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.signed(&json!({ "alg": self.algorithm, "typ": "JWT" }), claims.to_string().as_bytes())
    }

    /// A token with this header, which may say anything.
    pub fn signed(&self, header: &Value, payload: &[u8]) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload));
        format!("{message}.{}", encode(&self.sign(message.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            PrivateKey::Secret(secret) => {
                let hash = match self.algorithm {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            PrivateKey::Rsa(pair) => {
                let padding = match self.algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            PrivateKey::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            PrivateKey::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// So many seconds from now, or before, as claims tell times.
pub fn in_seconds(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    now.saturating_add_signed(seconds)
}
