//! The two logs agree: the same commands lead to the same answers, events and boards.
//!
//! The rules of the board stand in Rust for the embedded log and in Lua for Redis. Random commands
//! keep them one.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{Api, Backend, Stream, seq};

#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
    /// From a few that come again and again.
    key: Option<&'static str>,
    /// `If-Match` with the position of the last answer, or with an earlier one.
    if_match: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Last,
    First,
}

fn any_request() -> impl Strategy<Value = Request> {
    // Ids that exist, ids that existed, and ids that never did.
    let task = || {
        prop_oneof![
            4 => (1..25_u32).prop_map(|n| format!("task-{n}")),
            1 => (1..5_u32, 1..4_u32).prop_map(|(n, board)| format!("task-{n}-{board}")),
        ]
    };
    let list = || {
        prop_oneof![
            8 => prop::sample::select(vec!["list-todo", "list-doing", "list-done", "l\"2", "list-1", "list-2"]),
            1 => Just("nope"),
        ]
    };
    let title = || "[a-zäß☂\"\\\\/<>&' ]{1,12}|\\PC{1,8}";
    let request =
        |method, path: String, body| Request { method, path, body, key: None, if_match: None };
    let change = prop_oneof![
        6 => (title(), list()).prop_map(move |(title, list)| {
            request("POST", "/tasks".into(), Some(json!({ "title": title, "listId": list })))
        }),
        6 => (task(), list(), prop::option::of(0..8_u32)).prop_map(move |(task, list, index)| {
            let body = match index {
                Some(index) => json!({ "listId": list, "index": index }),
                None => json!({ "listId": list }),
            };
            request("PATCH", format!("/tasks/{task}/move"), Some(body))
        }),
        3 => (task(), title()).prop_map(move |(task, title)| {
            request("PATCH", format!("/tasks/{task}"), Some(json!({ "title": title })))
        }),
        2 => task().prop_map(move |task| request("DELETE", format!("/tasks/{task}"), None)),
        1 => (title(), prop::option::of(prop::sample::select(vec!["l\"2", "l3"]))).prop_map(
            move |(title, id)| {
                let mut body = json!({ "title": title });
                if let Some(id) = id {
                    body["id"] = id.into();
                }
                request("POST", "/boards/b%222/lists".into(), Some(body))
            }
        ),
        1 => (prop::option::of(Just("b\"2")), title()).prop_map(move |(id, name)| {
            let mut body = json!({ "name": name, "lists": [{ "title": "one" }] });
            if let Some(id) = id {
                body["id"] = id.into();
            }
            request("POST", "/boards".into(), Some(body))
        }),
        2 => prop::sample::select(vec!["b%222", "board-1", "t"]).prop_map(move |topic| {
            request("POST", format!("/topics/{topic}/events"), Some(json!({ "data": 1 })))
        }),
    ];
    let key = prop_oneof![5 => Just(None), 1 => prop::sample::select(vec![Some("a"), Some("b")])];
    let if_match =
        prop_oneof![9 => Just(None), 2 => Just(Some(Seen::Last)), 1 => Just(Some(Seen::First))];
    (change, key, if_match).prop_map(|(change, key, if_match)| {
        // Redis hands out an id before it judges conditions: the next ones would differ.
        match change.path.as_str() {
            "/boards" | "/boards/b%222/lists" => change,
            _ => Request { key, if_match, ..change },
        }
    })
}

fn is_position(text: &str) -> bool {
    text.parse::<fantail::position::Position>().is_ok()
}

/// Removes what must differ: times and epochs.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match name.as_str() {
                    "createdAt" | "updatedAt" => *value = json!("time"),
                    "lastEventId" | "id" if value.as_str().is_some_and(is_position) => {
                        *value = json!(seq(value.as_str().unwrap()));
                    }
                    "detail" => *value = json!("words"),
                    _ => *value = without_times(value.take()),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = without_times(value.take());
            }
        }
        _ => {}
    }
    value
}

/// Sends all requests; returns everything that can be seen of it.
async fn observe(backend: Backend, requests: &[Request]) -> Vec<String> {
    let node = backend.start(&[]).await;
    let api = Api::keeping_alive(&node.base);
    let mut seen = Vec::new();
    let mut events = 0;
    let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
    let (mut first, mut last) = (String::new(), String::new());
    for request in requests {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(request.key.map(|key| ("idempotency-key", key)));
        let position = match request.if_match {
            Some(Seen::Last) => last.as_str(),
            Some(Seen::First) => first.as_str(),
            None => "",
        };
        headers.extend((!position.is_empty()).then_some(("if-match", position)));
        let body = request.body.clone();
        let answer = api.send_with(request.method, &request.path, &headers, body).await;
        if answer.status < 300 {
            last = answer.position();
            if first.is_empty() {
                first.clone_from(&last);
            }
        }
        // The text of the embedded log's answer and of Redis's must be the same, order included.
        let body = without_times(answer.body.clone());
        let position = answer.position();
        let position = if position.is_empty() { 0 } else { seq(&position) };
        if answer.status < 300 && request.path.starts_with("/tasks") {
            events += usize::from(answer.body["boardId"] == "board-1");
        }
        let again = answer.header("idempotent-replayed");
        seen.push(format!("{request:?}\n  {} {again} {position} {body}", answer.status));
    }
    // Deletions answer without a body; count by what the board says.
    let head = api.get("/boards/board-1").await["lastEventId"].clone();
    let head = seq(head.as_str().unwrap()) as usize;
    assert!(head >= events);
    for event in stream.events(head).await {
        seen.push(format!("{} {} {}", event.seq(), event.kind, without_times(event.json())));
    }
    for board in api.get("/boards").await.as_array().unwrap() {
        let id = board["id"].as_str().unwrap().replace('"', "%22");
        let board = api.get(&format!("/boards/{id}")).await;
        seen.push(without_times(board).to_string());
    }
    seen
}

#[tokio::test]
async fn the_same_commands_lead_to_the_same_boards_and_events_on_both_logs() {
    let mut runner = TestRunner::default();
    let requests = proptest::collection::vec(any_request(), 60);
    for _ in 0..12 {
        let mut requests = requests.new_tree(&mut runner).unwrap().current();
        // A second board early, so that tasks can be sent to the wrong one.
        let body =
            json!({ "id": "b\"2", "name": "\"", "lists": [{ "id": "l\"2", "title": "\\" }] });
        let board = Request {
            method: "POST",
            path: "/boards".into(),
            body: Some(body),
            key: None,
            if_match: None,
        };
        requests.insert(0, board);
        let embedded = observe(Backend::Embedded, &requests).await;
        let redis = observe(Backend::Redis, &requests).await;
        for (embedded, redis) in embedded.iter().zip(&redis) {
            assert_eq!(embedded, redis);
        }
        assert_eq!(embedded.len(), redis.len());
    }
}

#[tokio::test]
async fn times_in_redis_are_written_as_the_embedded_log_writes_them() {
    let node = Backend::Redis.start(&[]).await;
    let before = jiff::Timestamp::now();
    let (task, _) = node.create("task", "list-todo").await;
    let text = task["createdAt"].as_str().unwrap();
    let created: jiff::Timestamp = text.parse().unwrap();
    // Lua computes the calendar by itself.
    assert_eq!(format!("{created:.3}"), text);
    assert!(created.duration_since(before).abs() < jiff::SignedDuration::from_secs(5));
}
