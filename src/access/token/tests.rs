use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::grant::Action;
use super::super::minting::{ALGORITHMS, Signer};
use super::*;
use crate::topic::Topic;

/// The time of all these tests.
const NOW: u64 = 2_000_000_000;

const ANYBODY: Expected<'static> = Expected { issuer: None, audience: None, mercure: false };

fn keys_of(signer: &Signer, algorithm: &str) -> Keys {
    if algorithm.starts_with("HS") {
        Keys::of_secret(signer.secret().as_bytes()).unwrap()
    } else {
        Keys::of_pem(signer.public_pem().as_bytes()).unwrap()
    }
}

fn claims() -> Value {
    json!({ "exp": NOW + 60, "fantail": { "subscribe": ["a"] } })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

/// What comes of these claims, signed well.
fn worth(claims: &Value, expected: Expected<'_>) -> Result<Grant, Refused> {
    let signer = Signer::with_secret("HS256", "secret");
    verify(&signer.token(claims), &keys_of(&signer, "HS256"), expected, NOW)
}

#[test]
fn a_token_of_every_algorithm_is_worth_what_it_says() {
    for algorithm in ALGORITHMS {
        let signer = Signer::new(algorithm);
        let token = signer.token(&with("sub", json!("alice")));
        let grant = verify(&token, &keys_of(&signer, algorithm), ANYBODY, NOW).unwrap();
        assert_eq!(grant.subject.as_deref(), Some("alice"), "{algorithm}");
        assert!(grant.allows(&Action::Subscribe(&Topic::new("a").unwrap())), "{algorithm}");
        // With another key, or one byte changed, it is worth nothing.
        let other = keys_of(&Signer::new(algorithm), algorithm);
        assert_eq!(verify(&token, &other, ANYBODY, NOW), Err(Refused::Signature), "{algorithm}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{message}.{other}{}", &signature[1..]);
        let refused = verify(&changed, &keys_of(&signer, algorithm), ANYBODY, NOW);
        assert_eq!(refused, Err(Refused::Signature), "{algorithm}");
    }
}

#[test]
fn no_algorithm_is_taken_for_another() {
    // A public key is known to everybody: it must not be a secret.
    for algorithm in ["RS256", "ES256", "ES384", "ES512", "EdDSA"] {
        let signer = Signer::new(algorithm);
        let keys = keys_of(&signer, algorithm);
        let pem = signer.public_pem();
        for secret in [pem.trim(), &pem, &format!("{pem}\n")] {
            for hash in ["HS256", "HS384", "HS512"] {
                let token = Signer::with_secret(hash, secret).token(&claims());
                assert_eq!(verify(&token, &keys, ANYBODY, NOW), Err(Refused::Algorithm));
            }
        }
        for none in ["none", "None", "nOnE", "NONE", ""] {
            let token = signer.signed(&json!({ "alg": none }), claims().to_string().as_bytes());
            let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
            for token in [token, unsigned] {
                assert_eq!(verify(&token, &keys, ANYBODY, NOW), Err(Refused::Algorithm));
            }
        }
    }
    // The curve decides.
    let curve = Signer::new("ES384");
    let token = curve.signed(&json!({ "alg": "ES256" }), claims().to_string().as_bytes());
    assert_eq!(verify(&token, &keys_of(&curve, "ES384"), ANYBODY, NOW), Err(Refused::Algorithm));
    // An RSA key is for all of its kind, unless it says which.
    let rsa = Signer::new("RS256");
    let set = json!({ "keys": [rsa.jwk("k")] }).to_string();
    let (any, only) = (keys_of(&rsa, "RS256"), Keys::of_jwks(set.as_bytes()).unwrap());
    let rsa = rsa.by("PS512");
    let token = rsa.token(&claims());
    assert!(verify(&token, &any, ANYBODY, NOW).is_ok());
    assert_eq!(verify(&token, &only, ANYBODY, NOW), Err(Refused::Algorithm));
}

#[test]
fn the_key_that_a_token_names_is_the_one_it_is_verified_with() {
    let signers = ["a", "b"].map(|id| (id, Signer::new("ES256")));
    let set = json!({ "keys": signers.each_ref().map(|(id, signer)| signer.jwk(id)) });
    let keys = Keys::of_jwks(set.to_string().as_bytes()).unwrap();
    let token = |header: Value, by: usize| {
        let token = signers[by].1.signed(&header, claims().to_string().as_bytes());
        verify(&token, &keys, ANYBODY, NOW).map(|_| ())
    };
    assert_eq!(token(json!({ "alg": "ES256", "kid": "b" }), 1), Ok(()));
    assert_eq!(token(json!({ "alg": "ES256", "kid": "a" }), 1), Err(Refused::Signature));
    assert_eq!(token(json!({ "alg": "ES256", "kid": "c" }), 1), Err(Refused::UnknownKey));
    assert_eq!(token(json!({ "alg": "ES256" }), 1), Ok(()), "then each is tried");
    assert_eq!(token(json!({ "alg": "ES256", "kid": 7 }), 1), Err(Refused::Malformed));
    // What it brings along, or names, is not looked at.
    let own = signers[1].1.jwk("c");
    let header = json!({ "alg": "ES256", "kid": "c", "jwk": own, "jku": "http://127.0.0.1/" });
    assert_eq!(token(header, 1), Err(Refused::UnknownKey));
}

#[test]
fn a_token_has_an_end_and_is_worth_nothing_from_then_on() {
    let ends = |exp: Value| worth(&with("exp", exp), ANYBODY).map(|_| ());
    assert_eq!(ends(json!(NOW + 1)), Ok(()));
    // Clocks may differ by a few seconds.
    assert_eq!(ends(json!(NOW - LEEWAY_SECONDS + 1)), Ok(()));
    assert_eq!(ends(json!(NOW - LEEWAY_SECONDS)), Err(Refused::Expired));
    assert_eq!(ends(json!(0)), Err(Refused::Expired));
    assert_eq!(ends(json!(NOW as f64 + 0.5)), Ok(()));
    assert_eq!(ends(Value::Null), Err(Refused::NoExpiry));
    for exp in [json!("2100-01-01"), json!(-1), json!(1e30), json!([NOW]), json!(true)] {
        assert_eq!(ends(exp.clone()), Err(Refused::Claims), "{exp}");
    }
    assert_eq!(worth(&json!({}), ANYBODY).unwrap_err(), Refused::NoExpiry);
    assert_eq!(worth(&claims(), ANYBODY).unwrap().expires_at, Some(NOW + 60));
}

#[test]
fn a_token_that_begins_later_is_worth_nothing_yet() {
    let begins = |nbf: Value| worth(&with("nbf", nbf), ANYBODY).map(|_| ());
    assert_eq!(begins(json!(NOW)), Ok(()));
    assert_eq!(begins(json!(NOW + LEEWAY_SECONDS)), Ok(()));
    assert_eq!(begins(json!(NOW + LEEWAY_SECONDS + 1)), Err(Refused::NotYetValid));
    assert_eq!(begins(json!("soon")), Err(Refused::Claims));
}

#[test]
fn issuer_and_audience_are_as_expected() {
    let ours = Expected { issuer: Some("us"), audience: Some("here"), mercure: false };
    let told = |iss: Value, aud: Value, expected| {
        worth(&json!({ "exp": NOW + 60, "iss": iss, "aud": aud }), expected).map(|_| ())
    };
    assert_eq!(told(json!("us"), json!("here"), ours), Ok(()));
    assert_eq!(told(json!("us"), json!(["there", "here"]), ours), Ok(()));
    assert_eq!(told(json!("them"), json!("here"), ours), Err(Refused::Issuer));
    assert_eq!(told(Value::Null, json!("here"), ours), Err(Refused::Issuer));
    assert_eq!(told(json!("us"), json!("there"), ours), Err(Refused::Audience));
    assert_eq!(told(json!("us"), json!([]), ours), Err(Refused::Audience));
    assert_eq!(told(json!("us"), Value::Null, ours), Err(Refused::Audience));
    assert_eq!(told(json!(["us"]), json!("here"), ours), Err(Refused::Claims));
    assert_eq!(told(json!("us"), json!(7), ours), Err(Refused::Claims));
    // Who expects none finds himself in none (RFC 7519 §4.1.3).
    assert_eq!(told(json!("them"), Value::Null, ANYBODY), Ok(()));
    assert_eq!(told(json!("them"), json!("here"), ANYBODY), Err(Refused::Audience));
}

#[test]
fn what_must_be_understood_and_is_not_refuses_the_token() {
    let signer = Signer::with_secret("HS256", "secret");
    let keys = keys_of(&signer, "HS256");
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), Value::Null, json!("x")] {
        let header = json!({ "alg": "HS256", "crit": crit, "b64": true });
        let token = signer.signed(&header, claims().to_string().as_bytes());
        assert_eq!(verify(&token, &keys, ANYBODY, NOW), Err(Refused::Critical), "{crit}");
    }
}

