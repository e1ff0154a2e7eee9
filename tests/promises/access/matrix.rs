//! Grants × topics × roads: never one frame too many, and none too few.
//!
//! What a grant allows is told by the simplest model there is; every road is walked with it, against
//! a real node, and what comes back is what the model says.

mod over;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{bearer, keyed};
use crate::harness::tokens::Signer;
use crate::harness::{Api, Backend, Single, Stream, until};

/// Topics, and boards of which each has one list and one task.
const TOPICS: [&str; 5] = ["a", "ab", "abc", "b", "news"];
const BOARDS: [&str; 3] = ["board-1", "board-x", "ab-board"];

/// What stands in grants.
fn names() -> impl Strategy<Value = Vec<&'static str>> {
    let name = prop::sample::select(vec![
        "a", "ab", "abc", "b", "news", "none", "a*", "ab*", "abc*", "b*", "board-1", "board-x",
        "board-*", "ab-*", "ab-board", "*",
    ]);
    prop::collection::vec(name, 0..4)
}

/// What one token says.
#[derive(Debug, Clone)]
struct Case {
    subscribe: Vec<&'static str>,
    publish: Vec<&'static str>,
    read: Option<Vec<&'static str>>,
    change: Option<Vec<&'static str>>,
    admin: bool,
    /// Asked for together.
    several: Vec<&'static str>,
}

fn case() -> impl Strategy<Value = Case> {
    let everything: Vec<&str> = TOPICS.into_iter().chain(BOARDS).collect();
    let several = prop::sample::subsequence(everything, 1..5);
    let boards = || prop::option::of(names());
    (names(), names(), boards(), boards(), any::<bool>(), several).prop_map(
        |(subscribe, publish, read, change, admin, several)| Case {
            subscribe,
            publish,
            read,
            change,
            admin,
            several,
        },
    )
}

fn mean(names: &[&str], name: &str) -> bool {
    names.iter().any(|text| match text.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *text == name,
    })
}

impl Case {
    fn token(&self, signer: &Signer) -> String {
        signer.grant(self.grant())
    }

    fn grant(&self) -> Value {
        let mut grant = json!({
            "subscribe": self.subscribe, "publish": self.publish, "admin": self.admin,
        });
        if let Some(read) = &self.read {
            grant["boards"]["read"] = json!(read);
        }
        if let Some(change) = &self.change {
            grant["boards"]["change"] = json!(change);
        }
        grant
    }

    fn follows(&self, name: &str) -> bool {
        mean(&self.subscribe, name)
    }

    fn publishes(&self, name: &str) -> bool {
        mean(&self.publish, name)
    }

    fn reads(&self, board: &str) -> bool {
        mean(self.read.as_ref().unwrap_or(&self.subscribe), board)
    }

    fn changes(&self, board: &str) -> bool {
        mean(self.change.as_ref().unwrap_or(&self.publish), board)
    }
}

/// A node with something in each of its topics, and somebody who may do everything.
struct World {
    node: Single,
    signer: Signer,
    all: Api,
}

impl World {
    async fn new(backend: Backend) -> World {
        let (node, signer) = keyed(backend).await;
        let all = node.with_token(&signer.everything());
        until("the first board is there", async || {
            let board = all.send("GET", "/boards/board-1", None).await;
            (board.status == 200).then_some(())
        })
        .await;
        for board in &BOARDS[1..] {
            let list = json!([{ "id": format!("list-of-{board}"), "title": "List" }]);
            let board = json!({ "id": board, "name": board, "lists": list });
            assert_eq!(all.send("POST", "/boards", Some(board)).await.status, 201);
        }
        let list = json!({ "id": "list-of-board-1", "title": "List" });
        let made = all.send("POST", "/boards/board-1/lists", Some(list)).await;
        assert_eq!(made.status, 201);
        for name in TOPICS {
            all.publish(name, json!({ "of": name })).await;
        }
        for board in BOARDS {
            all.create(&format!("of {board}"), &format!("list-of-{board}")).await;
        }
        World { node, signer, all }
    }

