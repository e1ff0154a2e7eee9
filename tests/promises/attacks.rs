//! Attacks, each with the tests that hold it to its bound: what somebody can do who is nobody, or has
//! no more than a token for one topic, and what it may cost the others. [`ATTACKS`] says where; here are
//! those that have no better place.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::tokens::{SECRET, Signer};
use crate::harness::{Api, Backend, Node, Redis, Stream, until};

/// What is tried, and the tests that show what becomes of it, as `<file>::<test>`. Files are those
/// beside this one, or below `src`.
const ATTACKS: &[(&str, &[&str])] = &[
    (
        "names, parameters, headers and paths as long as a head may be: a millisecond a KiB",
        &[
            "get_costs.rs::large_and_odd_queries_cost_a_millisecond_a_kib_at_most_on_every_route",
            "get_costs.rs::large_and_odd_headers_cost_a_millisecond_a_kib_at_most_on_every_route",
            "get_costs.rs::long_and_odd_paths_cost_a_millisecond_a_kib_at_most",
            "requests.rs::no_request_costs_more_than_in_proportion_to_its_length",
        ],
    ),
    (
        "boards, lists, pages and replays that are asked for and not read: the budget, in all",
        &[
            "unread_answers.rs::lists_of_boards_that_nobody_reads_are_bounded_in_all",
            "unread_answers.rs::pages_of_history_and_replays_that_nobody_reads_are_bounded_in_all",
            "unread_answers.rs::what_operators_are_answered_and_do_not_read_is_bounded_in_all",
            "slow.rs::a_client_that_never_reads_again_is_given_up",
        ],
    ),
    (
        "a few bytes now and then, to outlive the write timeout: others are served within 15 s",
        &[
            "trickle.rs::readers_of_large_entries_that_trickle_do_not_starve_the_others",
            "trickle.rs::nor_do_they_where_the_http_server_carries_them",
            "trickle.rs::readers_of_a_large_board_that_trickle_do_not_starve_the_others",
        ],
    ),
    (
        "the same answer asked for by very many: made once for those who wait together",
        &[
            "src/replay/shared.rs::who_asks_together_has_one_answer_as_new_as_the_question_and_leaves_none_behind",
            "attacks.rs::an_answer_that_very_many_ask_for_at_once_is_made_a_few_times",
        ],
    ),
    (
        "ever new names: in Redis one small key a hash slot at most, so many a client in the node",
        &[
            "watching.rs::whoever_watches_leaves_nothing_in_redis",
            "bad_input.rs::asking_for_boards_that_are_none_leaves_nothing_in_redis",
            "limits.rs::ever_new_names_from_one_address_are_bounded_and_others_do_not_notice",
            "attacks.rs::whoever_has_no_token_leaves_nothing_in_redis_whatever_they_ask_for",
        ],
    ),
    (
        "any web site, with a node on this machine: nothing, read or write",
        &[
            "hostile_pages.rs::a_page_of_another_origin_gets_nothing_read_or_write",
            "hostile_pages.rs::a_page_whose_name_leads_to_the_node_gets_nothing_read_or_write",
            "door.rs::a_node_for_its_own_machine_answers_to_no_name_that_somebody_else_can_have",
            "door.rs::a_page_of_another_origin_writes_nothing_whatever_it_sends",
            "door.rs::a_preflight_is_answered_for_listed_origins_alone_and_reflects_nothing",
        ],
    ),
    (
        "one large entry in each of many watched topics: tails and the embedded log have a sum",
        &[
            "src/hub/tests.rs::all_tails_together_stay_within_their_bound",
            "src/log/memory/topics.rs::the_bound_holds_when_every_topic_is_watched_and_has_one_entry",
            "src/log/memory/topics.rs::more_watched_topics_than_fit_are_not_looked_at_each_time",
        ],
    ),
    (
        "all sockets of a node, held by few: so many an address, idle ones go, health is answered",
        &[
            "client_address.rs::an_address_has_as_many_sockets_as_it_may_and_the_machine_itself_any",
            "surroundings.rs::health_checks_and_publishers_find_a_place_whatever_others_do_with_theirs",
            "surroundings.rs::connections_that_ask_for_nothing_any_more_end_sooner_as_places_run_out",
            "slow.rs::who_opens_a_socket_and_says_nothing_is_shown_out",
        ],
    ),
    (
        "very many watched topics: so many a node and an address; nobody's question counts them",
        &[
            "limits.rs::a_node_follows_as_many_topics_as_it_may",
            "limits.rs::the_streams_of_one_address_follow_as_many_topics_as_they_may",
            "attacks.rs::what_operators_ask_costs_no_more_where_there_are_many_topics",
        ],
    ),
    (
        "reports of many long names, for Redis to write to its disk: nothing while nothing changes",
        &["src/stats/tests.rs::a_node_tells_what_changed_and_nothing_when_it_is_idle"],
    ),
    (
        "types that browsers and pages take for the gateway's own: reserved, however they are spelt",
        &[
            "wire.rs::nobody_else_can_say_what_the_gateway_says",
            "topics.rs::nobody_forges_changes_of_a_board",
        ],
    ),
    (
        "streams that read nothing, to fill the kernel: what is not sent has a bound a socket",
        &["src/net/listener.rs::accepted_sockets_inherit_what_they_are_held_to"],
    ),
    (
        "Redis' password and words: in no log, error or answer",
        &[
            "redis_refusals.rs::a_url_that_cannot_be_is_refused_at_the_start_without_its_secrets",
            "redis_refusals.rs::what_redis_says_goes_to_the_log_and_not_to_strangers",
            "redis_identity.rs::a_redis_that_repeats_what_it_was_told_does_not_get_the_password_into_the_log",
            "secrets.rs::no_token_cookie_or_ticket_is_in_any_log_line_metric_or_error",
        ],
    ),
    (
        "what is for operators, asked for by others",
        &[
            "operators_door.rs::operators_have_a_door_of_their_own_and_nothing_else_is_behind_it",
            "access/routes.rs::every_route_needs_a_token_and_a_grant",
        ],
    ),
    (
        "nonsense under a topic's keys: no loop without a wait",
        &["corrupt_logs.rs::there_is_no_loop_without_a_wait_whatever_a_log_says"],
    ),
    (
        "names that no path can name, no host and two, half-closed sockets: the same on every road",
        &[
            "requests.rs::names_that_no_path_can_name_are_refused",
            "requests.rs::a_request_says_once_which_host_it_is_for",
            "half_closed.rs::a_stream_goes_on_for_a_client_that_sends_no_more",
            "half_closed.rs::a_request_is_answered_to_a_client_that_sends_no_more",
        ],
    ),
    (
        "HTTP/2 frames that carry nothing, and streams that are reset at once",
        &[
            "http2.rs::a_connection_that_sends_too_many_frames_that_carry_nothing_is_ended",
            "http2.rs::streams_that_are_reset_at_once_end_their_connection_and_few_lines_say_so",
        ],
    ),
    (
        "bodies that do not end: 48 MiB in all, and small ones are taken meanwhile",
        &[
            "bad_input.rs::bodies_that_do_not_end_are_refused_together_and_small_ones_are_not",
            "attacks.rs::bodies_that_do_not_end_take_no_more_memory_than_all_bodies_may",
        ],
    ),
    (
        "JSON that is very deep: as it was sent, or refused",
        &["attacks.rs::very_deep_json_is_relayed_as_it_was_sent_or_refused"],
    ),
    (
        "histories of large events: so many bytes a topic",
        &["history_in_bytes.rs::a_history_has_no_more_bytes_than_it_may_and_what_is_gone_is_told"],
    ),
    (
        "a stream of requests, events or waiting tokens by one client: rates",
        &[
            "limits.rs::a_client_asks_as_often_as_it_may_and_health_answers_always",
            "limits.rs::a_client_publishes_as_much_as_it_may_and_each_event_of_a_batch_counts",
            "access/keys.rs::whoever_waits_for_keys_was_counted_before",
        ],
    ),
];

