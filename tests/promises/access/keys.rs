//! Keys that an issuer publishes: they change, and the issuer is away at times.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{bearer, file};
use crate::harness::certificates::Authority;
use crate::harness::key_server::{Answers, KeyServer};
use crate::harness::process::TempDir;
use crate::harness::tokens::{Signer, in_seconds};
use crate::harness::{Node, OPERATORS, Stream, until};

/// A token of this signer's key of that name, that may do everything.
fn token(signer: &Signer, algorithm: &str, id: &str) -> String {
    let claims = json!({
        "exp": in_seconds(600),
        "fantail": { "subscribe": ["*"], "publish": ["*"], "admin": true },
    });
    signer.signed(&json!({ "alg": algorithm, "kid": id }), claims.to_string().as_bytes())
}

async fn status(node: &Node, token: &str) -> u16 {
    let answer = node.with_token(token).send("GET", "/topics/t/history", None).await;
    if answer.status == 503 {
        assert_eq!(answer.problem(503), "keys-missing");
        assert!(!answer.header("retry-after").is_empty());
    }
    answer.status
}

async fn until_status(node: &Node, token: &str, wanted: u16) {
    until(&format!("an answer is {wanted}"), async || {
        (status(node, token).await == wanted).then_some(())
    })
    .await;
}

async fn keyed(jwks: &str) -> Node {
    Node::start("keyed", None, &[("FANTAIL_JWKS", jwks)]).await
}

#[tokio::test]
async fn a_new_key_is_known_with_its_first_token_and_an_old_one_is_forgotten() {
    let [old, new] = ["ES256", "RS256"].map(Signer::new);
    let server = KeyServer::start(Answers::Keys(vec![old.jwk("old")])).await;
    let node = keyed(&server.url()).await;
    let (by_old, by_new) = (token(&old, "ES256", "old"), token(&new, "RS256", "new"));
    // The first request may wait for the keys; nobody is refused for that.
    assert_eq!(status(&node, &by_old).await, 200);
    let follow = async |token: &str| {
        let headers = [bearer(token)];
        let mut stream =
            Stream::request_with(node.address, "/topics/t/events", &[headers[0].as_str()]).await;
        assert!(stream.event().await.is_connected());
        stream
    };
    let mut of_old = follow(&by_old).await;
    // Whatever the signature is: first it is found out whether there is such a key.
    until_status(&node, &by_new, 401).await;
    server.set(Answers::Keys(vec![old.jwk("old"), new.jwk("new")]));
    until("the new key is known", async || match status(&node, &by_new).await {
        200 => Some(()),
        // It is asked for as soon as that may be, and until then nobody is refused for good.
        status => {
            assert_eq!(status, 503);
            None
        }
    })
    .await;
    assert_eq!(status(&node, &by_old).await, 200);
    let mut of_new = follow(&by_new).await;
    // Withdrawn: what was found right with it before does not count, and what runs goes on.
    server.set(Answers::Keys(vec![new.jwk("new")]));
    let unknown = token(&new, "RS256", "newer");
    until("the withdrawn key is forgotten", async || {
        status(&node, &unknown).await;
        (status(&node, &by_old).await == 401).then_some(())
    })
    .await;
    assert_eq!(status(&node, &by_new).await, 200);
    node.with_token(&by_new).publish("t", "after").await;
    for stream in [&mut of_old, &mut of_new] {
        assert_eq!(stream.event().await.data, "after");
    }
}

#[tokio::test]
async fn whoever_waits_for_keys_was_counted_before() {
    let server = KeyServer::start(Answers::Silent).await;
    let url = server.url();
    let settings = [
        ("FANTAIL_JWKS", url.as_str()),
        ("FANTAIL_TRUSTED_PROXIES", "127.0.0.1"),
        ("FANTAIL_MAX_REQUESTS", "5/1h"),
        OPERATORS,
    ];
    let node = Node::start("keyed", None, &settings).await;
    let unknown = node.with_token(&token(&Signer::new("EdDSA"), "EdDSA", "k"));
    let began_at = Instant::now();
    let ask = async |client: &str| {
        let headers = [("x-forwarded-for", client)];
        let answer = unknown.send_with("GET", "/topics/t/history", &headers, None).await;
        (answer.status, began_at.elapsed())
    };
    let (answers, other) =
        tokio::join!(join_all((0..20).map(|_| ask("192.0.2.1"))), ask("192.0.2.2"),);
    // Nobody can know yet whose token it is. Who may not ask is not waited with.
    let of =
        |status| answers.iter().filter(move |answer| answer.0 == status).map(|answer| answer.1);
    assert_eq!((of(503).count(), of(429).count()), (5, 15), "{answers:?}");
    assert!(of(429).max() < of(503).min(), "{answers:?}");
    assert_eq!(other.0, 503);
    // Once each: refusing them does not count them again.
    let limited = node.operators().metric("fantail_requests_limited_total", "").await;
    assert_eq!(limited, 15.0);
}

