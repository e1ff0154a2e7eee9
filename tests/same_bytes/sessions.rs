//! Sessions: what applications and pages do with a gateway, over either wire and on either log.

use crate::compare::everywhere;

/// Texts and JSON as publishers send them, each in its own way awkward.
const EVENTS: [&str; 16] = [
    r#"{"data":"one line"}"#,
    r#"{"data":""}"#,
    r#"{"data":"two\nlines"}"#,
    r#"{"data":"\n"}"#,
    r#"{"data":"a\r\nb\rc\nd\n\re\r\n"}"#,
    r#"{"data":" leading, trailing \n\n: no comment\ndata: no data\nid: 7\n"}"#,
    r#"{"data":"\u0000\u001f\u007f\u0085\u2028 ü 🦊"}"#,
    r#"{"event":"named","data":"text"}"#,
    r#"{"event":"with space: and colon","data":1}"#,
    r#"{"event":"änderung","data":null}"#,
    r#"{"data":true}"#,
    r#"{"data":1.50e+3}"#,
    "{\"data\": {\"b\": 1,\r\n\t\"a\": [ 1, 2 ,\"x y\\\"\" ] } }",
    r#"{"data":[]}"#,
    r#"{"data":"{\"json\":\"as text\"}"}"#,
    r#"{"event":"message","data":{"big":12345678901234567890123456789}}"#,
];

/// The simplest task.
pub const TASK: &str = r#"{"title":"A","listId":"list-todo"}"#;

/// What cannot be published.
const NO_EVENTS: [&str; 13] = [
    "",
    "{}",
    "[]",
    "null",
    r#""text""#,
    r#"{"data":1,"more":2}"#,
    r#"{"event":"two\nlines","data":1}"#,
    r#"{"event":7,"data":1}"#,
    r#"{"event":"","data":1}"#,
    r#"{"event":"reset","data":1}"#,
    r#"{"data":"half"#,
    r#"[{"data":1},{"dato":2}]"#,
    r#"{"data":"\ud800"}"#,
];

