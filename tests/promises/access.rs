//! Who may do what: with a key, every route needs a grant, and the grant decides on every road.

mod keys;
mod matrix;
mod mercure;
mod routes;
mod settings_file;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::process::TempDir;
use crate::harness::tokens::{ALGORITHMS, SECRET, Signer, in_seconds};
use crate::harness::{Backend, Node, Single, Stream, within};

/// A node whose tokens this signer signs.
async fn keyed(backend: Backend) -> (Single, Signer) {
    let node = backend.start(&[("FANTAIL_JWT_SECRET", SECRET)]).await;
    (node, Signer::with_secret("HS256", SECRET))
}

/// A file that goes away with its directory.
fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.0.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[tokio::test]
async fn a_token_of_every_algorithm_opens_the_door_and_nobody_elses_does() {
    let dir = TempDir::new();
    for algorithm in ALGORITHMS {
        let signer = Signer::new(algorithm);
        let node = if algorithm.starts_with("HS") {
            let path = file(&dir, algorithm, &format!("{}\n", signer.secret()));
            let path = path.to_str().unwrap();
            Node::start("keyed", None, &[("FANTAIL_JWT_SECRET_FILE", path)]).await
        } else {
            let path = file(&dir, algorithm, &signer.public_pem());
            let path = path.to_str().unwrap();
            Node::start("keyed", None, &[("FANTAIL_JWT_PUBLIC_KEY", path)]).await
        };
        let api = node.with_token(&signer.everything());
        assert_eq!(api.publish("t", 1).await.split('-').next(), Some("1"), "{algorithm}");
        let token = bearer(&signer.grant(json!({ "subscribe": ["t"] })));
        let mut stream =
            Stream::request_with(node.address, "/topics/t/events?from=earliest", &[&token]).await;
        assert!(stream.event().await.is_connected(), "{algorithm}");
        assert_eq!(stream.event().await.data, "1", "{algorithm}");
        let other = node.with_token(&Signer::new(algorithm).everything());
        let refused = other.send("GET", "/topics/t/history", None).await;
        assert_eq!(refused.problem(401), "unauthorized", "{algorithm}");
        assert_eq!(refused.header("www-authenticate"), "Bearer error=\"invalid_token\"");
        let refused = node.send("GET", "/topics/t/history", None).await;
        assert_eq!(refused.problem(401), "unauthorized", "{algorithm}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
}

#[tokio::test]
async fn a_token_is_refused_for_its_time_its_issuer_and_its_audience() {
    let node = Backend::Embedded
        .start(&[
            ("FANTAIL_JWT_SECRET", SECRET),
            ("FANTAIL_JWT_ISSUER", "https://issuer.example"),
            ("FANTAIL_JWT_AUDIENCE", "fantail"),
        ])
        .await;
    let signer = Signer::with_secret("HS512", SECRET);
    let good = json!({
        "exp": in_seconds(60), "nbf": in_seconds(-60),
        "iss": "https://issuer.example", "aud": ["other", "fantail"],
        "fantail": { "subscribe": ["*"] },
    });
    for (claim, value, status) in [
        ("sub", json!("somebody"), 200),
        ("exp", json!(in_seconds(-60)), 401),
        ("exp", Value::Null, 401),
        ("exp", json!("tomorrow"), 401),
        ("nbf", json!(in_seconds(60)), 401),
        ("iss", json!("https://issuer.example/"), 401),
        ("iss", Value::Null, 401),
        ("aud", json!("fantails"), 401),
        ("aud", Value::Null, 401),
        ("fantail", json!({ "subscribe": ["a*b"] }), 401),
        ("fantail", Value::Null, 403),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let api = node.with_token(&signer.token(&claims));
        let answer = api.send("GET", "/topics/t/history", None).await;
        assert_eq!(answer.status, status, "{claim} {value}: {answer:?}");
    }
}

#[tokio::test]
async fn two_tokens_or_a_long_one_are_refused_and_other_schemes_are_no_tokens() {
    let (node, signer) = keyed(Backend::Embedded).await;
    let token = format!("Bearer {}", signer.everything());
    let ask = async |headers: &[(&str, &str)]| {
        node.send_with("GET", "/topics/t/history", headers, None).await
    };
    assert_eq!(ask(&[("authorization", &token)]).await.status, 200);
    assert_eq!(ask(&[("authorization", &token.replace("Bearer", "bearer"))]).await.status, 200);
    let twice = ask(&[("authorization", &token), ("authorization", &token)]).await;
    assert_eq!(twice.problem(400), "bad-request");
    let basic = ask(&[("authorization", "Basic dTpw"), ("authorization", &token)]).await;
    assert_eq!(basic.status, 200);
    assert_eq!(ask(&[("authorization", "Basic dTpw")]).await.problem(401), "unauthorized");
    let long = signer.token(&json!({ "exp": in_seconds(60), "x": "y".repeat(8_000) }));
    let long = ask(&[("authorization", &format!("Bearer {long}"))]).await;
    assert_eq!(long.problem(401), "unauthorized");
}

#[tokio::test]
async fn a_stream_ends_with_its_grant_and_says_nothing_more() {
    for reactors in ["0", "1"] {
        let settings = [("FANTAIL_JWT_SECRET", SECRET), ("FANTAIL_REACTORS", reactors)];
        let node = Node::start("keyed", None, &settings).await;
        let signer = Signer::with_secret("HS256", SECRET);
        let all = node.with_token(&signer.everything());
        let ends = |seconds: i64| {
            bearer(&signer.token(&json!({
                "exp": in_seconds(seconds), "jti": "short", "fantail": { "subscribe": ["t"] },
            })))
        };
        let token = ends(3);
        let opened_at = Instant::now();
        let open = async || {
            let headers = [token.as_str()];
            let mut stream = Stream::request_with(node.address, "/topics/t/events", &headers).await;
            assert!(stream.event().await.is_connected());
            stream
        };
        // Streams of one token share their terms and end together.
        let (mut one, mut other) = (open().await, open().await);
        all.publish("t", 1).await;
        assert_eq!(one.event().await.data, "1");
        within("the end of the streams", async {
            tokio::join!(one.end(), other.end());
        })
        .await;
        let lasted = opened_at.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&lasted), "{lasted:?}");
        all.publish("t", 2).await;
        let said = one.interpreter.events.iter().any(|event| event.data == "2");
        assert!(!said, "something was said after the end");
        // While clocks may differ the token is still good for a request, for a stream it is not.
        let late = Stream::request_with(node.address, "/topics/t/events", &[&token]).await;
        assert_eq!(late.status, 401, "{}", late.head);
    }
}