#[test]
fn the_claim_of_what_is_granted_is_understood_as_a_whole_or_not_at_all() {
    for claim in [
        json!({ "subscribe": ["a*b"] }),
        json!({ "subscribe": "a" }),
        json!({ "subscribe": ["a"], "unknown": 1 }),
        json!(["a"]),
        json!([["*"], ["*"]]),
        json!("admin"),
    ] {
        assert_eq!(worth(&with("fantail", claim), ANYBODY).unwrap_err(), Refused::GrantClaim);
    }
    // Without it, or for other claims of anybody's, a token is good for nothing.
    let nothing = worth(&json!({ "exp": NOW + 60, "admin": true, "scope": "x" }), ANYBODY).unwrap();
    assert!(!nothing.allows(&Action::Administer));
    let twice = br#"{"exp":2000000060,"sub":"a","sub":"b"}"#;
    let signer = Signer::with_secret("HS256", "secret");
    let token = signer.signed(&json!({ "alg": "HS256" }), twice);
    let refused = verify(&token, &keys_of(&signer, "HS256"), ANYBODY, NOW);
    assert_eq!(refused.unwrap_err(), Refused::Claims);
}

#[test]
fn a_long_token_is_not_looked_at() {
    let signer = Signer::with_secret("HS256", "secret");
    let keys = keys_of(&signer, "HS256");
    let token = |padding: usize| signer.token(&with("padding", json!("x".repeat(padding))));
    assert!(token(4_000).len() <= TOKEN_BYTES_MAX);
    assert!(verify(&token(4_000), &keys, ANYBODY, NOW).is_ok());
    assert_eq!(verify(&token(8_000), &keys, ANYBODY, NOW), Err(Refused::TooLong));
}

