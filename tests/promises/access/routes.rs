//! No route is forgotten: they are read from the sources.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::keyed;
use crate::harness::{Answer, Backend};

/// What anybody may ask for.
const FOR_EVERYBODY: [&str; 6] =
    ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/readyz"];

/// What somebody gets who may do nothing: of the list of boards, those that they may read.
const EMPTY_ANSWERS: [&str; 1] = ["GET /boards"];

/// What is for whoever has a token, whatever it grants.
const FOR_ANY_TOKEN: [&str; 1] = ["POST /tickets"];

/// All routes, as method and path, that the files below `src/http` put together.
fn routes() -> BTreeSet<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = vec![std::fs::read_to_string(top.join("http.rs")).unwrap()];
    let mut directories = vec![top.join("http")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut routes = BTreeSet::new();
    for text in &texts {
        for call in text.split("Route::new(").chain(text.split("route(")) {
            let Some(rest) = call.trim_start().strip_prefix('"') else { continue };
            let (path, rest) = rest.split_once('"').unwrap();
            // To the parenthesis that ends the call.
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let handlers = &rest[..end.unwrap()];
            let mut found = false;
            for method in ["get", "post", "put", "patch", "delete"] {
                let is_word = |at: usize| {
                    !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                };
                let call = format!("{method}(");
                if handlers.match_indices(&call).any(|(at, _)| is_word(at)) {
                    routes.insert((method.to_uppercase(), path.to_owned()));
                    found = true;
                }
            }
            assert!(found, "{path} has no method that this test knows");
        }
    }
    routes
}

