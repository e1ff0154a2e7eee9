//! Tokens: none is believed that was not signed, and one that was grants what it says and nothing
//! else.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fantail::access::{Access, Action, Grant, Refused};
use fantail::config::Config;
use fantail::topic::Topic;
use serde_json::Value;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "token",
    run,
    words: &[
        "{\"alg\":\"HS256\"}\n",
        "{\"alg\":\"none\"}\n",
        "{\"alg\":\"HS512\",\"kid\":\"a\"}\n",
        "{\"exp\":4000000000,\"fantail\":{\"subscribe\":[\"a\"]}}",
        "\"exp\":1",
        "\"exp\":4e9",
        "\"nbf\":4000000000",
        "\"fantail\":",
        "\"subscribe\":[\"*\"]",
        "\"publish\":[\"b*\"]",
        "\"admin\":true",
        "\"boards\":{\"read\":[],\"change\":[\"board-*\"]}",
        "\"sub\":\"s\"",
        "\"aud\":\"x\"",
        "\"iss\":null",
        "\"crit\":[\"exp\"]",
        ",",
        "*",
        "null",
        "eyJhbGciOiJIUzI1NiJ9.",
        "..",
    ],
};

const SECRET: &str = "a secret of the fuzz targets alone, long enough for HS512: 64 bytes.";

static ACCESS: LazyLock<Access> = LazyLock::new(|| {
    let config = Config::from_arguments(["fuzz", "--jwt-secret", SECRET]).unwrap();
    Access::new(&config.issuers(), None, &|place| panic!("nobody fetches {place}")).unwrap()
});

/// A moment in 2033 or so.
const NOW: u64 = 2_000_000_000;

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(grant) = verify(&text) {
        is_signed(&text);
        drop(grant);
    }
    // What somebody with the key signs: a header on the first line, then the claims.
    let (header, claims) = text.split_once('\n').unwrap_or(("{\"alg\":\"HS256\"}", &text));
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    for (algorithm, name) in
        [(hmac::HMAC_SHA256, "HS256"), (hmac::HMAC_SHA384, "HS384"), (hmac::HMAC_SHA512, "HS512")]
    {
        let signature =
            hmac::sign(&hmac::Key::new(algorithm, SECRET.as_bytes()), message.as_bytes());
        let token = format!("{message}.{}", encode(signature.as_ref()));
        if let Ok(grant) = verify(&token) {
            let header: Value = serde_json::from_str(header).unwrap();
            assert_eq!(header["alg"], name);
            assert!(header.get("crit").is_none(), "{header}");
            grants(&serde_json::from_str(claims).unwrap(), &grant);
        }
        // One letter of the signature less, or another one, and it is worth nothing.
        let short = &token[..token.len() - 1];
        assert!(verify(short).is_err(), "{short}");
    }
    let unsigned = format!("{message}.");
    assert!(verify(&unsigned).is_err(), "{unsigned}");
}

fn verify(token: &str) -> Result<Arc<Grant>, Refused> {
    ACCESS.verify(token, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn is_signed(token: &str) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let is_by = |algorithm| {
        let key = hmac::Key::new(algorithm, SECRET.as_bytes());
        hmac::verify(&key, message.as_bytes(), &signature).is_ok()
    };
    let algorithms = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
    assert!(algorithms.into_iter().any(is_by), "{token}");
}

/// The grant is what the claims say.
fn grants(claims: &Value, grant: &Grant) {
    let expires_at = claims["exp"].as_f64().unwrap();
    assert!(expires_at + 5.0 > NOW as f64, "{claims}");
    assert!(
        claims.get("nbf").is_none_or(|nbf| nbf.as_f64().is_none_or(|nbf| nbf <= NOW as f64 + 6.0))
    );
    assert!(claims.get("aud").is_none_or(Value::is_null), "{claims}");
    let claim = &claims["fantail"];
    let admin = claim["admin"].as_bool().unwrap_or(false);
    assert_eq!(grant.allows(&Action::Administer), admin);
    for name in ["a", "b", "board-1", "*", "a*"] {
        let Ok(topic) = Topic::new(name) else { continue };
        let (subscribe, publish) = (&claim["subscribe"], &claim["publish"]);
        let boards = &claim["boards"];
        let or = |one: &Value, other: &Value| {
            if one.is_null() { contain(other, name) } else { contain(one, name) }
        };
        assert_eq!(grant.allows(&Action::Subscribe(&topic)), contain(subscribe, name), "{claims}");
        assert_eq!(grant.allows(&Action::Publish(&topic)), contain(publish, name), "{claims}");
        assert_eq!(grant.allows(&Action::ReadBoard(&topic)), or(&boards["read"], subscribe));
        assert_eq!(grant.allows(&Action::ChangeBoard(&topic)), or(&boards["change"], publish));
    }
}

/// Whether a list of names has this one, by itself or by a beginning.
fn contain(names: &Value, name: &str) -> bool {
    let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.into_iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    })
}