    /// One stream: refused, or exactly what was asked for.
    async fn follow(&self, token: &str, path: &str, topics: &[&str], allowed: bool) {
        let mut stream = Stream::request_with(self.node.address, path, &[&bearer(token)]).await;
        assert_eq!(stream.status, if allowed { 200 } else { 403 }, "{path}: {}", stream.head);
        if !allowed {
            return;
        }
        // Something happens everywhere, then something of its own.
        for name in TOPICS {
            self.all.publish(name, json!({ "of": name })).await;
        }
        for board in BOARDS {
            self.all.publish(board, json!({ "of": board })).await;
        }
        let last = topics[topics.len() - 1];
        self.all.publish(last, json!({ "of": last, "last": true })).await;
        loop {
            let event = stream.event().await;
            if event.is_connected() {
                continue;
            }
            let said = event.json();
            // An event of ours, of a board, or a board itself.
            let of = [
                &said["of"],
                &said["task"]["boardId"],
                &said["list"]["boardId"],
                &said["boardId"],
                &said["id"],
            ]
            .into_iter()
            .find_map(Value::as_str)
            .unwrap_or_else(|| panic!("{path}: {event:?}"));
            assert!(topics.contains(&of), "{path} says something of {of}: {event:?}");
            if said["last"] == true {
                return;
            }
        }
    }