#[tokio::test]
async fn every_route_needs_a_token_and_a_grant() {
    let (node, signer) = keyed(Backend::Embedded).await;
    let all = node.with_token(&signer.everything());
    all.create("first", "list-todo").await;
    all.publish("t", 1).await;
    let nobody = node.with_token(&signer.grant(json!({})));
    let wrong = node.with_token("a.b.c");
    let routes = routes();
    assert!(routes.len() >= 20, "{routes:?}");
    for (method, route) in &routes {
        let mut path = route.clone();
        for (parameter, name) in [
            ("{board}", "board-1"),
            ("{topic}", "t"),
            ("{task}", "task-1"),
            ("{list}", "list-todo"),
        ] {
            path = path.replace(parameter, name);
        }
        assert!(!path.contains('{'), "{route} has a parameter that this test does not know");
        if path == "/events" {
            path.push_str("?topics=t&boards=board-1");
        }
        let mut methods = vec![method.as_str()];
        if method == "GET" {
            methods.push("HEAD");
        }
        for method in methods {
            let what = format!("{method} {path}");
            let answer = node.send(method, &path, None).await;
            if FOR_EVERYBODY.contains(&route.as_str()) {
                assert_eq!(answer.status, 200, "{what}: {answer:?}");
                continue;
            }
            assert_eq!(answer.status, 401, "{what} without a token: {answer:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
            let answer = wrong.send(method, &path, None).await;
            assert_eq!(answer.status, 401, "{what} with a wrong token: {answer:?}");
            // Before a body is looked at, or a condition.
            let headers = [("if-match", "no position"), ("idempotency-key", "")];
            let answer = nobody.send_with(method, &path, &headers, None).await;
            if FOR_ANY_TOKEN.contains(&what.as_str()) {
                assert_eq!(answer.status, 201, "{what}: {answer:?}");
            } else if EMPTY_ANSWERS.contains(&what.as_str()) {
                assert_eq!((answer.status, answer.body), (200, json!([])), "{what}");
            } else if method != "HEAD" || route != "/boards" {
                assert_eq!(answer.status, 403, "{what} with a token for nothing: {answer:?}");
            }
        }
    }
    let refused = nobody.send("GET", "/events?topics=x,t", None).await;
    assert_eq!(refused.problem(403), "forbidden");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains(" x"), "{detail}");
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer error=\"insufficient_scope\"",
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_missing_grant_is_told_before_anything_that_exists_or_does_not() {
    let (node, signer) = keyed(Backend::Embedded).await;
    let all = node.with_token(&signer.everything());
    all.create("first", "list-todo").await;
    let body =
        json!({ "id": "other", "name": "Other", "lists": [{ "id": "theirs", "title": "T" }] });
    assert_eq!(all.send("POST", "/boards", Some(body)).await.status, 201);
    // To nobody who may change nothing it is told what there is.
    let reader = node.with_token(&signer.grant(json!({ "subscribe": ["*"] })));
    for task in ["task-1", "task-99", "a%20b"] {
        let path = format!("/tasks/{task}");
        let refused = reader.send("DELETE", &path, None).await;
        assert_eq!(refused.problem(403), "forbidden", "{task}");
    }
    // Who may change another board learns that this one is not theirs, and not which it is.
    let other = node.with_token(&signer.grant(json!({ "publish": ["other"] })));
    let rename = Some(json!({ "title": "mine" }));
    let sees = node.with_token(&signer.grant(json!({
        "subscribe": ["board-1"], "publish": ["other"],
    })));
    let refused = sees.send("PATCH", "/tasks/task-1", rename.clone()).await;
    assert_eq!(refused.problem(403), "forbidden");
    assert!(!refused.body["detail"].as_str().unwrap().contains("board-1"), "{refused:?}");
    // Nor whether it has such a task.
    let refused = sees.send("PATCH", "/tasks/task-9", rename.clone()).await;
    assert_eq!(refused.problem(403), "forbidden");
    let body = |list: &str| Some(json!({ "title": "x", "listId": list }));
    assert_eq!(sees.send("POST", "/tasks", body("list-todo")).await.problem(403), "forbidden");
    // Who may not even read it learns nothing: each answer is that of what does not exist.
    let same = async |method: &str, [there, missing]: [&str; 2], bodies: [Option<Value>; 2]| {
        let [there_body, missing_body] = bodies;
        let stale = [("if-match", "\"1-zzzz\"")];
        for headers in [&[][..], &stale] {
            let there = other.send_with(method, there, headers, there_body.clone()).await;
            let missing = other.send_with(method, missing, headers, missing_body.clone()).await;
            assert!(matches!(there.status, 404 | 412), "{method} {there:?}");
            assert_eq!((there.status, &there.body), (missing.status, &missing.body));
            let says = |answer: &Answer| answer.header("www-authenticate").to_owned();
            assert_eq!(says(&there), says(&missing));
        }
    };
    let tasks = ["/tasks/task-1", "/tasks/task-9"];
    same("PATCH", tasks, [rename.clone(), rename]).await;
    same("DELETE", tasks, [None, None]).await;
    same("POST", ["/tasks"; 2], [body("list-todo"), body("nope")]).await;
    let made = other.send("POST", "/tasks", body("theirs")).await;
    let own = format!("/tasks/{}/move", made.body["id"].as_str().unwrap());
    let to = |list: &str| Some(json!({ "listId": list }));
    let own = own.as_str();
    same("PATCH", [own, own], [to("list-todo"), to("nope")]).await;
    let seen = sees.send("PATCH", own, to("list-todo")).await;
    assert_eq!(seen.problem(409), "list-elsewhere");
    // Whoever chooses the id of a list is told that it was chosen before, and not where.
    let list = json!({ "id": "list-todo", "title": "L" });
    let taken = other.send("POST", "/boards/other/lists", Some(list)).await;
    assert_eq!(taken.problem(409), "list-exists");
    assert!(!taken.body.to_string().contains("board-1"), "{taken:?}");
    assert_eq!(other.send("POST", "/tasks", body("nope")).await.problem(404), "no-such-list");
    assert_eq!(other.send("POST", "/tasks", body("theirs")).await.status, 201);
    // The answer to somebody's earlier request is for who could have sent it.
    let key = [("idempotency-key", "once")];
    let event = json!({ "data": "secret" });
    let first = all.send_with("POST", "/topics/t/events", &key, Some(event.clone())).await;
    assert_eq!(first.status, 201);
    let again = other.send_with("POST", "/topics/t/events", &key, Some(event)).await;
    assert_eq!(again.problem(403), "forbidden");
    let task = json!({ "title": "once", "listId": "list-todo" });
    assert_eq!(all.send_with("POST", "/tasks", &key, Some(task.clone())).await.status, 201);
    let again = other.send_with("POST", "/tasks", &key, Some(task)).await;
    assert_eq!(again.problem(404), "no-such-list");
    assert!(again.header("idempotent-replayed").is_empty() && again.position().is_empty());
    let stale = [("if-match", "\"1-zzzz\"")];
    let refused = other.send_with("DELETE", "/tasks/task-1", &stale, None).await;
    assert_eq!(
        (refused.problem(404).as_str(), refused.position()),
        ("no-such-task", String::new())
    );
}
