use serde_json::json;

use super::super::minting::{ALGORITHMS, Signer};
use super::*;

fn allowed(keys: &Keys) -> Vec<Vec<Algorithm>> {
    keys.0.iter().map(|key| key.algorithms.clone()).collect()
}

fn named(names: &[&str]) -> Vec<Algorithm> {
    names.iter().map(|name| Algorithm::named(name).unwrap()).collect()
}

const RSA: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

#[test]
fn the_kind_of_a_key_says_by_which_algorithms_it_may_be_used() {
    for (algorithm, allows) in [
        ("RS256", &RSA[..]),
        ("ES256", &["ES256"]),
        ("ES384", &["ES384"]),
        ("ES512", &["ES512"]),
        ("EdDSA", &["EdDSA"]),
    ] {
        let keys = Keys::of_pem(Signer::new(algorithm).public_pem().as_bytes()).unwrap();
        assert_eq!(allowed(&keys), [named(allows)], "{algorithm}");
    }
    let secret = Keys::of_secret(b"secret").unwrap();
    assert_eq!(allowed(&secret), [named(&["HS256", "HS384", "HS512"])]);
    for no_algorithm in ["none", "None", "", "HS1", "RSA-OAEP", "ES256K"] {
        assert_eq!(Algorithm::named(no_algorithm), None, "{no_algorithm}");
    }
}

#[test]
fn a_key_of_a_set_is_for_the_one_algorithm_that_it_names() {
    for algorithm in ALGORITHMS.into_iter().filter(|name| !name.starts_with("HS")) {
        let mut jwk = Signer::new(algorithm).jwk("k");
        let set = json!({ "keys": [jwk] });
        let keys = Keys::of_jwks(set.to_string().as_bytes()).unwrap();
        assert_eq!(allowed(&keys), [named(&[algorithm])], "{algorithm}");
        // Without it, its kind decides.
        jwk.as_object_mut().unwrap().remove("alg");
        let set = json!({ "keys": [jwk] });
        let keys = Keys::of_jwks(set.to_string().as_bytes()).unwrap();
        assert!(allowed(&keys)[0].contains(&named(&[algorithm])[0]), "{algorithm}");
    }
}

#[test]
fn what_cannot_verify_is_left_out_of_a_set() {
    let good = Signer::new("ES256").jwk("good");
    let with = |field: &str, value: serde_json::Value| {
        let mut jwk = good.clone();
        jwk[field] = value;
        jwk
    };
    let secret = Signer::new("HS256").jwk("secret");
    let set = json!({ "keys": [
        secret,
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("ES384")),
        with("alg", json!("none")),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("x", json!("AAAA")),
        with("x", json!(good["y"])),
        with("kty", json!("XYZ")),
        with("kid", json!(7)),
        { "kty": "RSA", "n": "AQAB", "e": "AQAB" },
        "no key", null, {},
    ] });
    assert_eq!(Keys::of_jwks(set.to_string().as_bytes()).unwrap_err(), KeyError::NoUsableKey);
    let mut set = set;
    set["keys"].as_array_mut().unwrap().push(good.clone());
    let keys = Keys::of_jwks(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.0.len(), 1);
    let found = |id| keys.named(id).count();
    assert_eq!((found(Some("good")), found(Some("other")), found(None)), (1, 0, 1));
}

#[test]
fn what_is_no_key_is_told_as_what_it_is() {
    let pem = |tag: &str| pem::encode(&pem::Pem::new(tag, vec![48, 3, 2, 1, 1])).into_bytes();
    for (text, error) in [
        (b"".to_vec(), KeyError::NotPem),
        (b"hunter2".to_vec(), KeyError::NotPem),
        (pem("PUBLIC KEY"), KeyError::UnknownKind),
        (pem("PRIVATE KEY"), KeyError::PrivateKey),
        (pem("EC PRIVATE KEY"), KeyError::PrivateKey),
        (pem("CERTIFICATE"), KeyError::Certificate),
        (pem("X509 CRL"), KeyError::NotPem),
    ] {
        assert_eq!(Keys::of_pem(&text).unwrap_err(), error);
    }
    assert_eq!(Keys::of_secret(b" \n").unwrap_err(), KeyError::EmptySecret);
    let public = Signer::new("ES256").public_pem();
    assert_eq!(Keys::of_secret(public.as_bytes()).unwrap_err(), KeyError::SecretIsPem);
    for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
        assert_eq!(Keys::of_jwks(text.as_bytes()).unwrap_err(), KeyError::NotJwks, "{text}");
    }
    let many = json!({ "keys": vec![json!({}); KEYS_MAX + 1] });
    assert_eq!(Keys::of_jwks(many.to_string().as_bytes()).unwrap_err(), KeyError::TooManyKeys);
}

#[test]
fn a_small_rsa_key_is_none() {
    // 1024 bits, made for this test; nobody has its private half any more.
    let modulus = [&[0xC1][..], &[0x5A; 127]].concat();
    let integer = |bytes: &[u8]| {
        let mut der = vec![2, 0x81, (bytes.len() + 1) as u8, 0];
        der.extend_from_slice(bytes);
        der
    };
    let body = [integer(&modulus), vec![2, 3, 1, 0, 1]].concat();
    let der = [vec![0x30, 0x81, body.len() as u8], body].concat();
    let pem = pem::encode(&pem::Pem::new("RSA PUBLIC KEY", der));
    assert_eq!(Keys::of_pem(pem.as_bytes()).unwrap_err(), KeyError::UnknownKind);
}

#[test]
fn several_public_keys_in_one_file_are_all_read() {
    let [old, new] = ["ES256", "EdDSA"].map(|algorithm| Signer::new(algorithm).public_pem());
    let keys = Keys::of_pem(format!("{old}\n{new}").as_bytes()).unwrap();
    assert_eq!(allowed(&keys), [named(&["ES256"]), named(&["EdDSA"])]);
}

#[test]
fn keys_are_not_shown() {
    let keys = Keys::of_secret(b"hunter2").unwrap();
    let shown = format!("{keys:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
}