    async fn walk(&self, case: &Case) {
        let token = case.token(&self.signer);
        let api = self.node.with_token(&token);
        for name in TOPICS {
            let path = format!("/topics/{name}/events");
            self.follow(&token, &path, &[name], case.follows(name)).await;
            let replay = format!("{path}?from=earliest");
            self.follow(&token, &replay, &[name], case.follows(name)).await;
            let resumed = format!("{path}?lastEventId=0");
            self.follow(&token, &resumed, &[name], case.follows(name)).await;
            let history = api.send("GET", &format!("/topics/{name}/history"), None).await;
            assert_eq!(history.status, if case.follows(name) { 200 } else { 403 }, "{name}");
            self.publish(case, &api, name).await;
        }
        for board in BOARDS {
            let path = format!("/boards/{board}/events");
            self.follow(&token, &path, &[board], case.follows(board)).await;
            let as_topic = format!("/topics/{board}/events?from=earliest");
            self.follow(&token, &as_topic, &[board], case.follows(board)).await;
            let both = case.follows(board) && case.reads(board);
            self.follow(&token, &format!("{path}?snapshot=true"), &[board], both).await;
            let shown = api.send("GET", &format!("/boards/{board}"), None).await;
            assert_eq!(shown.status, if case.reads(board) { 200 } else { 403 }, "{board}");
            self.publish(case, &api, board).await;
            self.change(case, &api, board).await;
        }
        self.make_boards(case, &api).await;
        let listed = api.get("/boards").await;
        let listed: Vec<&str> =
            listed.as_array().unwrap().iter().map(|board| board["id"].as_str().unwrap()).collect();
        let all = self.all.get("/boards").await;
        let readable: Vec<&str> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|board| board["id"].as_str().unwrap())
            .filter(|board| case.reads(board))
            .collect();
        assert_eq!(listed, readable);
        self.follow_several(case, &token).await;
        for path in ["/admin/connections", "/admin/connections?topic=a", "/metrics"] {
            let told = api.send("GET", path, None).await;
            assert_eq!(told.status, if case.admin { 200 } else { 403 }, "{path}");
        }
    }

    /// Several topics at once, named as they come: all of them, or none.
    async fn follow_several(&self, case: &Case, token: &str) {
        let (boards, topics): (Vec<&str>, Vec<&str>) =
            case.several.iter().partition(|name| BOARDS.contains(name));
        let path = format!("/events?boards={}&topics={}", boards.join(","), topics.join(","));
        let refused = case.several.iter().filter(|name| !case.follows(name)).collect::<Vec<_>>();
        self.follow(token, &path, &case.several, refused.is_empty()).await;
        let answer = self.node.with_token(token);
        if !refused.is_empty() {
            let detail = answer.send("GET", &path, None).await.body["detail"].to_string();
            let named = refused.iter().any(|name| detail.contains(&format!(" {name}\"")));
            assert!(named, "{detail} names none of {refused:?}");
        }
        let path = format!("{path}&snapshot=true&from=earliest");
        let all = case.several.iter().all(|name| case.follows(name) && case.reads(name));
        self.follow(token, &path, &case.several, all).await;
    }

    /// What a refused write leaves as it was.
    async fn head(&self, topic: &str) -> Value {
        self.all.get(&format!("/topics/{topic}/history?limit=1")).await["head"].clone()
    }

    async fn publish(&self, case: &Case, api: &Api, name: &str) {
        let before = self.head(name).await;
        let path = format!("/topics/{name}/events");
        let status = if case.publishes(name) { 201 } else { 403 };
        let event = json!({ "data": { "of": name } });
        for body in [event.clone(), json!([event, event])] {
            let answer = api.send("POST", &path, Some(body)).await;
            assert_eq!(answer.status, status, "publishing to {name}: {answer:?}");
        }
        assert_eq!(self.head(name).await == before, !case.publishes(name), "{name}");
    }

    async fn change(&self, case: &Case, api: &Api, board: &str) {
        let list = format!("list-of-{board}");
        let (task, _) = self.all.create(&format!("of {board}"), &list).await;
        let task = task["id"].as_str().unwrap();
        let before = self.head(board).await;
        let allowed = case.changes(board);
        // What is named is not found by who may change boards, but may know nothing of this one.
        let changes_some = !case.change.as_ref().unwrap_or(&case.publish).is_empty();
        let refused = if changes_some && !case.reads(board) { 404 } else { 403 };
        for (method, path, body, good) in [
            ("POST", "/tasks".to_owned(), json!({ "title": "x", "listId": list }), 201),
            ("PATCH", format!("/tasks/{task}"), json!({ "title": "y" }), 200),
            ("PATCH", format!("/tasks/{task}/move"), json!({ "listId": list, "index": 0 }), 200),
            ("DELETE", format!("/tasks/{task}"), Value::Null, 204),
            ("POST", format!("/boards/{board}/lists"), json!({ "title": "L" }), 201),
        ] {
            let body = (body != Value::Null).then_some(body);
            let answer = api.send(method, &path, body).await;
            // A board has room for some lists only.
            let is_full = allowed && answer.status == 409 && path.ends_with("/lists");
            let is_named = !path.starts_with("/boards");
            let status = match allowed {
                true => good,
                false if is_named => refused,
                false => 403,
            };
            assert!(is_full || answer.status == status, "{method} {path}: {answer:?}");
        }
        assert_eq!(self.head(board).await == before, !allowed, "{board}");
    }

    async fn make_boards(&self, case: &Case, api: &Api) {
        let number = fastrand::u64(..);
        for id in [format!("board-made-{number}"), format!("ab-made-{number}")] {
            let made = api.send("POST", "/boards", Some(json!({ "id": id, "name": "B" }))).await;
            let status = if case.changes(&id) { 201 } else { 403 };
            assert_eq!(made.status, status, "{id}: {made:?}");
        }
        let made = api.send("POST", "/boards", Some(json!({ "name": "B" }))).await;
        // One whose id is not known before is made by who may make any of them.
        let any_id = (0..20).all(|_| case.changes(&format!("board-{}", fastrand::u64(2..))))
            && case.changes("board-");
        assert_eq!(made.status, if any_id { 201 } else { 403 }, "{made:?}");
    }
}

fn walk_with(backend: Backend, cases: u32, walk: impl AsyncFn(&World, &Case)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new(backend));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let walked = TestRunner::new(config).run(&case(), |case| {
        runtime.block_on(walk(&world, &case));
        Ok(())
    });
    // Prints the smallest case that goes wrong.
    walked.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async { drop(world) });
}

#[test]
fn a_grant_decides_on_every_road_of_an_embedded_log() {
    walk_with(Backend::Embedded, 48, World::walk);
}

#[test]
fn a_grant_decides_on_every_road_of_a_redis() {
    walk_with(Backend::Redis, 8, World::walk);
}