#[test]
fn no_refusal_has_a_word_of_the_token() {
    let signer = Signer::with_secret("HS256", "hunter2");
    let token = signer.token(&json!({ "exp": "plan9", "sub": "plan9", "fantail": "plan9" }));
    let why = verify(&token, &keys_of(&signer, "HS256"), ANYBODY, NOW).unwrap_err();
    let said = format!("{why} {why:?}");
    assert!(!said.contains("plan9") && !said.contains(&token), "{said}");
}

proptest! {
    /// Whatever comes is refused, or is what was signed.
    #[test]
    fn nothing_that_is_not_signed_is_believed(
        text in "\\PC{0,200}",
        parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
        at in any::<prop::sample::Index>(),
        letter in "[A-Za-z0-9_.=-]",
    ) {
        let signer = Signer::with_secret("HS256", "secret");
        let keys = keys_of(&signer, "HS256");
        prop_assert!(verify(&text, &keys, ANYBODY, NOW).is_err());
        prop_assert!(verify(&parts.join("."), &keys, ANYBODY, NOW).is_err());
        let token = signer.token(&claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &letter);
        let believed = verify(&changed, &keys, ANYBODY, NOW).is_ok();
        prop_assert_eq!(believed, changed == token);
    }
}

#[test]
fn what_was_made_for_a_hub_is_read_only_where_that_is_asked_for() {
    let topic = |name| Topic::new(name).unwrap();
    let claims = json!({
        "exp": NOW + 60,
        "fantail": { "subscribe": ["own"] },
        "mercure": { "publish": ["old"] },
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": ["subscribe"], "topics": [{ "match": "new" }],
        }],
    });
    for mercure in [false, true] {
        let grant = worth(&claims, Expected { mercure, ..ANYBODY }).unwrap();
        assert!(grant.allows(&Action::Subscribe(&topic("own"))));
        assert_eq!(grant.allows(&Action::Subscribe(&topic("new"))), mercure);
        assert_eq!(grant.allows(&Action::Publish(&topic("old"))), mercure);
        assert!(!grant.allows(&Action::Publish(&topic("new"))));
        assert!(!grant.allows(&Action::Administer));
    }
}
