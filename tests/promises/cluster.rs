//! Several nodes over one Redis: no node knows more than another.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::process::{TempDir, free_port};
use crate::harness::reconnecting_client::ReconnectingClient;
use crate::harness::{Cluster, Node, Redis, Stream, seq, until};

#[tokio::test]
async fn what_one_node_is_told_every_node_tells_with_the_same_ids() {
    let cluster = Cluster::start(3, &[]).await;
    let path = "/boards/board-1/events";
    let mut streams = Vec::new();
    for node in &cluster.nodes {
        streams.push(Stream::open(node.address, path).await);
    }
    let mut positions = Vec::new();
    for n in 0..30 {
        let node = &cluster.nodes[n % 3];
        positions.push(node.create(&format!("task {n}"), "list-todo").await.1);
    }
    for stream in &mut streams {
        let ids: Vec<String> = stream.events(30).await.into_iter().map(|e| e.id).collect();
        assert_eq!(ids, positions);
        assert_eq!(stream.last_event_id(), positions[29]);
    }
    let boards: Vec<_> = futures_util::future::join_all(
        cluster.nodes.iter().map(|node| node.get("/boards/board-1")),
    )
    .await;
    assert!(boards.iter().all(|board| *board == boards[0]));
}

#[tokio::test]
async fn several_boards_on_one_connection_resume_on_another_node() {
    let cluster = Cluster::start(2, &[]).await;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let body = json!({ "id": "b2", "name": "Two", "lists": [{ "id": "l2", "title": "L" }] });
    a.send("POST", "/boards", Some(body)).await;
    let path = "/events?boards=board-1,b2&topics=news";
    let mut stream = Stream::open(a.address, path).await;
    b.create("one", "list-todo").await;
    b.create("two", "l2").await;
    stream.events(2).await;
    let left_at = stream.last_event_id().to_owned();
    drop(stream);
    a.create("three", "list-done").await;
    a.create("four", "l2").await;
    a.publish("news", "five").await;
    let mut resumed = Stream::open_from(b.address, path, &left_at).await;
    let mut told: Vec<String> = resumed
        .events(3)
        .await
        .iter()
        .map(|event| match event.kind.as_str() {
            "message" => event.data.clone(),
            _ => event.json()["task"]["title"].as_str().unwrap().to_owned(),
        })
        .collect();
    told.sort();
    assert_eq!(told, ["five", "four", "three"]);
    resumed.silent_for(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_task_can_be_changed_through_any_node() {
    let cluster = Cluster::start(3, &[]).await;
    let [a, b, c] = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[2]];
    let (task, _) = a.create("task", "list-todo").await;
    let id = task["id"].as_str().unwrap();
    b.move_to(id, "list-doing", None).await;
    let path = format!("/tasks/{id}");
    let renamed = c.send("PATCH", &path, Some(json!({ "title": "renamed" }))).await;
    assert_eq!(renamed.body["listId"], "list-doing");
    assert_eq!(a.send("DELETE", &path, None).await.status, 204);
    assert_eq!(b.send("DELETE", &path, None).await.problem(404), "no-such-task");
}

#[tokio::test]
async fn nodes_that_write_the_same_board_at_once_agree() {
    let cluster = Cluster::start(3, &[]).await;
    let mut stream = Stream::open(cluster.nodes[0].address, "/boards/board-1/events").await;
    let writers = cluster.nodes.iter().enumerate().map(|(n, node)| async move {
        for k in 0..40 {
            let (task, _) = node.create(&format!("{n}-{k}"), "list-todo").await;
            let list = ["list-todo", "list-doing", "list-done"][k % 3];
            node.move_to(task["id"].as_str().unwrap(), list, Some(k % 4)).await;
        }
    });
    futures_util::future::join_all(writers).await;
    // A view made of events alone is the board.
    let mut view = vec![Vec::<String>::new(); 3];
    let lists = ["list-todo", "list-doing", "list-done"];
    for event in stream.events(240).await {
        let task = event.json()["task"].clone();
        let id = task["id"].as_str().unwrap();
        for order in &mut view {
            order.retain(|task| task != id);
        }
        let list = lists.iter().position(|list| task["listId"] == *list).unwrap();
        view[list].insert(task["index"].as_u64().unwrap() as usize, id.to_owned());
    }
    for node in &cluster.nodes {
        let board = node.get("/boards/board-1").await;
        for (n, order) in view.iter().enumerate() {
            let tasks = board["lists"][n]["tasks"].as_array().unwrap();
            let ids: Vec<_> = tasks.iter().map(|task| task["id"].as_str().unwrap()).collect();
            assert_eq!(ids, *order);
        }
        assert_eq!(seq(board["lastEventId"].as_str().unwrap()), 240);
    }
}

#[tokio::test]
async fn connections_are_counted_over_all_nodes_and_go_back_to_zero() {
    let cluster = Cluster::start(3, &[]).await;
    let mut streams = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        for _ in 0..=n {
            streams.push(Stream::open(node.address, "/boards/board-1/events").await);
        }
    }
    let path = "/events?boards=board-1&topics=news";
    streams.push(Stream::open(cluster.nodes[0].address, path).await);
    let counted = |total: u64, board: u64, topics: serde_json::Value| {
        let nodes = &cluster.nodes;
        async move {
            until(&format!("{total} streams are counted on every node"), async || {
                for node in nodes {
                    let counts = node.get("/admin/connections").await;
                    let right = counts["total"] == total
                        && counts["boards"]["board-1"].as_u64().unwrap_or(0) == board
                        && counts["topics"] == topics
                        && counts["complete"] == true
                        && counts["nodes"].as_object().unwrap().len() == 3;
                    if !right {
                        return None;
                    }
                }
                Some(())
            })
            .await;
        }
    };
    counted(7, 7, json!({ "news": 1 })).await;
    let counts = cluster.nodes[2].get("/admin/connections").await;
    assert_eq!(counts["nodes"]["node-1"]["total"], 2);
    assert_eq!(counts["nodes"]["node-3"]["boards"]["board-1"], 3);
    streams.clear();
    counted(0, 0, json!({})).await;
}

