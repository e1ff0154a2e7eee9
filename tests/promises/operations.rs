//! What operators see, and what the program says of itself.

use std::collections::HashMap;
use std::io::BufRead;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Api, Backend, Node, OPERATORS, Stream, on_both_logs, until, within};

on_both_logs! {
    async fn metrics_tell_what_happened(backend: Backend) {
        let node = backend.start(&[]).await;
        let path = "/boards/board-1/events";
        // One that sees everything as it comes: what it has seen is no news to who comes back.
        let mut witness = Stream::open(node.address, path).await;
        let mut stream = Stream::open(node.address, path).await;
        for n in 0..5 {
            node.create(&n.to_string(), "list-todo").await;
            stream.event().await;
        }
        let left_at = stream.last_event_id().to_owned();
        assert_eq!(node.metric("fantail_connections", "").await, 2.0);
        assert_eq!(node.metric("fantail_topics", "").await, 1.0);
        drop(stream);
        node.until_streams(1).await;
        node.create("missed", "list-todo").await;
        witness.events(6).await;
        let mut resumed = Stream::open_from(node.address, path, &left_at).await;
        resumed.event().await;
        let mut lost = Stream::open_from(node.address, path, "1-zzzz").await;
        assert_eq!(lost.event().await.kind, "reset");
        lost.events(6).await;
        for (name, labels, expected) in [
            ("fantail_connections_opened_total", "", 4.0),
            ("fantail_connections_closed_total", r#"reason="client""#, 1.0),
            ("fantail_events_published_total", "", 6.0),
            ("fantail_deliveries_total", "", 18.0),
            ("fantail_resets_total", r#"reason="lost""#, 1.0),
            ("fantail_resets_total", r#"reason="trimmed""#, 0.0),
            ("fantail_requests_total", r#"route="/tasks",method="POST",status="201""#, 6.0),
            ("fantail_ready", "", 2.0),
        ] {
            assert_eq!(node.metric(name, labels).await, expected, "{name} {labels}");
        }
        let replays = node.metric("fantail_replays_total", "").await;
        assert_eq!(replays, 1.0);
        let lags = node.metric("fantail_delivery_lag_seconds_count", "").await;
        assert!(lags >= 5.0, "{lags}");
        let bytes = node.metric("fantail_delivered_bytes_total", "").await;
        assert!(bytes > 12.0 * 100.0, "{bytes}");
        if backend == Backend::Redis {
            assert_eq!(node.metric("fantail_redis_up", "").await, 1.0);
            let commands = node.metric("fantail_redis_command_seconds_count", "task_create").await;
            assert_eq!(commands, 6.0);
        }
        let text = node.get("/metrics").await;
        let text = text.as_str().unwrap();
        assert!(!text.contains("board-1"), "a label per topic");
        assert!(text.contains("# HELP fantail_connections"), "{text}");
    }

    async fn connections_are_told_by_topic_with_the_largest_first(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut streams = Vec::new();
        for path in [
            "/boards/board-1/events",
            "/events?topics=c,a,d",
            "/events?topics=b,c&boards=board-1",
            "/topics/b/events",
            "/topics/b/events",
        ] {
            streams.push(Stream::open(node.address, path).await);
        }
        // As text: the order counts.
        let counted = async |query: &str, expected: String| {
            until(&format!("{query}: {expected}"), async || {
                let url = format!("{}/admin/connections{query}", node.base);
                let answer = reqwest::get(url).await.unwrap().text().await.unwrap();
                (answer == expected).then_some(())
            })
            .await;
        };
        let id = "node-1";
        let answer = |boards: &str, topics: &str, omitted: usize| {
            let streams = format!(r#""total":5,"boards":{boards},"topics":{topics}"#);
            let of_node = format!(r#"{{{streams},"omitted":{omitted}}}"#);
            format!(
                r#"{{{streams},"nodes":{{"{id}":{of_node}}},"complete":true,"omitted":{omitted}}}"#
            )
        };
        let boards = r#"{"board-1":2}"#;
        counted("", answer(boards, r#"{"b":3,"c":2,"a":1,"d":1}"#, 0)).await;
        counted("?limit=2", answer(boards, r#"{"b":3,"c":2}"#, 2)).await;
        counted("?limit=0", answer("{}", "{}", 5)).await;
        counted("?topic=c", answer("{}", r#"{"c":2}"#, 0)).await;
        counted("?topic=board-1", answer(boards, "{}", 0)).await;
        counted("?topic=nobody", answer("{}", "{}", 0)).await;
        for wrong in ["?limit=-1", "?limit=many", "?topic=a,b", "?topic="] {
            let answer = node.send("GET", &format!("/admin/connections{wrong}"), None).await;
            assert_eq!(answer.problem(400), "bad-request", "{wrong}");
        }
    }

    async fn it_is_ready_when_its_own_canary_came_back(backend: Backend) {
        let node = backend.start(&[OPERATORS]).await;
        let ready = node.send("GET", "/readyz", None).await;
        assert_eq!((ready.status, &ready.body), (200, &json!({ "status": "ready" })));
        let ready = node.operators().send("GET", "/readyz", None).await;
        assert_eq!((ready.status, &ready.body["status"]), (200, &json!("ready")));
        assert!(ready.body["canaryAgeSeconds"].as_f64().unwrap() < 5.0);
        assert_eq!(ready.body["node"], "node-1");
        assert_eq!(node.send("GET", "/healthz", None).await.status, 200);
    }
}

/// Runs the program with these arguments to its end.
fn fantail(arguments: &[&str], settings: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    command.args(arguments).env_clear().envs(settings.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_setting_stops_the_start_with_one_line() {
    for (arguments, settings, parts) in [
        (&["--heartbeat", "soon"][..], &[][..], ["FANTAIL_HEARTBEAT", "\"soon\"", "15s"]),
        (&[], &[("FANTAIL_HISTORY_SIZE", "-1")], ["--history-size", "\"-1\"", "1 to 1000000"]),
        (
            &["serve"],
            &[("FANTAIL_REDIS_URL", "localhost")],
            ["--redis-url", "not shown", "rediss://"],
        ),
        (
            &["serve", "--listen", "127.0.0.1"],
            &[],
            ["FANTAIL_LISTEN", "127.0.0.1", "127.0.0.1:3000"],
        ),
        (
            &["--listen", "192.0.2.1:1", "--anonymous", "true"],
            &[],
            ["FANTAIL_LISTEN", "192.0.2.1:1", "cannot listen"],
        ),
        (
            &["--admin-listen", "192.0.2.1:1", "--listen", "127.0.0.1:0"],
            &[],
            ["FANTAIL_ADMIN_LISTEN", "192.0.2.1:1", "cannot listen"],
        ),
        (
            &["--listen", "192.0.2.1:1"],
            &[],
            ["FANTAIL_LISTEN", "FANTAIL_JWT_SECRET_FILE", "FANTAIL_ANONYMOUS"],
        ),
        (&[], &[("FANTAIL_LOG", "inof")], ["FANTAIL_LOG", "\"inof\"", "info"]),
        (&[], &[("FANTAIL_LOG", "info,fantial=debug")], ["FANTAIL_LOG", "fantial", "fantail::"]),
        (&[], &[("FANTAIL_LOG", "fantail::rellay=debug")], ["FANTAIL_LOG", "rellay", "relay?"]),
        (
            &[],
            &[("fantail_redis_url", "redis://x")],
            ["fantail_redis_url ", "no setting", "FANTAIL_REDIS_URL?"],
        ),
        (&[], &[("FANTAIL_REDIS", "redis://x")], ["FANTAIL_REDIS ", "FANTAIL_REDIS_URL", "--help"]),
        (&["--colour"], &[], ["--colour", "unexpected argument", "--help"]),
    ] {
        let (success, _, error) = fantail(arguments, settings);
        assert!(!success);
        let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("fantail: ")).collect();
        assert_eq!(lines.len(), 1, "{error}");
        for part in parts {
            assert!(lines[0].contains(part), "{part} is not in {error}");
        }
    }
}

#[tokio::test]
async fn whatever_is_to_be_logged_the_start_is_unless_it_is_turned_off() {
    for filter in ["", ",", "hyper=debug", "fantail::relay=debug"] {
        // The harness waits for the line that says where the node listens.
        let node = Backend::Embedded.start(&[("FANTAIL_LOG", filter)]).await;
        assert!(!node.log().is_empty(), "{filter:?}");
    }
}

#[test]
fn a_password_in_the_redis_url_is_shown_nowhere() {
    let settings = [("FANTAIL_REDIS_URL", "redis://:hunter2@127.0.0.1:1"), ("FANTAIL_LISTEN", "x")];
    let (_, out, error) = fantail(&[], &settings);
    let (_, help, _) = fantail(&["--help"], &settings);
    assert!(!format!("{out}{error}{help}").contains("hunter2"));
    for url in [
        "redis://:hunter2@h:99999",
        "redis://:hun/ter2hunter2@h:6379",
        "redis://:hunter2",
        "redis://app:hunter2",
        "rediss:/:hunter2@h",
        "http://app:hunter2@h",
    ] {
        let (success, out, error) = fantail(&[], &[("FANTAIL_REDIS_URL", url)]);
        assert!(!success && error.starts_with("fantail: --redis-url"), "{error}");
        assert!(!format!("{out}{error}").contains("hunter2"), "{error}");
        for arguments in [&[url][..], &["serve", url], &["--redis-url", url, "--colour"]] {
            let (success, out, error) = fantail(arguments, &[]);
            assert!(!success && !format!("{out}{error}").contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn help_is_the_reference_of_all_settings() {
    let (success, help, _) = fantail(&["serve", "--help"], &[]);
    assert!(success);
    let (_, short, _) = fantail(&["--help"], &[]);
    for [flag, variable, default, _] in fantail::config::Config::reference() {
        for text in [&help, &short] {
            assert!(text.contains(&flag) && text.contains(&variable), "{flag} is not in {text}");
            assert!(text.contains(&default), "{default} is not in {text}");
        }
    }
    let (success, version, _) = fantail(&["--version"], &[]);
    assert!(success && version.starts_with("fantail "));
}

#[test]
fn the_table_of_settings_in_the_documentation_is_the_programs() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: HashMap<&str, Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `FANTAIL_"))
        .filter_map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            Some((row.split_once('`')?.0, cells))
        })
        .collect();
    let reference = fantail::config::Config::reference();
    for [flag, variable, default, _] in &reference {
        let name = variable.strip_prefix("FANTAIL_").unwrap();
        let row =
            rows.get(name).unwrap_or_else(|| panic!("{variable} is not in docs/operations.md"));
        assert!(row[1].contains(&format!("`{flag}`")), "{variable}: {row:?}");
        if !default.is_empty() {
            assert!(row[2].contains(&format!("`{default}`")), "{variable}: {row:?}");
        }
    }
    assert_eq!(rows.len(), reference.len(), "the table has settings that do not exist");
}

#[tokio::test]
async fn log_lines_can_be_json() {
    let settings = [("FANTAIL_LOG_FORMAT", "json"), ("FANTAIL_LOG", "info")];
    // Text first: one that starts says in its first line which log it runs on.
    let node = Backend::Embedded.start(&[]).await;
    assert!(node.log()[0].contains("embedded log"), "{:?}", node.log());
    assert!(node.log().iter().any(|line| line.contains("descriptors_max")));

    let mut child = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .envs(settings)
        .env("FANTAIL_LISTEN", "127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let reading = tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut is_listening = false;
        while stderr.read_line(&mut lines).unwrap() > 0 {
            if !is_listening && lines.contains("listening") {
                is_listening = true;
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
        }
        child.wait().unwrap();
        lines
    });
    let lines = within("the end of the node", reading).await.unwrap();
    assert!(lines.lines().count() >= 3, "{lines}");
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_redis_that_is_too_old_is_refused_with_a_clear_sentence() {
    // A real old Redis cannot be had here; this speaks as one: RESP, and INFO with its version.
    let old = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", old.local_addr().unwrap());
    let speaking = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut socket, _) = old.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[..read]).to_ascii_uppercase();
                    // As many answers as commands.
                    for command in text.split('*').skip(1) {
                        let answer = if command.contains("HELLO") {
                            "%1\r\n+server\r\n+redis\r\n".to_owned()
                        } else if command.contains("INFO") {
                            let info = "redis_version:6.0.16\r\n";
                            format!("${}\r\n{info}\r\n", info.len())
                        } else {
                            "+OK\r\n".to_owned()
                        };
                        let _ = socket.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    let mut node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &[]).await;
    assert_eq!(node.process.ended().await, Some(1));
    let sentence = "Redis 6.0.16 is too old: Fantail needs Redis 6.2 or newer, or Valkey";
    until("it has said so", async || {
        node.log().iter().any(|line| line.contains(sentence)).then_some(())
    })
    .await;
    speaking.abort();
}

#[tokio::test]
async fn the_page_and_its_parts_are_served() {
    let node = Backend::Embedded.start(&[]).await;
    let api: &Api = &node;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let answer = api.send("GET", path, None).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type.to_owned()));
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    }
}
