//! The demo: what its users see when nodes end and come back.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::files::top;
use crate::process::{exists, need, post, read_until, signal, until};
use crate::proxies::assert_told_to_come_back;
use crate::running_demo::Demo;

#[test]
fn nginx_accepts_its_configuration() {
    need(&["nginx", "openssl"]);
    let output = Command::new(top().join("deploy/demo.sh")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_demo_delivers_through_nginx_and_tells_streams_to_come_back_while_no_node_is_there() {
    need(&["redis-server", "nginx", "openssl", "curl"]);
    // What this test ends stays away until it asks.
    let mut demo = Demo::start(&[("FANTAIL_DEMO_RESTART", "60")]);
    let url = demo.http.clone();

    // A task arrives on a stream; both came through nginx.
    let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
    let head = read_until(&mut stream, "connected").await;
    let id = head.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let task = r#"{"title":"Through nginx","listId":"list-todo"}"#;
    assert_eq!(post(&url, "/tasks", task).await, 201);
    let entry = read_until(&mut stream, "Through nginx").await;
    assert!(entry.contains("event: task_created"), "{entry}");
    let mut curl = Command::new("curl");
    curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
    let output = curl.arg(format!("{}/boards/board-1", demo.https)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");

    // One node is lost: nobody who opens a stream notices.
    signal(demo.nodes[1], Signal::KILL);
    for _ in 0..6 {
        let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
        assert!(!read_until(&mut stream, "connected").await.contains("node-2"));
    }

    // All are lost: streams hear when to come back, writers hear the truth.
    for &node in &demo.nodes {
        signal(node, Signal::KILL);
    }
    until("the nodes are gone", async || !demo.nodes.iter().any(|&node| exists(node))).await;
    assert_told_to_come_back(&url).await;
    for path in ["/tasks", "/topics/news/events"] {
        assert_eq!(post(&url, path, r#"{"data":1}"#).await, 502, "{path}");
    }

    // They come back, and so does the stream: where it was.
    signal(demo.child.id(), Signal::USR1);
    for node in &demo.urls {
        until("all nodes are back", async || {
            reqwest::get(format!("{node}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
    let resumed = reqwest::Client::new()
        .get(format!("{url}/boards/board-1/events"))
        .header("Last-Event-ID", &id)
        .send();
    let replayed = read_until(&mut resumed.await.unwrap(), "Through nginx").await;
    assert!(!replayed.contains("event: reset"), "{replayed}");

    // New streams are spread over all of them, at once.
    let (mut streams, mut heads) = (Vec::new(), String::new());
    for _ in 0..9 {
        let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
        heads += &read_until(&mut stream, "connected").await;
        streams.push(stream);
    }
    for node in ["node-1", "node-2", "node-3"] {
        assert!(heads.matches(node).count() >= 2, "{node} gets no streams: {heads}");
    }

    // It ends, and leaves nothing behind.
    signal(demo.child.id(), Signal::TERM);
    let status = demo.ended_within(Duration::from_secs(10)).expect("the demo ends when told to");
    assert_eq!(status.code(), Some(143));
    assert!(!demo.directory.exists());
    assert!(!exists(demo.nginx) && !exists(demo.redis[0]), "the demo left processes behind");
}

#[tokio::test]
async fn a_node_of_the_demo_comes_back_however_it_ended() {
    need(&["redis-server", "nginx", "openssl"]);
    let settings =
        [("FANTAIL_DEMO_RESTART", "60"), ("FANTAIL_DRAIN", "10s"), ("FANTAIL_DEMO_NODES", "1")];
    let demo = Demo::start(&settings);
    let (node, pid) = (format!("{}/readyz", demo.urls[0]), demo.nodes[0]);
    let is_ready = async || reqwest::get(&node).await.is_ok_and(|answer| answer.status() == 200);

    // Wanted back while it drains, for which it has a stream.
    let mut stream = reqwest::get(format!("{}/boards/board-1/events", demo.urls[0])).await.unwrap();
    read_until(&mut stream, "connected").await;
    signal(pid, Signal::TERM);
    until("the node drains", async || !is_ready().await).await;
    assert!(exists(pid), "the drain is over before anybody could ask for the node");
    signal(demo.child.id(), Signal::USR1);
    until("the node is back after its drain", is_ready).await;
    assert!(!exists(pid));
}

#[tokio::test]
async fn what_ends_in_the_demo_is_started_again_by_itself() {
    need(&["redis-server", "nginx", "openssl"]);
    let demo = Demo::start(&[("FANTAIL_DEMO_RESTART", "1"), ("FANTAIL_DEMO_NODES", "1")]);
    for pid in [demo.nodes[0], demo.nginx, demo.redis[0]] {
        signal(pid, Signal::KILL);
    }
    let gone = [demo.nodes[0], demo.nginx, demo.redis[0]];
    until("they are gone", async || !gone.iter().any(|&pid| exists(pid))).await;
    let url = format!("{}/readyz", demo.http);
    until("they are back", async || {
        reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn what_the_demo_says_that_one_can_try_works_as_it_is_printed() {
    need(&["redis-server", "nginx", "openssl", "curl"]);
    let demo = Demo::start(&[("FANTAIL_DEMO_RESTART", "1")]);
    let said = |what: &str| {
        let line = demo.hints.iter().find_map(|line| line.trim_start().strip_prefix(what));
        line.unwrap_or_else(|| panic!("{what:?} is not among {:?}", demo.hints)).trim().to_owned()
    };
    let sh = |command: String| {
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };

    let boards = reqwest::get(said("The task board")).await.unwrap();
    assert!(boards.text().await.unwrap().contains("<title>Fantail</title>"));
    let (code, task) = sh(said("Post a task"));
    assert!(code == Some(0) && task.contains(r#""id":"task-1""#), "{task}");
    for watch in ["Watch a board", "over HTTP/2"] {
        // A stream has no end: enough is heard after its first event.
        let (_, heard) = sh(format!("{} | sed /connected/q", said(watch)));
        assert!(heard.contains(r#""type":"connected""#), "{watch}: {heard}");
    }
    let (code, verdict) = sh(said("Check its promises"));
    assert!(code == Some(0) && verdict.contains("KEPT"), "{verdict}");

    let node = format!("{}/readyz", demo.urls[1]);
    let is_ready = async || reqwest::get(&node).await.is_ok_and(|answer| answer.status() == 200);
    assert_eq!(sh(said("Drain a node")).0, Some(0));
    until("the node has ended", async || !exists(demo.nodes[1])).await;
    assert_eq!(sh(format!("kill -USR1 {}", said("kill -USR1"))).0, Some(0));
    until("the node is back", is_ready).await;
}

#[tokio::test]
async fn the_demo_with_sentinels_goes_on_when_it_loses_its_master_and_one_comes_back() {
    need(&["redis-server", "nginx", "openssl"]);
    let settings = [("FANTAIL_DEMO_RESTART", "1"), ("FANTAIL_DEMO_NODES", "2")];
    let mut demo = Demo::start_with(&["--sentinel"], &settings);
    assert_eq!((demo.redis.len(), demo.sentinels.len()), (3, 3));
    let mut stream = reqwest::get(format!("{}/topics/t/events", demo.http)).await.unwrap();
    read_until(&mut stream, "connected").await;
    assert_eq!(post(&demo.http, "/topics/t/events", r#"{"data":"before"}"#).await, 201);
    read_until(&mut stream, "before").await;
    signal(demo.redis[0], Signal::KILL);
    until("another master takes writes", async || {
        post(&demo.http, "/topics/t/events", r#"{"data":"after"}"#).await == 201
    })
    .await;
    let heard = read_until(&mut stream, "after").await;
    assert!(!heard.contains("event: reset"), "{heard}");
    signal(demo.child.id(), Signal::TERM);
    demo.ended_within(Duration::from_secs(10)).expect("the demo ends when told to");
    let left: Vec<_> =
        demo.redis.iter().chain(&demo.sentinels).filter(|&&pid| exists(pid)).collect();
    assert!(left.is_empty(), "the demo left processes behind: {left:?}");
}