#[tokio::test]
async fn a_hundred_requests_with_wrong_tokens_leave_nothing_in_the_log() {
    let dir = TempDir::new();
    let path = file(&dir, "secret", "hunter2-hunter2");
    let settings = [("FANTAIL_JWT_SECRET_FILE", path.to_str().unwrap()), ("FANTAIL_LOG", "trace")];
    let node = Node::start("keyed", None, &settings).await;
    let signer = Signer::with_secret("HS256", "hunter2-hunter2");
    let claims = json!({
        "exp": in_seconds(60), "sub": "alice-in-chains", "jti": "token-17",
        "fantail": { "subscribe": ["secret-plan-*"], "publish": ["secret-plan-*"] },
    });
    let good = signer.token(&claims);
    let api = node.with_token(&good);
    api.publish("secret-plan-9", 1).await;
    let mut stream =
        Stream::request_with(node.address, "/topics/secret-plan-9/events", &[&bearer(&good)]).await;
    stream.event().await;
    let wrong = [
        good.replace('.', ","),
        good[..good.len() - 2].to_owned(),
        format!("{good}AA"),
        signer.signed(&json!({ "alg": "none", "kid": "alice-in-chains" }), b"{}"),
        signer.token(&json!({ "exp": "token-17", "sub": "alice-in-chains" })),
    ];
    for token in &wrong {
        let other = node.with_token(token);
        for _ in 0..20 {
            let answer = other.send("GET", "/topics/t/history", None).await;
            assert_eq!(answer.problem(401), "unauthorized");
            let said = answer.body.to_string();
            assert!(!said.contains(token.as_str()) && !said.contains("alice"), "{said}");
        }
    }
    api.send("POST", "/topics/other/events", Some(json!({ "data": 1 }))).await.problem(403);
    drop(stream);
    let log = node.log().join("\n");
    assert!(log.contains("FANTAIL_JWT_SECRET_FILE") && log.contains("32"), "no warning: {log}");
    for text in ["hunter2", "alice-in-chains", "token-17", good.as_str(), &good[..30], "Bearer ey"]
    {
        assert!(!log.contains(text), "{text:?} stands in the log");
    }
    let metrics = node.with_token(&signer.everything()).get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(!metrics.contains("alice") && !metrics.contains("secret-plan"), "{metrics}");
    let refused = "fantail_access_refused_total{reason=\"token\"} 100";
    assert!(metrics.contains(refused), "{metrics}");
}