#[tokio::test]
async fn while_the_issuer_is_away_its_keys_are_used_and_nobody_is_refused_for_good() {
    let signer = Signer::new("EdDSA");
    let server = KeyServer::start(Answers::Keys(vec![signer.jwk("k")])).await;
    let node = keyed(&server.url()).await;
    let (good, unknown) = (token(&signer, "EdDSA", "k"), token(&signer, "EdDSA", "other"));
    assert_eq!(status(&node, &good).await, 200);
    for away in [Answers::Broken, Answers::Nonsense, Answers::Keys(Vec::new()), Answers::InCircles]
    {
        server.set(away.clone());
        let before = server.asked();
        until("it was asked", async || {
            assert_eq!(status(&node, &unknown).await, 503, "{away:?}");
            (server.asked() > before).then_some(())
        })
        .await;
        assert_eq!(status(&node, &good).await, 200);
        // Each fetch asks once, however many redirects there are; one may be under way.
        let asked = server.asked() as f64;
        let fetches = node.with_token(&good).metric("fantail_jwks_fetches_total", "").await;
        assert!(asked <= fetches + 1.0, "{away:?}: {fetches} fetches asked {asked} times");
    }
    drop(server);
    assert_eq!(status(&node, &unknown).await, 503);
    let bearer = bearer(&unknown);
    let stream = Stream::request_with(node.address, "/topics/t/events", &[&bearer]).await;
    assert_eq!(stream.status, 503, "a browser would not come back after 401");
    assert_eq!(status(&node, &good).await, 200);
    let failed = node.with_token(&good).metric("fantail_jwks_fetches_total", "failed").await;
    assert!(failed >= 4.0, "{failed}");
}

