//! A token in a cookie: reading it, and who may write with it (`docs/api.md`).

use serde_json::{Value, json};

use crate::harness::tokens::{SECRET, Signer};
use crate::harness::{Backend, Stream};

const APP: &str = "http://app.example:8080";

fn settings() -> [(&'static str, &'static str); 2] {
    [("FANTAIL_JWT_SECRET", SECRET), ("FANTAIL_CORS_ORIGINS", APP)]
}

fn token() -> String {
    Signer::with_secret("HS256", SECRET).everything()
}

#[tokio::test]
async fn a_cookie_carries_a_token_and_is_read_strictly() {
    let node = Backend::Embedded.start(&settings()).await;
    let token = token();
    let cookie = format!("theme=dark; fantail={token}; x={{\"a\": 1}}");
    let mut stream =
        Stream::request_with(node.address, "/topics/t/events", &[&format!("Cookie: {cookie}")])
            .await;
    assert_eq!(stream.status, 200, "{}", stream.head);
    assert!(stream.event().await.is_connected());
    let get = async |headers: &[(&str, &str)]| {
        let answer = node.send_with("GET", "/topics/t/history", headers, None).await;
        if answer.status == 200 {
            200
        } else {
            answer.problem(answer.status);
            answer.status
        }
    };
    let bearer = format!("Bearer {token}");
    let (one, quoted) = (format!("fantail={token}"), format!("fantail=\"{token}\""));
    let (twice, other) = (format!("{one}; {one}"), format!("{one}; fantail=x"));
    let (case, wrong) = (format!("{one}; FANTAIL=x"), format!("{one}x"));
    for (headers, status) in [
        (&[][..], 401),
        (&[("cookie", &*one)], 200),
        (&[("cookie", &*quoted)], 200),
        (&[("cookie", "other=x")], 401),
        (&[("cookie", "fantail=x")], 401),
        (&[("cookie", &*wrong)], 401),
        (&[("cookie", &*twice)], 400),
        (&[("cookie", &*other)], 400),
        (&[("cookie", &*case)], 400),
        (&[("cookie", &*one), ("cookie", &*one)], 400),
        (&[("cookie", "fantail=")], 400),
        // The header alone counts where there is one.
        (&[("cookie", &*one), ("authorization", "Bearer x")], 401),
        (&[("cookie", "fantail=x"), ("authorization", &*bearer)], 200),
        (&[("cookie", &*twice), ("authorization", &*bearer)], 200),
    ] {
        assert_eq!(get(headers).await, status, "{headers:?}");
    }
    // By another name.
    let settings = [&settings()[..], &[("FANTAIL_JWT_COOKIE", "__Host-gw")]].concat();
    let node = Backend::Embedded.start(&settings).await;
    for (name, status) in [("__Host-gw", 200), ("fantail", 401)] {
        let cookie = format!("{name}={token}");
        let headers = [("cookie", &*cookie)];
        let answer = node.send_with("GET", "/topics/t/history", &headers, None).await;
        assert_eq!(answer.status, status, "{name}");
    }
}

#[tokio::test]
async fn a_foreign_page_writes_nothing_with_the_cookie_that_its_visitor_has() {
    let node = Backend::Embedded.start(&settings()).await;
    let token = token();
    let cookie = format!("fantail={token}");
    let own = format!("http://{}", node.address);
    let task = || json!({ "title": "x", "listId": "list-todo" });
    let writes: Vec<(&str, &str, Option<Value>)> = vec![
        ("POST", "/topics/t/events", Some(json!({ "data": "x" }))),
        ("POST", "/tasks", Some(task())),
        ("PATCH", "/tasks/task-1", Some(json!({ "title": "y" }))),
        ("PATCH", "/tasks/task-1/move", Some(json!({ "listId": "list-done" }))),
        ("DELETE", "/tasks/task-1", None),
        ("POST", "/boards", Some(json!({ "name": "b" }))),
        ("POST", "/boards/board-1/lists", Some(json!({ "title": "l" }))),
        ("POST", "/tickets", None),
        ("POST", "/admin/revoke", Some(json!({ "tokenId": "x" }))),
        ("DELETE", "/admin/revoke", Some(json!({ "tokenId": "x" }))),
    ];
    let bearer = node.with_token(&token);
    bearer.send("POST", "/tasks", Some(task())).await;
    let state = async || {
        let history = bearer.get("/topics/t/history").await;
        (history["head"].clone(), bearer.get("/boards").await, bearer.get("/boards/board-1").await)
    };
    let before = state().await;
    let evil = "https://evil.example";
    for (method, path, body) in &writes {
        for page in [
            &[][..],
            &[("origin", evil)],
            &[("origin", evil), ("sec-fetch-site", "cross-site")],
            &[("origin", evil), ("sec-fetch-site", "same-origin")],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("origin", &*own), ("origin", evil)],
            &[("origin", &*own), ("sec-fetch-site", "cross-site")],
            &[("origin", &*own), ("sec-fetch-site", "same-site")],
            &[("origin", "http://127.0.0.1:1")],
            &[("origin", "http://app.example")],
            &[("origin", "https://app.example:8080")],
            &[("origin", "http://app.example:8080.evil.example")],
        ] {
            let headers = [page, &[("cookie", &*cookie)]].concat();
            let answer = node.send_with(method, path, &headers, body.clone()).await;
            answer.problem(403);
            assert_eq!(answer.header("last-event-id"), "", "{method} {path} {page:?}");
        }
    }
    assert_eq!(state().await, before, "nothing has changed");

    // Pages that may write, and programs that show a token.
    for page in [
        &[("origin", &*own)][..],
        &[("origin", &*own), ("sec-fetch-site", "same-origin")],
        &[("origin", APP), ("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-origin")],
    ] {
        for (method, path, body) in &writes[..2] {
            let headers = [page, &[("cookie", &*cookie)]].concat();
            let answer = node.send_with(method, path, &headers, body.clone()).await;
            assert_eq!(answer.status, 201, "{method} {path} {page:?}: {answer:?}");
        }
    }
    // Reading changes nothing, and nobody is let read the answer who may not.
    let headers = [("cookie", &*cookie), ("origin", evil)];
    let answer = node.send_with("GET", "/topics/t/history", &headers, None).await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
    let headers = [("cookie", &*cookie), ("origin", APP)];
    let answer = node.send_with("GET", "/topics/t/history", &headers, None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
}
