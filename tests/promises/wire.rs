//! What stands on the wire of a stream (`docs/api.md`).

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Backend, Stream, epoch, h2c, on_both_logs, seq, takes_less_than, within};

on_both_logs! {
    async fn a_stream_has_the_headers_that_sse_needs(backend: Backend) {
        let node = backend.start(&[]).await;
        let stream = Stream::open(node.address, "/boards/board-1/events").await;
        for line in [
            "content-type: text/event-stream; charset=utf-8",
            "cache-control: no-cache, no-transform",
            "x-accel-buffering: no",
        ] {
            assert!(stream.head.lines().any(|l| l == line), "{line} is not in {}", stream.head);
        }
        // HTTP/2 forbids it.
        let keeps_alive = stream.head.lines().any(|line| line == "connection: keep-alive");
        assert_ne!(keeps_alive, h2c::is_wanted(), "{}", stream.head);
    }

    async fn whether_a_connection_goes_on_is_said_once(backend: Backend) {
        let node = backend.start(&[]).await;
        for (asked, answered) in [
            ("", "keep-alive"),
            ("Connection: keep-alive\r\n", "keep-alive"),
            ("Connection: close\r\n", "close"),
            ("connection: te, Close\r\n", "close"),
            ("Connection: keep-alive\r\nConnection: close\r\n", "close"),
        ] {
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            let request = format!("GET /topics/t/events HTTP/1.1\r\nHost: a\r\n{asked}\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                let read = within("a head", socket.read_buf(&mut head)).await.unwrap();
                assert!(read > 0, "{asked:?} is not answered");
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let said: Vec<&str> =
                head.lines().filter_map(|line| line.strip_prefix("connection: ")).collect();
            assert_eq!(said, [answered], "{asked:?}");
        }
    }

    async fn the_first_block_comes_at_once_and_has_retry_id_and_node(backend: Backend) {
        let node = backend.start(&[("FANTAIL_RETRY", "1234ms")]).await;
        let mut stream = Stream::request(node.address, "/boards/board-1/events", "").await;
        let hello = stream.event().await;
        assert_eq!(hello.kind, "message");
        assert_eq!(hello.json(), json!({ "type": "connected", "node": "node-1" }));
        assert_eq!(seq(&hello.id), 0);
        assert!((4..=8).contains(&epoch(&hello.id).len()));
        assert_eq!(stream.interpreter.retry, Some(1234));
    }

    async fn an_event_reaches_a_stream_that_waits_at_once(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        takes_less_than(Duration::from_millis(400), async || {
            let mut all = Duration::ZERO;
            for n in 0..5 {
                // Long enough for the node to have nothing to do.
                tokio::time::sleep(Duration::from_millis(60)).await;
                let id = node.publish("t", n).await;
                let published_at = Instant::now();
                assert_eq!(stream.event().await.id, id);
                all += published_at.elapsed();
            }
            all
        })
        .await;
    }

    async fn entries_have_ids_that_go_up_by_one_and_the_type_of_their_change(backend: Backend) {
        let node = backend.start(&[]).await;
        let mut stream = Stream::open(node.address, "/boards/board-1/events").await;
        let (task, position) = node.create("A", "list-todo").await;
        let id = task["id"].as_str().unwrap();
        let moved = node.move_to(id, "list-done", None).await;
        let path = format!("/tasks/{id}");
        let renamed = node.send("PATCH", &path, Some(json!({ "title": "B" }))).await;
        let deleted = node.send("DELETE", &path, None).await;
        let list = node.send("POST", "/boards/board-1/lists", Some(json!({ "title": "L" }))).await;
        let events = stream.events(5).await;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(
            kinds,
            ["task_created", "task_moved", "task_updated", "task_deleted", "list_created"]
        );
        let positions = [moved.position(), renamed.position(), deleted.position(), list.position()];
        assert_eq!(events[0].id, position);
        for (event, position) in events[1..].iter().zip(positions) {
            assert_eq!(event.id, position);
        }
        assert_eq!(events.iter().map(|e| e.seq()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(events[0].json(), json!({ "task": task }));
        assert_eq!(events[1].json(), json!({ "task": moved.body, "fromListId": "list-todo" }));
        assert_eq!(events[2].json(), json!({ "task": renamed.body }));
        assert_eq!(events[3].json(), json!({ "taskId": id, "boardId": "board-1" }));
        assert_eq!(events[4].json(), json!({ "list": list.body }));
    }

    async fn a_page_can_have_its_opening_and_its_heartbeats_as_events(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "200ms")]).await;
        for topics in ["/topics/t/events?", "/events?topics=t,u&"] {
            let path = format!("{topics}connected=event&heartbeat=event");
            let mut stream = Stream::request(node.address, &path, "").await;
            let opened = stream.event().await;
            assert_eq!(opened.kind, "connected");
            assert_eq!(opened.json(), json!({ "type": "connected", "node": "node-1" }));
            for _ in 0..2 {
                let beat = stream.event().await;
                assert_eq!((beat.kind.as_str(), beat.json()), ("heartbeat", json!({})));
                assert_eq!(beat.id, opened.id);
            }
            assert!(stream.interpreter.comments.is_empty());
        }
        let refused = node.send("GET", "/topics/t/events?heartbeat=maybe", None).await;
        refused.problem(400);
    }

    async fn nobody_else_can_say_what_the_gateway_says(backend: Backend) {
        let node = backend.start(&[]).await;
        for kind in
            ["connected", "heartbeat", "reset", "snapshot", "goodbye", "end", "error", "open"]
        {
            let body = json!({ "event": kind, "data": 1 });
            node.send("POST", "/topics/t/events", Some(body)).await.problem(400);
        }
    }

    async fn names_in_any_script_resume_and_ids_are_ascii(backend: Backend) {
        let node = backend.start(&[]).await;
        let path = "/events?topics=caf%C3%A9,%E6%97%A5%E6%9C%AC,news";
        let mut stream = Stream::open(node.address, path).await;
        node.publish("caf%C3%A9", 1).await;
        let seen = stream.event().await;
        drop(stream);
        node.publish("%E6%97%A5%E6%9C%AC", 2).await;
        let mut resumed = Stream::open_from(node.address, path, &seen.id).await;
        assert_eq!(resumed.event().await.json(), json!(2));
        // One that lost its end, or a letter, on the way is told for each topic.
        for changed in [&seen.id[..seen.id.len() - 9], &seen.id.replacen("news", "nws", 1)] {
            let mut resumed = Stream::open_from(node.address, path, changed).await;
            for reset in resumed.events(3).await {
                assert_eq!(reset.kind, "reset");
                assert_eq!(reset.json()["reason"], "unreadable");
            }
        }
    }

    async fn json_has_no_character_that_a_reader_could_take_for_the_end_of_a_line(
        backend: Backend
    ) {
        let node = backend.start(&[]).await;
        let mut stream = Stream::open(node.address, "/topics/t/events").await;
        let text = "a\u{85}b\u{2028}c\u{2029}d";
        node.publish("t", json!({ "text": text })).await;
        let event = stream.event().await;
        assert_eq!(event.json(), json!({ "text": text }));
        assert!(event.data.is_ascii(), "{:?}", event.data);
        // Text is left as it is.
        node.publish("t", text).await;
        assert_eq!(stream.event().await.data, text);
        let mut board = Stream::open(node.address, "/boards/board-1/events").await;
        node.create("x\u{2028}y", "list-todo").await;
        let created = board.event().await;
        assert_eq!(created.json()["task"]["title"], "x\u{2028}y");
        assert!(created.data.is_ascii(), "{:?}", created.data);
        let path = "/boards/board-1/events?snapshot=true";
        let snapshot = Stream::open(node.address, path).await.event().await;
        assert!(snapshot.data.is_ascii(), "{:?}", snapshot.data);
    }

    async fn heartbeats_are_comments_and_come_only_in_silence(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "800ms")]).await;
        let silence = async {
            let mut quiet = Stream::open(node.address, "/topics/quiet/events").await;
            while quiet.interpreter.comments.len() < 2 {
                assert!(quiet.more().await);
            }
            assert!(quiet.interpreter.comments.iter().all(|comment| comment == "heartbeat"));
            assert!(quiet.interpreter.events.is_empty());
            // A blank line after a heartbeat would have been an empty event to some clients.
            let raw = Stream::raw_bytes_of_a_silent_stream(node.address).await;
            assert!(raw.ends_with(": heartbeat\n: heartbeat\n"), "{raw:?}");
        };
        let events = async {
            let mut busy = Stream::open(node.address, "/topics/busy/events").await;
            // Two heartbeats long an event every 25 ms. A machine that stands still for half a
            // heartbeat makes a silence of its own, and the attempt says nothing.
            for _ in 0..20 {
                busy.interpreter.comments.clear();
                let mut longest = Duration::ZERO;
                let began_at = Instant::now();
                let mut last = began_at;
                while began_at.elapsed() < Duration::from_millis(1_700) {
                    node.publish("busy", "event").await;
                    busy.event().await;
                    tokio::time::sleep(Duration::from_millis(25)).await;
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                if longest < Duration::from_millis(400) {
                    assert_eq!(busy.interpreter.comments, Vec::<String>::new());
                    return;
                }
            }
            panic!("the machine never went on for 1.7 s without standing still for 400 ms");
        };
        tokio::join!(silence, events);
    }

    async fn a_snapshot_opens_the_board_and_changes_follow_it(backend: Backend) {
        let node = backend.start(&[]).await;
        let (task, position) = node.create("A", "list-todo").await;
        let path = "/boards/board-1/events?snapshot=true";
        let mut stream = Stream::open(node.address, path).await;
        assert_eq!(seq(stream.last_event_id()), 0, "a drop before the snapshot brings a new one");
        let snapshot = stream.event().await;
        assert_eq!(snapshot.kind, "snapshot");
        assert_eq!(snapshot.id, position);
        assert_eq!(snapshot.json(), node.get("/boards/board-1").await);
        assert_eq!(snapshot.json()["lists"][0]["tasks"][0], task);
        let (_, position) = node.create("B", "list-todo").await;
        assert_eq!(stream.event().await.id, position);

        // Who dropped before the snapshot gets one; who has one gets what it missed.
        let hello = format!("0-{}", epoch(&position));
        let mut again = Stream::open_from(node.address, path, &hello).await;
        assert_eq!(again.event().await.kind, "snapshot");
        let mut resumed = Stream::open_from(node.address, path, &snapshot.id).await;
        assert_eq!(resumed.event().await.id, position);
    }

    async fn several_boards_and_topics_come_over_one_connection(backend: Backend) {
        let node = backend.start(&[]).await;
        let board = json!({ "id": "b2", "name": "Two", "lists": [{ "id": "l2", "title": "L" }] });
        assert_eq!(node.send("POST", "/boards", Some(board)).await.status, 201);
        let path = "/events?boards=board-1,b2&topics=news";
        let mut stream = Stream::open(node.address, path).await;
        let (_, first) = node.create("A", "list-todo").await;
        let one = stream.event().await;
        let (_, second) = node.create("B", "l2").await;
        let two = stream.event().await;
        let third = node.publish("news", "hello").await;
        let three = stream.event().await;
        assert_eq!(three.data, "hello");
        let (positions, check_digits) = three.id.rsplit_once('~').unwrap();
        assert_eq!(positions, format!("board-1:{first},b2:{second},news:{third}"));
        assert_eq!(check_digits.len(), 6);

        // From the middle, everything after it and nothing else, topic by topic.
        let mut resumed = Stream::open_from(node.address, path, &one.id).await;
        assert_eq!(resumed.last_event_id(), one.id);
        let mut events = resumed.events(2).await;
        events.sort_by_key(|event| event.kind.clone());
        assert_eq!(events[0].data, three.data);
        assert_eq!(events[1].data, two.data);
        assert_eq!(resumed.last_event_id(), three.id);
        resumed.silent_for(Duration::from_millis(200)).await;
    }

    async fn one_topic_named_twice_is_sent_once(backend: Backend) {
        let node = backend.start(&[]).await;
        let path = "/events?boards=board-1,board-1&topics=board-1";
        let mut stream = Stream::open(node.address, path).await;
        let (_, position) = node.create("A", "list-todo").await;
        assert_eq!(stream.event().await.id, position);
        stream.silent_for(Duration::from_millis(200)).await;
    }

    async fn from_earliest_begins_with_the_oldest_entry(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "5")]).await;
        for n in 1..=8 {
            node.publish("t", n).await;
        }
        let mut stream = Stream::open(node.address, "/topics/t/events?from=earliest").await;
        let events = stream.events(5).await;
        assert_eq!(events.iter().map(|e| e.seq()).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
        assert!(events.iter().all(|event| event.kind == "message"), "{events:?}");
    }
}