/// What the program says that is started with these settings, and its status, if it ends.
fn started(settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FANTAIL_")) {
        command.env_remove(name);
    }
    // One that starts all the same is ended.
    command.env("FANTAIL_LISTEN", "127.0.0.1:0").envs(settings.iter().copied());
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let watch = std::thread::spawn(move || child.wait_with_output().unwrap());
    let began_at = Instant::now();
    while !watch.is_finished() && began_at.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(10));
    }
    if !watch.is_finished() {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    watch.join().unwrap()
}

#[test]
fn what_is_no_key_stops_the_start_with_one_sentence() {
    let dir = TempDir::new();
    let pem = Signer::new("ES256").public_pem();
    let public = file(&dir, "public.pem", &pem).display().to_string();
    let empty = file(&dir, "empty", "\n").display().to_string();
    let missing = dir.0.join("missing").display().to_string();
    let directory = dir.0.display().to_string();
    let words = file(&dir, "words", "hunter2").display().to_string();
    for (variable, value, part) in [
        ("FANTAIL_JWT_SECRET", "", "must be a secret"),
        ("FANTAIL_JWT_SECRET", pem.as_str(), "FANTAIL_JWT_PUBLIC_KEY"),
        ("FANTAIL_JWT_SECRET_FILE", empty.as_str(), "the secret is empty"),
        ("FANTAIL_JWT_SECRET_FILE", missing.as_str(), "cannot read it"),
        ("FANTAIL_JWT_SECRET_FILE", directory.as_str(), "cannot read it"),
        ("FANTAIL_JWT_SECRET_FILE", public.as_str(), "FANTAIL_JWT_PUBLIC_KEY"),
        ("FANTAIL_JWT_PUBLIC_KEY", missing.as_str(), "cannot read it"),
        ("FANTAIL_JWT_PUBLIC_KEY", words.as_str(), "-----BEGIN PUBLIC KEY-----"),
        ("FANTAIL_JWKS", missing.as_str(), "cannot read it"),
        ("FANTAIL_JWKS", words.as_str(), "no JWK set"),
        ("FANTAIL_JWKS", "https://me:hunter2@issuer.example/", "without a user"),
        ("FANTAIL_JWKS", "ftp://issuer.example/", "must be a URL"),
        ("FANTAIL_JWT_ISSUER", "us", "FANTAIL_JWT_SECRET_FILE"),
    ] {
        let output = started(&[(variable, value)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variable}={value}: {said}");
        let line = said.lines().last().unwrap_or_default();
        assert!(line.contains(variable) && line.contains(part), "{variable}={value}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(&pem[30..60]), "{said}");
    }
    let both = started(&[("FANTAIL_JWT_SECRET_FILE", &words), ("FANTAIL_JWT_PUBLIC_KEY", &public)]);
    assert_eq!(both.status.code(), Some(1));
}
