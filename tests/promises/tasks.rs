//! The task board's API (`docs/api.md`).

use serde_json::{Value, json};

use crate::harness::{Api, Backend, on_both_logs, seq};

/// Titles of the tasks of each list, in order.
async fn titles(api: &Api, board: &str) -> Vec<Vec<String>> {
    let board = api.get(&format!("/boards/{board}")).await;
    let lists = board["lists"].as_array().unwrap();
    let titles = |list: &Value| {
        let tasks = list["tasks"].as_array().unwrap().iter().enumerate();
        tasks
            .map(|(index, task)| {
                assert_eq!(task["index"], index);
                assert_eq!(task["listId"], list["id"]);
                task["title"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    lists.iter().map(titles).collect()
}

on_both_logs! {
    async fn a_new_installation_has_a_board_so_that_the_first_curl_works(backend: Backend) {
        let node = backend.start(&[]).await;
        assert_eq!(node.get("/boards").await, json!([{ "id": "board-1", "name": "First board" }]));
        let board = node.get("/boards/board-1").await;
        let lists: Vec<&str> =
            board["lists"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap()).collect();
        assert_eq!(lists, ["list-todo", "list-doing", "list-done"]);
        assert_eq!(seq(board["lastEventId"].as_str().unwrap()), 0);
    }

    async fn a_task_has_the_fields_that_are_documented(backend: Backend) {
        let node = backend.start(&[]).await;
        let (task, position) = node.create("  Write \"docs\" \\ ☂ ", "list-todo").await;
        assert_eq!(task["id"], "task-1");
        assert_eq!(task["title"], "Write \"docs\" \\ ☂");
        assert_eq!(task["listId"], "list-todo");
        assert_eq!(task["boardId"], "board-1");
        assert_eq!(task["index"], 0);
        assert_eq!(task["createdAt"], task["updatedAt"]);
        let created: jiff::Timestamp = task["createdAt"].as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(created).abs();
        assert!(age < jiff::SignedDuration::from_secs(60), "{created}");
        assert_eq!(task.as_object().unwrap().len(), 7);
        assert_eq!(seq(&position), 1);
        let board = node.send("GET", "/boards/board-1", None).await;
        assert_eq!(board.body["lastEventId"], position);
        assert_eq!(board.position(), position);
    }

    async fn tasks_go_where_they_are_put(backend: Backend) {
        let node = backend.start(&[]).await;
        for title in ["a", "b", "c", "d"] {
            node.create(title, "list-todo").await;
        }
        for (task, list, index, expected) in [
            ("task-4", "list-todo", Some(0), ["dabc", "", ""]),
            ("task-4", "list-todo", Some(2), ["abdc", "", ""]),
            ("task-1", "list-todo", None, ["bdca", "", ""]),
            ("task-2", "list-doing", Some(7), ["dca", "b", ""]),
            ("task-3", "list-doing", Some(0), ["da", "cb", ""]),
            ("task-3", "list-doing", Some(1), ["da", "bc", ""]),
            ("task-3", "list-doing", Some(1), ["da", "bc", ""]),
            ("task-1", "list-done", Some(0), ["d", "bc", "a"]),
        ] {
            let moved = node.move_to(task, list, index).await.body;
            let lists = titles(&node, "board-1").await;
            let found: Vec<String> = lists.iter().map(|list| list.concat()).collect();
            assert_eq!(found, expected);
            assert_eq!(moved["listId"], list);
            let at = moved["index"].as_u64().unwrap() as usize;
            let n = ["list-todo", "list-doing", "list-done"].iter().position(|l| *l == list);
            assert_eq!(lists[n.unwrap()][at], moved["title"].as_str().unwrap());
        }
    }

    async fn deleted_tasks_are_gone(backend: Backend) {
        let node = backend.start(&[]).await;
        for title in ["a", "b", "c"] {
            node.create(title, "list-todo").await;
        }
        let deleted = node.send("DELETE", "/tasks/task-2", None).await;
        assert_eq!((deleted.status, seq(&deleted.position())), (204, 4));
        assert_eq!(titles(&node, "board-1").await[0], ["a", "c"]);
        for (method, path) in [("DELETE", "/tasks/task-2"), ("PATCH", "/tasks/task-2/move")] {
            let body = (method == "PATCH").then(|| json!({ "listId": "list-done" }));
            assert_eq!(node.send(method, path, body).await.problem(404), "no-such-task");
        }
        // Its number is not used again.
        assert_eq!(node.create("d", "list-todo").await.0["id"], "task-4");
    }

    async fn boards_and_lists_can_be_made_with_ids_or_get_them(backend: Backend) {
        let node = backend.start(&[]).await;
        let body = json!({ "name": "Zwei", "lists": [{ "title": "A" }, { "id": "köln", "title": "B" }] });
        let made = node.send("POST", "/boards", Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        let board = made.body["id"].as_str().unwrap().to_owned();
        assert_eq!(made.body, node.get(&format!("/boards/{board}")).await);
        assert_eq!(made.body["lastEventId"], made.position());
        let lists = made.body["lists"].as_array().unwrap();
        assert_eq!(lists[1]["id"], "köln");
        node.create("task", lists[0]["id"].as_str().unwrap()).await;
        node.create("task", "köln").await;

        let list = json!({ "id": "three", "title": "C" });
        let path = format!("/boards/{board}/lists");
        let made = node.send("POST", &path, Some(list.clone())).await;
        assert_eq!(made.status, 201);
        assert_eq!(made.body, json!({ "id": "three", "title": "C", "boardId": board }));
        node.create("task", "three").await;
        assert_eq!(node.send("POST", &path, Some(list)).await.problem(409), "list-exists");
        // Ids of lists are unique over all boards, since a task names its list alone.
        let taken = json!({ "id": "other", "name": "O", "lists": [{ "id": "köln", "title": "B" }] });
        assert_eq!(node.send("POST", "/boards", Some(taken)).await.problem(409), "list-exists");
        assert_eq!(node.send("GET", "/boards/other", None).await.problem(404), "no-such-board");
        let exists = json!({ "id": "board-1", "name": "again" });
        assert_eq!(node.send("POST", "/boards", Some(exists)).await.problem(409), "board-exists");
        let boards = node.get("/boards").await;
        assert_eq!(boards.as_array().unwrap().len(), 2, "{boards}");
        let missing = node.send("POST", "/boards/nope/lists", Some(json!({ "title": "x" }))).await;
        assert_eq!(missing.problem(404), "no-such-board");
    }

    async fn a_task_stays_on_its_board(backend: Backend) {
        let node = backend.start(&[]).await;
        let body = json!({ "id": "b2", "name": "Two", "lists": [{ "id": "l2", "title": "L" }] });
        node.send("POST", "/boards", Some(body)).await;
        node.create("a", "list-todo").await;
        let move_to = |list| Some(json!({ "listId": list }));
        let elsewhere = node.send("PATCH", "/tasks/task-1/move", move_to("l2")).await;
        assert_eq!(elsewhere.problem(409), "list-elsewhere");
        let nowhere = node.send("PATCH", "/tasks/task-1/move", move_to("l3")).await;
        assert_eq!(nowhere.problem(404), "no-such-list");
        assert_eq!(titles(&node, "board-1").await[0], ["a"]);
        assert_eq!(seq(node.get("/boards/board-1").await["lastEventId"].as_str().unwrap()), 1);
    }

    async fn boards_do_not_see_each_other(backend: Backend) {
        let node = backend.start(&[]).await;
        let body = json!({ "id": "b2", "name": "Two", "lists": [{ "id": "l2", "title": "L" }] });
        node.send("POST", "/boards", Some(body)).await;
        let mut one = crate::harness::Stream::open(node.address, "/boards/board-1/events").await;
        let mut two = crate::harness::Stream::open(node.address, "/boards/b2/events").await;
        for n in 0..20 {
            node.create(&format!("{n}"), if n % 2 == 0 { "list-todo" } else { "l2" }).await;
        }
        for (stream, board) in [(&mut one, "board-1"), (&mut two, "b2")] {
            for (n, event) in stream.events(10).await.iter().enumerate() {
                assert_eq!(event.json()["task"]["boardId"], board);
                assert_eq!(event.seq(), n as u64 + 1);
            }
        }
    }
}