#[tokio::test]
async fn what_is_published_to_a_topic() {
    everywhere(&[], async |player| {
        let live = player.open("/topics/t/events", &[]).await;
        player.until_all_said_hello().await;
        for event in EVENTS {
            let position = player.publish("t", event).await.position;
            player.until_event(live, &position).await;
        }
        let all = format!("[{}]", EVENTS.join(","));
        let position = player.publish("t", &all).await.position;
        player.until_event(live, &position).await;
        for event in NO_EVENTS {
            player.publish("t", event).await;
        }
        player.call("POST /topics/t/events", &[], r#"{"data":1}"#).await;
        player.call("POST /topics/t/events", &[("content-type", "text/plain")], "x").await;
        for query in [
            "",
            "?limit=5",
            "?after=5",
            "?after=31&limit=1",
            "?after=32",
            "?after=99",
            "?after=x",
            "?limit=0",
            "?limit=x",
            "?after=2-zzzzzz",
            "?other=1",
        ] {
            player.call(&format!("GET /topics/t/history{query}"), &[], "").await;
        }
        player.call("GET /topics/nobody/history", &[], "").await;
        let from_earliest = player.open("/topics/t/events?from=earliest", &[]).await;
        player.until_event(from_earliest, &position).await;
    })
    .await;
}

#[tokio::test]
async fn writes_with_conditions() {
    everywhere(&[], async |player| {
        let live = player.open("/topics/t/events", &[]).await;
        player.until_all_said_hello().await;
        let path = "POST /topics/t/events";
        let json = ("content-type", "application/json");
        let first = player.call(path, &[json, ("idempotency-key", "k")], r#"{"data":1}"#).await;
        player.call(path, &[json, ("idempotency-key", "k")], r#"{"data":1}"#).await;
        player.call(path, &[json, ("idempotency-key", "k")], r#"{"data":2}"#).await;
        player.call(path, &[json, ("idempotency-key", "")], r#"{"data":2}"#).await;
        player
            .call(
                path,
                &[json, ("idempotency-key", "a"), ("idempotency-key", "b")],
                r#"{"data":2}"#,
            )
            .await;
        let quoted = format!("\"{}\"", first.position);
        player.call(path, &[json, ("if-match", &quoted)], r#"{"data":3}"#).await;
        player.call(path, &[json, ("if-match", &first.position)], r#"{"data":4}"#).await;
        player.call(path, &[json, ("if-match", "nothing")], r#"{"data":4}"#).await;
        for _ in 0..2 {
            player.call("POST /tasks", &[json, ("idempotency-key", "task")], TASK).await;
        }
        let last = player.publish("t", r#"{"data":5}"#).await;
        player.until_event(live, &last.position).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_done_with_boards() {
    everywhere(&[], async |player| {
        let live = player.open("/boards/board-1/events", &[]).await;
        let with_snapshot = player.open("/boards/board-1/events?snapshot=true", &[]).await;
        player.until_all_said_hello().await;
        player.until(with_snapshot, "\"lastEventId\"").await;
        let mut last = String::new();
        for (request, body) in [
            ("POST /tasks", r#"{"title":"Ä \"quoted\" \\ 🦊","listId":"list-todo"}"#),
            ("POST /tasks", r#"{"title":"second","listId":"list-todo"}"#),
            ("POST /tasks", r#"{"title":"third","listId":"list-doing"}"#),
            ("PATCH /tasks/task-1/move", r#"{"listId":"list-doing","index":0}"#),
            ("PATCH /tasks/task-1/move", r#"{"listId":"list-doing","index":99}"#),
            ("PATCH /tasks/task-1/move", r#"{"listId":"list-done"}"#),
            ("PATCH /tasks/task-2", r#"{"title":"renamed"}"#),
            ("POST /boards/board-1/lists", r#"{"id":"list-4","title":"Four"}"#),
            ("POST /boards/board-1/lists", r#"{"title":"Unnamed"}"#),
            ("PATCH /tasks/task-2/move", r#"{"listId":"list-4"}"#),
        ] {
            last = player.json(request, body).await.position;
            player.until_event(live, &last).await;
        }
        player.call("DELETE /tasks/task-3", &[], "").await;
        for (request, body) in [
            ("POST /tasks", r#"{"title":"","listId":"list-todo"}"#),
            ("POST /tasks", r#"{"title":"two\nlines","listId":"list-todo"}"#),
            ("POST /tasks", r#"{"title":"x","listId":"nowhere"}"#),
            ("POST /tasks", r#"{"title":"x","listId":"a b"}"#),
            ("POST /tasks", r#"{"title":"x"}"#),
            ("PATCH /tasks/task-9", r#"{"title":"x"}"#),
            ("PATCH /tasks/task-3/move", r#"{"listId":"list-todo"}"#),
            ("PATCH /tasks/task-1/move", r#"{"listId":"list-todo","index":-1}"#),
            ("POST /boards/nope/lists", r#"{"title":"x"}"#),
            ("POST /boards/board-1/lists", r#"{"id":"list-4","title":"again"}"#),
            ("POST /boards", r#"{"id":"board-1","name":"again"}"#),
            ("POST /boards", r#"{"id":"b2","name":"Two","lists":[{"id":"l2","title":"L"}]}"#),
            ("POST /boards", r#"{"name":"Unnamed","lists":[{"title":"L"},{"title":"M"}]}"#),
            ("POST /boards", r#"{"id":"a b","name":"x"}"#),
            ("PATCH /tasks/task-1/move", r#"{"listId":"l2"}"#),
            ("POST /topics/board-1/events", r#"{"event":"task_created","data":1}"#),
        ] {
            player.json(request, body).await;
        }
        for request in ["DELETE /tasks/task-3", "DELETE /tasks/x%20y", "DELETE /tasks/%ff"] {
            player.call(request, &[], "").await;
        }
        for path in ["/boards", "/boards/board-1", "/boards/b2", "/boards/nope"] {
            player.call(&format!("GET {path}"), &[], "").await;
        }
        // The page that made a change begins exactly there; one that comes back goes on.
        let resumed = player.open("/boards/board-1/events", &[("last-event-id", &last)]).await;
        let path = "/boards/board-1/events?snapshot=true";
        let resumed_after = player.open(path, &[("last-event-id", &last)]).await;
        let begins = player.open(path, &[]).await;
        let other = player.open("/events?boards=board-1,b2&topics=x&snapshot=true", &[]).await;
        player.until(other, "\"Two\"").await;
        player.until(begins, "event: snapshot").await;
        player.until_all_said_hello().await;
        let last = player.publish("board-1", r#"{"event":"note","data":"by hand"}"#).await.position;
        for stream in [live, with_snapshot, resumed, resumed_after, begins] {
            player.until_event(stream, &last).await;
        }
        player.until(other, "by hand").await;
    })
    .await;
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats() {
    everywhere(&[("FANTAIL_HEARTBEAT", "200ms")], async |player| {
        for target in ["/topics/t/events", "/events?topics=t,u", "/boards/board-1/events"] {
            let stream = player.open(target, &[]).await;
            player.leave(stream, ": heartbeat\n", 2).await;
        }
    })
    .await;
}

#[tokio::test]
async fn readers_that_read_late() {
    everywhere(&[], async |player| {
        let streams = [
            player.open_narrow("/topics/t/events", &[]).await,
            player.open_narrow("/events?topics=t,u", &[]).await,
        ];
        player.until_all_said_hello().await;
        // More than its socket and the tail of its topic hold.
        let data = "x".repeat(30 << 10);
        let several = vec![format!(r#"{{"data":"{data}"}}"#); 20].join(",");
        let mut last = String::new();
        for _ in 0..10 {
            last = player.publish("t", &format!("[{several}]")).await.position;
        }
        player.until_event(streams[0], &last).await;
        player.until(streams[1], &last).await;
        let metrics = player.gateway.get("/metrics").await;
        assert!(!metrics.contains("\nfantail_replay_reads_total 0\n"), "none fell behind");
        let last = player.publish("t", r#"{"data":"after"}"#).await.position;
        player.until_event(streams[0], &last).await;
        player.until(streams[1], "data: after\n").await;
    })
    .await;
}

#[tokio::test]
async fn what_is_refused() {
    let settings = [
        ("FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", "1"),
        ("FANTAIL_MAX_BODY", "1KiB"),
        ("FANTAIL_CORS_ORIGINS", "https://app.example,http://localhost:8080"),
    ];
    everywhere(&settings, async |player| {
        let live = player.open("/topics/t/events", &[("origin", "https://app.example")]).await;
        player.until_all_said_hello().await;
        player.call("GET /topics/t/events", &[("origin", "https://app.example")], "").await;
        player.call("GET /events?topics=a,b", &[("origin", "https://evil.example")], "").await;
        let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(1 << 10));
        player.publish("t", &event).await;
        let position = player.publish("t", r#"{"data":1}"#).await.position;
        player.until_event(live, &position).await;
    })
    .await;
}

#[tokio::test]
async fn everything_beside_streams() {
    everywhere(&[], async |player| {
        let origin = ("origin", "https://app.example");
        for request in [
            "GET /",
            "HEAD /",
            "GET /app.js",
            "GET /style.css",
            "GET /favicon.svg",
            "GET /healthz",
            "HEAD /healthz",
            "GET /nowhere",
            "GET //healthz",
            "GET /healthz/",
            "GET /healthz?x=1",
            "HEAD /topics/t/events",
            "HEAD /boards/nope/events",
            "PUT /topics/t/events",
            "DELETE /topics/t/events",
            "PATCH /events?topics=t",
            "POST /boards/board-1/events",
            "DELETE /boards",
            "PUT /tasks",
            "GET /tasks",
            "OPTIONS /topics/t/events",
            "FLY /topics/t/events",
        ] {
            player.call(request, &[], "").await;
            player.call(request, &[origin], "").await;
        }
        for (method, headers) in
            [("GET", "last-event-id"), ("PATCH", "content-type, x-y"), ("", "")]
        {
            let asks = [
                origin,
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ];
            player.call("OPTIONS /topics/t/events", &asks, "").await;
        }
    })
    .await;
}