#[tokio::test]
async fn connections_are_counted_anew_after_redis_lost_everything() {
    let cluster = Cluster::start(2, &[]).await;
    let open = async |node: usize, topic: &str| {
        Stream::open(cluster.nodes[node].address, &format!("/topics/{topic}/events")).await
    };
    let counted = async |topics: serde_json::Value| {
        until(&format!("{topics} is counted on every node"), async || {
            for node in &cluster.nodes {
                let counts = node.get("/admin/connections").await;
                if counts["topics"] != topics || counts["complete"] != true {
                    return None;
                }
            }
            Some(())
        })
        .await;
    };
    let _first = [open(0, "a").await, open(0, "b").await, open(1, "a").await];
    counted(json!({ "a": 2, "b": 1 })).await;
    let _: String = cluster.redis.ask(&["FLUSHALL"]).await;
    let _second = open(0, "c").await;
    counted(json!({ "a": 2, "b": 1, "c": 1 })).await;
}

#[tokio::test]
async fn a_killed_nodes_clients_go_on_elsewhere_and_lose_nothing() {
    let mut cluster = Cluster::start(3, &[("FANTAIL_RETRY", "50ms")]).await;
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
    let clients: Vec<ReconnectingClient> = (0..12)
        .map(|n| {
            ReconnectingClient::start(
                addresses.clone(),
                n % 3,
                "/topics/t/events?from=earliest",
                1.0,
            )
        })
        .collect();
    for n in 0..100 {
        if n == 30 {
            cluster.nodes[1].process.kill();
        }
        let node = &cluster.nodes[if n % 2 == 0 { 0 } else { 2 }];
        node.publish("t", n).await;
    }
    for (n, client) in clients.iter().enumerate() {
        until(&format!("subscriber {n} has everything"), async || {
            (client.count() >= 100).then_some(())
        })
        .await;
        client.assert_complete(1, 100);
    }
    // A dead node is no longer counted.
    until("two nodes are left", async || {
        let counts = cluster.nodes[0].get("/admin/connections").await;
        (counts["nodes"].as_object().unwrap().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_installations_share_a_redis_by_prefix() {
    let cluster = Cluster::start(1, &[]).await;
    let settings = [("FANTAIL_REDIS_PREFIX", "other")];
    cluster.redis.allow_prefix("other").await;
    let other = Node::start("other", Some(&cluster.redis), &settings).await;
    let mut stream = Stream::open(other.address, "/boards/board-1/events").await;
    cluster.nodes[0].create("mine", "list-todo").await;
    let (task, position) = other.create("theirs", "list-todo").await;
    assert_eq!(task["id"], "task-1");
    assert_eq!(stream.event().await.id, position);
    let nodes = other.get("/admin/connections").await["nodes"].clone();
    assert_eq!(nodes.as_object().unwrap().keys().collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn announcements_that_never_came_are_read_from_the_log() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    let first = node.publish("t", 0).await;
    let mut stream = Stream::open_from(node.address, "/topics/t/events", &first).await;
    let epoch = crate::harness::epoch(&first).to_owned();
    // Entries that nobody announces: as if pub/sub had lost them.
    let silently = async |n: u64| {
        let rest = format!("data: {n}\n\n");
        let id = format!("{}-0", n + 1);
        cluster.redis.ask::<u64>(&["INCR", "fantail:{t}:seq"]).await;
        let fields = ["e", &epoch, "t", "0", "j", "1", "f", &rest];
        let command = [&["XADD", "fantail:{t}:log", &id][..], &fields].concat();
        cluster.redis.ask::<String>(&command).await;
    };
    silently(1).await;
    silently(2).await;
    // The next announced one reveals the gap …
    node.publish("t", 3).await;
    let told: Vec<String> = stream.events(3).await.into_iter().map(|e| e.data).collect();
    assert_eq!(told, ["1", "2", "3"]);
    assert!(node.metric("fantail_gaps_total", "announcement").await >= 1.0);
    // … and the audit finds one that has no successor.
    silently(4).await;
    assert_eq!(stream.event().await.data, "4");
    assert!(node.metric("fantail_gaps_total", "audit").await >= 1.0);
    assert!(node.metric("fantail_gap_entries_repaired_total", "").await >= 3.0);
}

#[tokio::test]
async fn entries_are_heard_and_not_left_to_an_audit_also_after_a_reconnect() {
    let cluster = Cluster::start(2, &[]).await;
    let [a, b] = [&cluster.nodes[0], &cluster.nodes[1]];
    let mut stream = Stream::open(a.address, "/topics/t/events").await;
    let mut hear = async || {
        let before = a.metric("fantail_gaps_total", "audit").await;
        for n in 0..5 {
            let id = b.publish("t", n).await;
            assert_eq!(stream.event().await.id, id);
        }
        // An audit may ask between an entry and its announcement, but hardly more than once; what
        // is not announced is all found by audits.
        let found = a.metric("fantail_gaps_total", "audit").await - before;
        assert!(found <= 2.0, "{found} of 5 entries were not heard");
    };
    hear().await;
    let _: u64 = cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until("the node hears again", async || {
        (a.metric("fantail_redis_reconnects_total", "").await >= 1.0).then_some(())
    })
    .await;
    hear().await;
}

#[tokio::test]
async fn what_others_publish_on_our_channels_is_not_believed() {
    let cluster = Cluster::start(1, &[]).await;
    let node = &cluster.nodes[0];
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    for forged in ["", "nonsense", "7\nid: 9-zzzz\ndata: forged\n\n", "x\nid: 1-aaaa\n\n"] {
        cluster.redis.ask::<u64>(&["PUBLISH", "fantail:{t}", forged]).await;
    }
    let id = node.publish("t", "true").await;
    let event = stream.event().await;
    assert_eq!((event.data.as_str(), event.id), ("true", id));
    stream.silent_for(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn nodes_speak_tls_with_redis_and_trust_whom_the_system_trusts() {
    let dir = TempDir::new();
    let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).stderr(Stdio::null()).status();
        assert!(made.unwrap().success(), "openssl {arguments:?}");
    };
    let [ca, ca_key] = ["ca.pem", "ca.key"].map(file);
    let [certificate, key, request] = ["redis.pem", "redis.key", "redis.csr"].map(file);
    let name = ["-subj", "/CN=a test", "-newkey", "rsa:2048", "-nodes"];
    openssl(
        &[&["req", "-x509", "-days", "2", "-keyout", &ca_key, "-out", &ca], &name[..]].concat(),
    );
    openssl(&[&["req", "-keyout", &key, "-out", &request], &name[..]].concat());
    let extensions = file("extensions");
    std::fs::write(&extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &extensions,
        "-out",
        &certificate,
    ]);
    let tls_port = free_port();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "hunter2",
    ])
    .await;
    let url = format!("rediss://:hunter2@localhost:{tls_port}/3");
    let trusting = [("SSL_CERT_FILE", ca.as_str())];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &trusting).await;
    until("it is ready", async || {
        (node.send("GET", "/readyz", None).await.status == 200).then_some(())
    })
    .await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    let id = node.publish("t", "over TLS").await;
    assert_eq!(stream.event().await.id, id);

    let strict = Node::start_at("node-2", "127.0.0.1:0", Some(&url), &[]).await;
    until("it says why it does not trust this Redis", async || {
        let log = strict.log();
        log.iter().any(|line| line.contains("certificate")).then_some(())
    })
    .await;
    assert_eq!(strict.send("GET", "/readyz", None).await.status, 503);
}
