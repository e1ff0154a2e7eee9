use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::jwks::{KeyServer, Published};
use super::minting::{Signer, in_seconds};
use super::*;
use crate::config::KeySource;

/// A file that goes away with its owner.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> TempFile {
        let name = format!("fantail-access-{}-{}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn nowhere(_: &str) -> Arc<dyn KeyServer> {
    struct Nowhere;

    #[async_trait::async_trait]
    impl KeyServer for Nowhere {
        fn place(&self) -> String {
            String::new()
        }

        async fn fetch(&self) -> Result<Published, String> {
            Err("it is away".to_owned())
        }
    }

    Arc::new(Nowhere)
}

const ALGORITHMS: [&str; 6] = ["HS256", "ES256", "RS256", "EdDSA", "HS512", "ES256"];

/// Issuers with keys of every kind and by every way, of which two have keys of the same kind and all
/// call theirs by the same name.
struct World {
    signers: Vec<Signer>,
    access: Access,
    _files: Vec<TempFile>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let signers: Vec<Signer> = ALGORITHMS.into_iter().map(Signer::new).collect();
    let (mut files, mut issuers) = (Vec::new(), Vec::new());
    for (n, (signer, algorithm)) in signers.iter().zip(ALGORITHMS).enumerate() {
        let is_secret = algorithm.starts_with("HS");
        let text = match (is_secret, n % 2) {
            (true, _) => signer.secret().to_owned(),
            (false, 0) => signer.public_pem(),
            (false, _) => json!({ "keys": [signer.jwk("key")] }).to_string(),
        };
        let file = TempFile::new(&text);
        let keys = match (is_secret, n % 2) {
            (true, _) => KeySource::SecretFile(file.0.clone()),
            (false, 0) => KeySource::PublicKey(file.0.clone()),
            (false, _) => KeySource::Jwks(file.0.display().to_string()),
        };
        files.push(file);
        let (name, audience) = (Some(name(n)), None);
        issuers.push(config::Issuer { name, audience, keys, mercure: false, is_of_file: true });
    }
    let access = Access::new(&issuers, None, &nowhere).unwrap();
    World { signers, access, _files: files }
});

fn name(n: usize) -> String {
    format!("https://issuer-{n}.example")
}

fn claims(iss: Value) -> Value {
    json!({ "exp": in_seconds(600), "iss": iss, "fantail": { "subscribe": ["*"] } })
}

proptest! {
    /// Whoever signs is believed in their own name, and in nobody else's.
    #[test]
    fn a_token_is_verified_with_the_keys_of_whom_it_names(
        signs in 0..ALGORITHMS.len(),
        named in 0..ALGORITHMS.len() + 1,
        by in prop::option::of(prop::sample::select(&ALGORITHMS[..])),
        has_kid: bool,
        order: bool,
    ) {
        let World { signers, access, .. } = &*WORLD;
        // Who lies about the algorithm as well is not believed more.
        let algorithm = by.unwrap_or(ALGORITHMS[signs]);
        let mut header = json!({ "alg": algorithm });
        if has_kid {
            header["kid"] = json!("key");
        }
        let token = signers[signs].signed(&header, claims(json!(name(named))).to_string().as_bytes());
        let is_right = signs == named && algorithm == ALGORITHMS[signs];
        let verify = || access.verify(&token, SystemTime::now());
        prop_assert_eq!(verify().is_ok(), is_right, "{} as {}", signs, named);
        if is_right {
            prop_assert_eq!(verify().unwrap().issuer.clone(), Some(name(named)));
        }
        // What was found right before makes nothing right that names another.
        if order {
            let own = signers[signs].token(&claims(json!(name(signs))));
            prop_assert!(access.verify(&own, SystemTime::now()).is_ok());
            prop_assert_eq!(verify().is_ok(), is_right);
        }
    }
}

#[test]
fn what_was_found_right_before_expires_all_the_same() {
    let World { signers, access, .. } = &*WORLD;
    let token = signers[0].token(&claims(json!(name(0))));
    let now = SystemTime::now();
    for _ in 0..2 {
        assert!(access.verify(&token, now).is_ok());
    }
    let later = now + std::time::Duration::from_secs(600 + LEEWAY_SECONDS);
    assert_eq!(access.verify(&token, later), Err(Refused::Expired));
}

#[test]
fn who_names_no_issuer_or_two_is_believed_by_nobody() {
    let World { signers, access, .. } = &*WORLD;
    let verify = |token: &str| access.verify(token, SystemTime::now());
    for (signer, algorithm) in signers.iter().zip(ALGORITHMS) {
        for iss in [Value::Null, json!(""), json!([name(0), name(1)]), json!(7)] {
            let token = signer.token(&claims(iss.clone()));
            assert!(verify(&token).is_err(), "{algorithm} {iss}");
        }
        let header = json!({ "alg": algorithm });
        let twice =
            format!(r#"{{"iss":"{}","exp":{},"iss":"{}"}}"#, name(0), in_seconds(600), name(1));
        assert!(verify(&signer.signed(&header, twice.as_bytes())).is_err());
        let without = json!({ "exp": in_seconds(600) }).to_string();
        assert_eq!(verify(&signer.signed(&header, without.as_bytes())), Err(Refused::Issuer));
    }
    for token in ["", ".", "..", "...", "a.b", "a.!.c", "e30.e30.e30.e30"] {
        assert!(verify(token).is_err(), "{token:?}");
    }
    let long = signers[0].token(&json!({ "iss": name(0), "x": "y".repeat(TOKEN_BYTES_MAX) }));
    assert_eq!(verify(&long), Err(Refused::TooLong));
}

#[test]
fn what_is_wrong_with_the_keys_of_an_issuer_of_the_file_names_it() {
    let missing = std::env::temp_dir().join("fantail-no-such-file");
    let place = missing.display().to_string();
    for (keys, key) in [
        (KeySource::SecretFile(missing.clone()), "secret_file"),
        (KeySource::PublicKey(missing.clone()), "public_key"),
        (KeySource::Jwks(place), "jwks"),
    ] {
        let issuer = config::Issuer {
            name: Some(name(0)),
            audience: None,
            keys,
            mercure: false,
            is_of_file: true,
        };
        let Err(line) = Access::new(&[issuer], None, &nowhere) else { panic!("{key}") };
        assert!(line.starts_with(&format!("{key} of the issuer \"{}\"", name(0))), "{line}");
        assert!(line.contains("cannot read it"), "{line}");
    }
}