#[tokio::test]
async fn a_start_does_not_wait_for_the_issuer_and_a_request_not_for_long() {
    let signer = Signer::new("ES384");
    let tries =
        [Answers::Silent, Answers::Slowly, Answers::Endless, Answers::LargeHead, Answers::Broken];
    join_all(tries.map(async |away| {
        let server = KeyServer::start(away.clone()).await;
        let node = keyed(&server.url()).await;
        let good = token(&signer, "ES384", "k");
        assert_eq!(status(&node, &good).await, 503, "{away:?}");
        // The operators see it, and whoever needs no token is served.
        assert_eq!(node.send("GET", "/readyz", None).await.status, 200);
        server.set(Answers::Keys(vec![signer.jwk("k")]));
        until_status(&node, &good, 200).await;
        let refused = node.with_token(&good).metric("fantail_access_refused_total", "keys").await;
        assert!(refused >= 1.0, "{away:?}: {refused}");
    }))
    .await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_the_issuer_seldom_and_keeps_nobody_waiting() {
    let signer = Signer::new("ES256");
    let server = KeyServer::start(Answers::Keys(vec![signer.jwk("k")])).await;
    let node = keyed(&server.url()).await;
    let good = token(&signer, "ES256", "k");
    assert_eq!(status(&node, &good).await, 200);
    let began_at = Instant::now();
    let before = server.asked();
    for round in 0..4 {
        let flood = (0..100).map(|n| {
            let token = token(&signer, "ES256", &format!("unknown-{round}-{n}"));
            let node = &node;
            async move {
                let status = status(node, &token).await;
                assert!([401, 503].contains(&status), "{status}");
            }
        });
        let others = async {
            for _ in 0..10 {
                assert_eq!(status(&node, &good).await, 200);
            }
        };
        tokio::join!(join_all(flood), others);
    }
    let asked = server.asked() - before;
    let most = 1 + began_at.elapsed().as_secs() as usize / 5;
    assert!(asked <= most, "asked {asked} times in {:?}", began_at.elapsed());
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_when_they_change() {
    let dir = TempDir::new();
    let [old, new] = ["ES256", "ES512"].map(Signer::new);
    let set = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let path = file(&dir, "keys.json", &set(&[old.jwk("old")]));
    let node = keyed(path.to_str().unwrap()).await;
    let (by_old, by_new) = (token(&old, "ES256", "old"), token(&new, "ES512", "new"));
    assert_eq!(status(&node, &by_old).await, 200);
    until_status(&node, &by_new, 401).await;
    file(&dir, "keys.json", &set(&[new.jwk("new")]));
    // Nobody has to ask for what is new before what is old is forgotten.
    until_status(&node, &by_old, 401).await;
    assert_eq!(status(&node, &by_new).await, 200);
    // Half a file, or none, changes nothing.
    file(&dir, "keys.json", "{\"keys\":");
    let failed = async |times: f64| {
        until("it was read in vain", async || {
            let api = node.with_token(&by_new);
            (api.metric("fantail_jwks_fetches_total", "failed").await >= times).then_some(())
        })
        .await;
    };
    failed(1.0).await;
    std::fs::remove_file(&path).unwrap();
    failed(3.0).await;
    assert_eq!(status(&node, &by_new).await, 200);
    assert_eq!(status(&node, &by_old).await, 503);
}

#[tokio::test]
async fn over_tls_the_issuer_has_to_be_who_it_says() {
    let dir = TempDir::new();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write(&dir.0, "authority");
    for (name, certified) in [
        ("right", authority.server(&["localhost"])),
        ("of-another", other.server(&["localhost"])),
        ("elsewhere", authority.server(&["elsewhere.example"])),
        ("expired", authority.expired_server(&["localhost"])),
    ] {
        certified.write(&dir.0, name);
        let signer = Signer::new("ES256");
        let answers = Answers::Keys(vec![signer.jwk("k")]);
        let server = KeyServer::start_over_tls(&dir.0, name, answers).await;
        let trusted = dir.0.join("authority.pem").display().to_string();
        let url = server.url();
        let settings = [("FANTAIL_JWKS", url.as_str()), ("SSL_CERT_FILE", trusted.as_str())];
        let node = Node::start("keyed", None, &settings).await;
        let good = token(&signer, "ES256", "k");
        if name == "right" {
            until_status(&node, &good, 200).await;
            assert!(server.asked() > 0);
            continue;
        }
        assert_eq!(status(&node, &good).await, 503, "{name}");
        until("the log says why", async || {
            let log = node.log().join("\n");
            (log.contains("cannot connect over TLS") && log.contains("https://localhost:"))
                .then_some(())
        })
        .await;
        assert!(
            !node.log().join("\n").contains("v=1"),
            "what follows the host is nobody's business"
        );
        assert_eq!(server.asked(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_key_is_used_for_what_it_is_for() {
    let [signs, encrypts, one] = ["ES256", "ES256", "RS256"].map(Signer::new);
    let mut for_encryption = encrypts.jwk("encrypts");
    for_encryption["use"] = json!("enc");
    let set = vec![signs.jwk("signs"), for_encryption, one.jwk("one")];
    let server = KeyServer::start(Answers::Keys(set)).await;
    let node = keyed(&server.url()).await;
    assert_eq!(status(&node, &token(&signs, "ES256", "signs")).await, 200);
    assert_eq!(status(&node, &token(&one, "RS256", "one")).await, 200);
    // The set says RS256 of it, and another algorithm of its kind is none.
    let another = one.by("PS256");
    assert_eq!(status(&node, &token(&another, "PS256", "one")).await, 401);
    // Named by another key's name.
    assert_eq!(status(&node, &token(&encrypts, "ES256", "signs")).await, 401);
    until_status(&node, &token(&encrypts, "ES256", "encrypts"), 401).await;
    // A public key is no secret that somebody could sign with.
    let public = Signer::with_secret("HS256", &signs.public_pem().replace("\n", ""));
    assert_eq!(status(&node, &token(&public, "HS256", "signs")).await, 401);
}
