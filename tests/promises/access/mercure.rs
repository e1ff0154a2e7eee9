//! Tokens that were made for a Mercure hub.

use serde_json::{Value, json};

use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Backend, Stream};

#[tokio::test]
async fn tokens_of_a_hub_grant_exact_topics_where_that_is_asked_for() {
    let signer = Signer::with_secret("HS256", SECRET);
    let topic = "https%3A%2F%2Fexample.com%2Fbooks%2F1";
    let other = "https%3A%2F%2Fexample.com%2Fbooks%2F2";
    let claims = |details: Value, claim: Value| {
        json!({
            "exp": in_seconds(600), "iss": "https://example.com",
            "aud": "https://hub.example.com/.well-known/mercure",
            "authorization_details": details, "mercure": claim,
        })
    };
    let detail = |action: &str, matched: Value| {
        json!([{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": [action], "topics": [matched], "payload": { "user": 42 },
        }])
    };
    let book = "https://example.com/books/1";
    let pattern = json!({ "match": "https://example.com/books/:id", "match_type": "urlpattern" });
    let followers = [
        claims(detail("subscribe", json!({ "match": book })), Value::Null),
        claims(Value::Null, json!({ "subscribe": [book, "https://example.com/books/{id}"] })),
    ];
    let publishers = [
        claims(detail("publish", json!({ "match": "*" })), Value::Null),
        claims(Value::Null, json!({ "publish": ["*"] })),
    ];
    let others = [
        claims(detail("subscribe", pattern), Value::Null),
        claims(Value::Null, json!({ "subscribe": ["https://example.com/books/{id}"] })),
    ];
    for wanted in ["false", "true"] {
        let node = Backend::Embedded
            .start(&[
                ("FANTAIL_JWT_SECRET", SECRET),
                ("FANTAIL_JWT_AUDIENCE", "https://hub.example.com/.well-known/mercure"),
                ("FANTAIL_MERCURE_TOKENS", wanted),
            ])
            .await;
        let allowed = |status: u16| if wanted == "true" { status } else { 403 };
        for claims in &followers {
            let api = node.with_token(&signer.token(claims));
            let history = |topic: &str| format!("/topics/{topic}/history");
            assert_eq!(api.send("GET", &history(topic), None).await.status, allowed(200));
            assert_eq!(api.send("GET", &history(other), None).await.status, 403);
            let path = format!("/topics/{topic}/events");
            let event = json!({ "data": 1 });
            assert_eq!(api.send("POST", &path, Some(event)).await.status, 403);
        }
        for claims in &publishers {
            let api = node.with_token(&signer.token(claims));
            for (method, path, body, status) in [
                (
                    "POST",
                    format!("/topics/{topic}/events"),
                    Some(json!({ "data": 1 })),
                    allowed(201),
                ),
                ("POST", "/topics/any/events".to_owned(), Some(json!({ "data": 1 })), allowed(201)),
                ("GET", format!("/topics/{topic}/history"), None, 403),
                ("GET", "/admin/connections".to_owned(), None, 403),
            ] {
                assert_eq!(api.send(method, &path, body).await.status, status, "{method} {path}");
            }
        }
        for claims in &others {
            let api = node.with_token(&signer.token(claims));
            let answer = api.send("GET", &format!("/topics/{topic}/history"), None).await;
            assert_eq!(answer.status, 403, "a pattern means nothing here");
        }
        if wanted == "true" {
            let bearer = super::bearer(&signer.token(&followers[0]));
            let path = format!("/topics/{topic}/events?from=earliest");
            let mut stream = Stream::request_with(node.address, &path, &[&bearer]).await;
            assert!(stream.event().await.is_connected());
            assert_eq!(stream.event().await.data, "1");
        }
    }
}