#[test]
fn every_attack_has_tests_that_are_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (attack, tests) in ATTACKS {
        assert!(!tests.is_empty(), "{attack}");
        for test in *tests {
            let (file, name) = test.split_once("::").unwrap();
            let below =
                if file.starts_with("src/") { top.into() } else { top.join("tests/promises") };
            let text = std::fs::read_to_string(below.join(file)).unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{attack}: {test} is not there");
        }
    }
}

#[tokio::test]
async fn bodies_that_do_not_end_take_no_more_memory_than_all_bodies_may() {
    let node = Backend::Embedded.start(&[]).await;
    let before = node.process.anonymous_kib();
    let head = "POST /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
    let mut bodies = JoinSet::new();
    for _ in 0..300 {
        let address = node.address;
        bodies.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            // All but the end. It may be refused meanwhile.
            let _ = socket.write_all(&vec![b' '; 1_048_575]).await;
            socket
        });
    }
    // While they come, and some are refused for which there is no room.
    let mut most = 0;
    until("some are refused", async || {
        most = most.max(node.process.anonymous_kib());
        let answers = node.metric("fantail_requests_total", "status=\"503\"").await;
        (answers >= 200.0).then_some(())
    })
    .await;
    let taken = most.saturating_sub(before);
    // The sum of large ones and of small ones, what each is read into, and what connections take.
    assert!(taken < (2 * 48 + 64) << 10, "{taken} KiB");
    drop(bodies.join_all().await);
    // As soon as the node has seen that they are gone.
    until("there is room again", async || {
        let large = json!({ "data": "x".repeat(1_000_000) });
        let answer = node.send("POST", "/topics/t/events", Some(large)).await;
        (answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn very_deep_json_is_relayed_as_it_was_sent_or_refused() {
    let node = Backend::Embedded.start(&[]).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    for depth in [100, 1_000, 120_000, 400_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!("{{\"data\":{deep}}}").into_bytes();
        let answer = node.raw("POST", "/topics/t/events", "application/json", body).await;
        match answer.status {
            201 => assert_eq!(stream.event().await.data, deep),
            400 => assert!(depth > 100, "{answer:?}"),
            _ => panic!("{depth}: {answer:?}"),
        }
    }
    let history = node.raw("GET", "/topics/t/history", "", Vec::new()).await;
    assert_eq!(history.status, 200);
    node.publish("t", "it is well").await;
    assert_eq!(stream.event().await.data, "it is well");
}

/// Keys of Redis but those by which nodes know of each other.
async fn keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    keys.retain(|key| !key.contains("node") && !key.contains("canary"));
    keys.sort();
    keys
}

#[tokio::test]
async fn whoever_has_no_token_leaves_nothing_in_redis_whatever_they_ask_for() {
    for anonymous in [None, Some(("FANTAIL_ANONYMOUS", "read"))] {
        let redis = Redis::start().await;
        let mut settings = vec![("FANTAIL_JWT_SECRET", SECRET)];
        settings.extend(anonymous);
        let node = Node::start("node-1", Some(&redis), &settings).await;
        let all = node.with_token(&Signer::with_secret("HS256", SECRET).everything());
        until("the first board is there", async || {
            (all.send("GET", "/boards/board-1", None).await.status == 200).then_some(())
        })
        .await;
        let before = keys(&redis).await;
        for n in 0..20 {
            let ticket = "0".repeat(64);
            let conditions =
                [("idempotency-key", "k"), ("if-match", "0-zzzz"), ("last-event-id", "7-zzzz")];
            for (method, path, body) in [
                ("GET", format!("/topics/a{n}/events"), None),
                ("HEAD", format!("/topics/b{n}/events"), None),
                ("GET", format!("/topics/c{n}/events?ticket={ticket}"), None),
                ("GET", format!("/topics/d{n}/events?from=earliest&snapshot=true"), None),
                ("GET", format!("/events?topics=e{n},f{n}&boards=g{n}"), None),
                ("GET", format!("/boards/h{n}/events?snapshot=true"), None),
                ("GET", format!("/boards/i{n}"), None),
                ("GET", format!("/topics/j{n}/history?after=5-zzzz"), None),
                ("POST", format!("/topics/k{n}/events"), Some(json!({ "data": 1 }))),
                ("POST", "/tasks".to_owned(), Some(json!({ "title": "x", "listId": "list-todo" }))),
                ("POST", "/boards".to_owned(), Some(json!({ "id": format!("l{n}"), "name": "x" }))),
                ("POST", "/tickets".to_owned(), None),
                ("POST", "/admin/revoke".to_owned(), Some(json!({ "subject": format!("m{n}") }))),
            ] {
                ask(&node, method, &path, &conditions, body).await;
            }
        }
        let mut new = keys(&redis).await;
        new.retain(|key| !before.contains(key));
        if anonymous.is_some() {
            // Who may read asks for topics: one of each hash slot, of 16,384 that there are.
            new.retain(|key| !key.ends_with(",}:births"));
        }
        assert!(new.is_empty(), "{anonymous:?}: {new:?}");
    }
}

/// Asks for something, and leaves again where that is a stream.
async fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) {
    if method == "GET" && path.contains("events") {
        let lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        Stream::request_with(node.address, path, &lines).await;
    } else {
        let answer = node.send_with(method, path, headers, body).await;
        assert!(method == "GET" || method == "HEAD" || answer.status >= 400, "{method} {path}");
    }
}

#[tokio::test]
async fn what_operators_ask_costs_no_more_where_there_are_many_topics() {
    let node = Backend::Embedded.start(&[]).await;
    let mut streams = Vec::new();
    let mut costs = Vec::new();
    for groups in [2, 200] {
        while streams.len() < groups {
            let names: Vec<String> = (0..100).map(|n| format!("{}-{n}", streams.len())).collect();
            let path = format!("/events?topics={}", names.join(","));
            streams.push(Stream::open(node.address, &path).await);
        }
        until("all are in the view", async || {
            let view = node.get("/admin/connections?limit=1").await;
            (view["total"] == groups).then_some(())
        })
        .await;
        // As little of what else the node does as can be: it has to do with topics, too.
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let before = node.process.processor_time();
            for _ in 0..100 {
                assert_eq!(node.send("GET", "/admin/connections", None).await.status, 200);
            }
            least = least.min(node.process.processor_time() - before);
        }
        costs.push(least);
    }
    // A tick of the clock more or less; a hundred times as many topics.
    let allowed = 3 * costs[0] + Duration::from_millis(100);
    assert!(costs[1] <= allowed, "{costs:?}");
}

