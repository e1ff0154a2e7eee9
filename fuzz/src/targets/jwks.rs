//! JWK sets: a key is taken for what its kind allows and nothing else, no secret is taken for a key, and
//! what cannot verify is left out.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fantail::access::fuzz::jwks;
use serde_json::Value;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "jwks",
    run,
    words: &[
        "{\"keys\":[",
        "]}",
        "\"kty\":\"RSA\"",
        "\"kty\":\"EC\"",
        "\"kty\":\"OKP\"",
        "\"kty\":\"oct\"",
        "\"k\":\"c2VjcmV0\"",
        "\"crv\":\"P-256\"",
        "\"crv\":\"P-384\"",
        "\"crv\":\"P-521\"",
        "\"crv\":\"Ed25519\"",
        "\"crv\":\"X25519\"",
        "\"use\":\"sig\"",
        "\"use\":\"enc\"",
        "\"key_ops\":[\"verify\"]",
        "\"key_ops\":[\"sign\"]",
        "\"alg\":\"RS256\"",
        "\"alg\":\"PS512\"",
        "\"alg\":\"ES512\"",
        "\"alg\":\"EdDSA\"",
        "\"alg\":\"HS256\"",
        "\"alg\":\"none\"",
        "\"kid\":\"\"",
        "\"kid\":null",
        "\"e\":\"AQAB\"",
        "\"n\":\"",
        "\"x\":\"",
        "\"y\":\"",
        "AAAA",
        "{}",
        ",",
    ],
};

/// As many keys as a set may have.
const KEYS_MAX: usize = 100;

fn run(input: &[u8]) {
    let read = jwks(input);
    let Some(read) = &read else { return };
    assert!((1..=KEYS_MAX).contains(&read.len()), "{} keys", read.len());
    let set: Value = serde_json::from_slice(input).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert!(keys.len() <= KEYS_MAX);
    // In the order of the set, each is one that may verify, by what it may.
    let mut read_keys = read.iter();
    let mut next = read_keys.next();
    for key in keys {
        if next.is_some_and(|(id, algorithms)| is_of(key, id.as_deref(), algorithms)) {
            next = read_keys.next();
        } else {
            assert!(!is_surely_good(key), "left out: {key}");
        }
    }
    assert_eq!(next, None, "it is of no key in the set: {read:?} of {set}");
    // However it is written.
    assert_eq!(jwks(set.to_string().as_bytes()).as_ref(), Some(read), "{set}");
}

/// Whether this is what may be read of a key.
fn is_of(key: &Value, id: Option<&str>, algorithms: &[String]) -> bool {
    let allowed = allowed(key);
    let algorithms: BTreeSet<&str> = algorithms.iter().map(String::as_str).collect();
    let can_be = key["kty"] == "EC" || is_surely_good(key);
    can_be
        && verifies(key)
        && key["kid"].as_str() == id
        && !allowed.is_empty()
        && algorithms == allowed
}

/// By which algorithms a key may be used (RFC 7518 §3.1, §6; RFC 8037).
fn allowed(key: &Value) -> BTreeSet<&'static str> {
    let all: &[&str] = match (key["kty"].as_str(), key["crv"].as_str()) {
        (Some("RSA"), _) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        (Some("EC"), Some("P-256")) => &["ES256"],
        (Some("EC"), Some("P-384")) => &["ES384"],
        (Some("EC"), Some("P-521")) => &["ES512"],
        (Some("OKP"), Some("Ed25519")) => &["EdDSA"],
        _ => &[],
    };
    let named = key["alg"].as_str();
    all.iter().copied().filter(|algorithm| named.is_none_or(|named| named == *algorithm)).collect()
}

fn verifies(key: &Value) -> bool {
    let usage = &key["use"];
    let operations = &key["key_ops"];
    (usage.is_null() || usage == "sig")
        && (operations.is_null()
            || operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify")))
}

/// Whether nobody can say of a key that it is none: of Ed25519 every 32 bytes are taken for one, and of
/// RSA every number of the right size. Of the points of other curves only some are one.
fn is_surely_good(key: &Value) -> bool {
    let text = |name: &str| key[name].is_null() || key[name].is_string();
    let operations = key["key_ops"].as_array();
    let is_well_formed =
        text("kid") && text("alg") && operations.is_none_or(|all| all.iter().all(Value::is_string));
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
    let bits = |name: &str| {
        let bytes = bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let first = bytes.get(zeros)?;
        Some((bytes.len() - zeros) * 8 - first.leading_zeros() as usize)
    };
    let is_good = match key["kty"].as_str() {
        Some("OKP") => bytes("x").is_some_and(|x| x.len() == 32),
        Some("RSA") => {
            bits("n").is_some_and(|bits| (2048..=8192).contains(&bits)) && bits("e").is_some()
        }
        _ => false,
    };
    is_well_formed && is_good && verifies(key) && !allowed(key).is_empty()
}

#[cfg(test)]
mod tests {
    use fantail::access::fuzz::ReadKey;

    use super::*;

    #[test]
    fn the_seeds_have_keys_that_are_taken_and_keys_that_are_not() {
        let mut read: Vec<ReadKey> = Vec::new();
        for seed in TARGET.seeds().unwrap() {
            read.extend(jwks(&seed).unwrap());
        }
        let mut ids: Vec<&str> = read.iter().map(|(id, _)| id.as_deref().unwrap_or("-")).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["-", "2048", "ed", "p256", "p384", "p521"]);
    }
}
