//! Settings in a file, and issuers, which stand there alone.

use serde_json::json;

use super::{bearer, file, started};
use crate::harness::key_server::{Answers, KeyServer};
use crate::harness::process::TempDir;
use crate::harness::tokens::{Signer, in_seconds};
use crate::harness::{Node, Stream, until};

#[tokio::test]
async fn a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default() {
    let dir = TempDir::new();
    let path = file(&dir, "fantail.toml", "retry = '5s'\n");
    let in_file = ("FANTAIL_CONFIG", path.to_str().unwrap());
    let as_flag = ("--config", path.to_str().unwrap());
    let (variable, flag) = (("FANTAIL_RETRY", "6s"), ("--retry", "7s"));
    for (settings, retry) in [
        (&[][..], 3_000),
        (&[in_file], 5_000),
        (&[as_flag], 5_000),
        (&[in_file, variable], 6_000),
        (&[in_file, flag], 7_000),
        (&[as_flag, variable, flag], 7_000),
    ] {
        let node = Node::start("told", None, settings).await;
        let stream = Stream::open(node.address, "/topics/t/events").await;
        assert_eq!(stream.interpreter.retry, Some(retry), "{settings:?}");
    }
}

#[tokio::test]
async fn each_issuer_is_believed_in_its_own_name_alone() {
    let dir = TempDir::new();
    let [published, secret] = ["ES256", "HS256"].map(Signer::new);
    let server = KeyServer::start(Answers::Keys(vec![published.jwk("k")])).await;
    let secret_file = file(&dir, "secret", secret.secret());
    let text = format!(
        "[[issuers]]\nissuer = 'https://login.example'\naudience = 'fantail'\njwks = '{}'\n\
         [[issuers]]\nissuer = 'https://app.example'\nsecret_file = '{}'\n",
        server.url(),
        secret_file.display(),
    );
    let path = file(&dir, "fantail.toml", &text);
    let node = Node::start("told", None, &[("FANTAIL_CONFIG", path.to_str().unwrap())]).await;
    let (login, app) = ("https://login.example", "https://app.example");
    let token = |signer: &Signer, iss: &str, aud: Option<&str>| {
        let mut claims = json!({
            "exp": in_seconds(600), "iss": iss, "sub": "alice", "fantail": { "subscribe": ["t"] },
        });
        if let Some(aud) = aud {
            claims["aud"] = json!(aud);
        }
        signer.token(&claims)
    };
    let status = async |token: &str| {
        node.with_token(token).send("GET", "/topics/t/history", None).await.status
    };
    let good = token(&published, login, Some("fantail"));
    until("the keys have come", async || (status(&good).await == 200).then_some(())).await;
    assert_eq!(status(&token(&secret, app, None)).await, 200);
    for (token, what) in [
        (token(&published, app, None), "one in the name of the other"),
        (token(&secret, login, Some("fantail")), "the other in the name of the one"),
        (token(&published, login, None), "an audience is the issuer's own"),
        (token(&secret, app, Some("fantail")), "an audience is nobody else's"),
        (token(&secret, "https://nobody.example", None), "who is not in the file"),
    ] {
        let answer = node.with_token(&token).send("GET", "/topics/t/history", None).await;
        assert_eq!(answer.problem(401), "unauthorized", "{what}");
    }
    let headers = [bearer(&good)];
    let mut stream = Stream::request_with(node.address, "/topics/t/events", &[&headers[0]]).await;
    assert!(stream.event().await.is_connected());
}

#[test]
fn what_is_wrong_with_the_file_stops_the_start_with_one_line() {
    let dir = TempDir::new();
    let missing = dir.0.join("missing").display().to_string();
    let of_missing = format!("[[issuers]]\nissuer = 'https://a.example'\npublic_key = '{missing}'");
    for (n, (text, parts)) in [
        ("retri = 'hunter2'", &["FANTAIL_CONFIG", "did you mean retry?"][..]),
        ("retry = 'hunter2'\njwt_secret = 'hunter2", &["it is no TOML in line 2"]),
        ("jwt_secret = ''", &["FANTAIL_CONFIG", "FANTAIL_JWT_SECRET", "must be a secret"]),
        (&of_missing, &["public_key of the issuer \"https://a.example\"", "cannot read it"]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = file(&dir, &format!("{n}.toml"), text);
        let output = started(&[("FANTAIL_CONFIG", path.to_str().unwrap())]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {said}");
        let line = said.lines().last().unwrap_or_default();
        assert!(parts.iter().all(|part| line.contains(part)), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