#[tokio::test]
async fn an_answer_that_very_many_ask_for_at_once_is_made_a_few_times() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let api = Api::keeping_alive(&node.base);
    for n in 0..300 {
        let board = json!({ "id": format!("b{n}"), "name": "n".repeat(1_000) });
        assert_eq!(api.send("POST", "/boards", Some(board)).await.status, 201);
    }
    for n in 0..300 {
        node.publish("t", format!("{n}{}", "x".repeat(1_000))).await;
    }
    for (path, command, calls_of_one) in [
        // The name of each, and of the first board.
        ("/boards", "hget", 301),
        ("/topics/t/history?limit=200", "evalsha", 1),
        ("/boards/b7", "evalsha", 1),
    ] {
        let before = redis.calls(command).await;
        // All have asked before the first answer can be read.
        let mut asking = JoinSet::new();
        for _ in 0..200 {
            let address = node.address;
            asking.spawn(async move {
                let mut socket = TcpStream::connect(address).await.unwrap();
                let head =
                    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer).await.unwrap();
                answer
            });
        }
        let answers = asking.join_all().await;
        let made = (redis.calls(command).await - before) / calls_of_one;
        assert!(answers.iter().all(|answer| answer.starts_with(b"HTTP/1.1 200")), "{path}");
        let body = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer).into_owned();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert!(answers.iter().all(|answer| body(answer) == body(&answers[0])), "{path}");
        // Those that begin while another is being made wait for the next, and a busy machine has them
        // come one after the other.
        assert!((1..100).contains(&made), "{path}: {made} for 200");
    }
}
