//! What the board tells is the same text on both logs, byte for byte, and the one that
//! [`Board`] writes: answers, events as they are stored and as they are announced, snapshots.
//!
//! On Redis a script fills in what only it knows; whatever titles and names look like, it must find
//! nothing else to fill in and spoil nothing.

use std::sync::Arc;
use std::time::Duration;

use fantail::board::{
    Board, BoardError, Boards, Change, ChangeError, Changed, Command, NewList, Title,
};
use fantail::config::RedisFiles;
use fantail::log::memory::MemoryLog;
use fantail::log::redis::RedisLog;
use fantail::log::{Conditions, Log, LogError, Notification, Notifications, Retention};
use fantail::topic::Topic;
use fantail::wire::sse;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::harness::{Redis, until};

/// How many commands each log carries out.
const COMMANDS: usize = 600;

const RETENTION: Retention = Retention {
    history_entries_max: 10,
    history_bytes_max: usize::MAX,
    history_ttl: Duration::from_secs(3600),
    idempotency_window: Duration::from_secs(60),
};

/// Lists that a command may name; the last is never made.
const LISTS: [&str; 5] = ["l", "\"\\u0001\"", "Köln\\", "l%1", "nowhere"];

#[derive(Debug, Clone)]
enum Step {
    Create { title: String, list: usize },
    Rename { task: usize, title: String },
    Move { task: usize, list: usize, index: Option<usize> },
    Delete { task: usize },
    List { title: String, list: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    // Titles that look like what scripts fill in, like patterns of Lua, like JSON and like SSE.
    let pieces = vec![
        "\"\\u0001\"",
        "\\u0003",
        "\"",
        "\\",
        "%1",
        "%",
        "$0",
        "{}",
        "data: ",
        "\u{2028}",
        "🂡",
        "é",
        "</script>",
        "\u{feff}",
        "0",
        " ",
    ];
    let pieces = proptest::collection::vec(proptest::sample::select(pieces), 1..12);
    let title = prop_oneof![
        3 => pieces.prop_map(|pieces| pieces.concat()),
        3 => "\\PC{1,40}",
        1 => Just("\"".repeat(1000)),
    ];
    let list = || 0..LISTS.len();
    let task = || 0..20_usize;
    let index = proptest::option::of(0..6_usize);
    prop_oneof![
        5 => (title.clone(), list()).prop_map(|(title, list)| Step::Create { title, list }),
        3 => (task(), title.clone()).prop_map(|(task, title)| Step::Rename { task, title }),
        6 => (task(), list(), index)
            .prop_map(|(task, list, index)| Step::Move { task, list, index }),
        2 => task().prop_map(|task| Step::Delete { task }),
        1 => (title, 0..LISTS.len() - 1).prop_map(|(title, list)| Step::List { title, list }),
    ]
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// One board in a log, and what it must be.
struct Pair<B> {
    log: Arc<B>,
    notifications: Notifications,
    board: Topic,
    model: Board,
    /// All that were ever made.
    tasks: Vec<Topic>,
}

impl<B: Log + Boards> Pair<B> {
    async fn new(log: Arc<B>, notifications: Notifications) -> Pair<B> {
        let board = topic("b\"\\u0002\"\\");
        let name = Title::new("\"\\u0001\" \\").unwrap();
        let lists = ["l", "\"\\u0001\""].map(|id| {
            let title = Title::new(&format!("{id}\\")).unwrap();
            NewList { id: Some(topic(id)), title }
        });
        let mut model = Board::new(board.clone(), name.clone());
        for list in &lists {
            model.create_list(list.id.clone().unwrap(), list.title.clone()).unwrap();
        }
        let command = Command::CreateBoard { id: Some(board.clone()), name, lists: lists.to_vec() };
        let made = until("the board is made", async || {
            match log.change(command.clone(), &Conditions::NONE).await {
                Err(ChangeError::Log(LogError::Unavailable(_))) => None,
                result => Some(result.unwrap()),
            }
        })
        .await;
        assert_eq!(made.answer, model.to_json(&made.position.to_string()));
        let subscribe = async || log.subscribe(std::slice::from_ref(&board)).await.ok();
        until("the board is subscribed", subscribe).await;
        Pair { log, notifications, board, model, tasks: Vec::new() }
    }

    async fn step(&mut self, n: usize, step: &Step) {
        let title = |text: &str| Title::new(text);
        let task = |n: &usize| match self.tasks.len() {
            0 => topic("task-0"),
            made => self.tasks[made - 1 - n % made].clone(),
        };
        let command = match step {
            Step::Create { title: text, list } => {
                let Ok(title) = title(text) else { return };
                Command::CreateTask { title, list: topic(LISTS[*list]) }
            }
            Step::Rename { task: n, title: text } => {
                let Ok(title) = title(text) else { return };
                Command::RenameTask { task: task(n), title }
            }
            Step::Move { task: n, list, index } => {
                Command::MoveTask { task: task(n), list: topic(LISTS[*list]), index: *index }
            }
            Step::Delete { task: n } => Command::DeleteTask { task: task(n) },
            Step::List { title: text, list } => {
                let Ok(title) = title(text) else { return };
                let list = NewList { id: Some(topic(LISTS[*list])), title };
                Command::CreateList { board: self.board.clone(), list }
            }
        };
        let key = format!("key-{n}").parse().unwrap();
        let conditions = Conditions { idempotency_key: Some(key), if_match: None };
        let changed = match self.log.change(command.clone(), &conditions).await {
            Ok(changed) => changed,
            Err(ChangeError::Refused(error)) => {
                assert_eq!(self.expected(&command, "", "").unwrap_err(), error, "{command:?}");
                return;
            }
            Err(error) => panic!("{command:?}: {error}"),
        };
        self.check(&command, &changed).await;
        if !matches!(command, Command::DeleteTask { .. }) {
            let again = self.log.change(command.clone(), &conditions).await.unwrap();
            assert!(again.replayed, "{command:?}");
            assert_eq!(again.answer, changed.answer, "{command:?}");
        }
        let snapshot = self.log.snapshot(&self.board).await.unwrap().unwrap();
        assert_eq!(snapshot.json, self.model.to_json(&snapshot.position.to_string()));
    }

    /// What a change must lead to, if it made a task of this id at this time.
    fn expected(&mut self, command: &Command, id: &str, now: &str) -> Result<Change, BoardError> {
        match command.clone() {
            Command::CreateTask { title, list } => {
                let id = if id.is_empty() { "task-?" } else { id };
                self.model.create_task(topic(id), title, list, now)
            }
            Command::RenameTask { task, title } => self.model.rename_task(&task, title, now),
            Command::MoveTask { task, list, index } => {
                self.model.move_task(&task, list, index, now)
            }
            Command::DeleteTask { task } => self.model.delete_task(&task),
            Command::CreateList { list, .. } => {
                self.model.create_list(list.id.unwrap(), list.title)
            }
            Command::CreateBoard { .. } => unreachable!("made once"),
        }
    }

    /// That a change that was carried out is told as it must be.
    async fn check(&mut self, command: &Command, changed: &Changed) {
        let answer: Value = serde_json::from_slice(&changed.answer).unwrap_or_default();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let expected = self.expected(command, &text("id"), &text("updatedAt")).unwrap();
        assert_eq!(changed.answer, expected.answer, "{command:?}");
        if matches!(command, Command::CreateTask { .. }) {
            self.tasks.push(topic(&text("id")));
        }
        let event_text = sse::event_text(&expected.event);
        let seq = changed.position.seq;
        let page = self.log.read(&self.board, seq - 1, seq).await.unwrap().unwrap();
        let [entry] = page.entries.as_slice() else { panic!("{command:?}: {page:?}") };
        assert!(entry.json && entry.position == changed.position, "{entry:?}");
        assert_eq!(entry.rest, event_text, "{command:?}");
        loop {
            match self.notifications.recv().await.expect("the log is there") {
                Notification::Entry(topic, frame) if frame.position == changed.position => {
                    assert_eq!(topic, self.board);
                    assert_eq!(frame.block(), sse::frame(entry).block(), "{command:?}");
                    return;
                }
                _ => {}
            }
        }
    }
}

async fn every_text_is_the_one_of_the_model<B: Log + Boards>(
    log: Arc<B>,
    notifications: Notifications,
) {
    let mut pair = Pair::new(log, notifications).await;
    let mut runner = TestRunner::default();
    for n in 0..COMMANDS {
        let step = any_step().new_tree(&mut runner).unwrap().current();
        pair.step(n, &step).await;
    }
    let head = pair.log.history(&pair.board).await.unwrap().unwrap().head;
    assert!(head > COMMANDS as u64 / 4, "hardly anything was carried out: {head}");
}

#[tokio::test]
async fn the_embedded_log_tells_of_a_board_what_the_board_says() {
    let (log, notifications) = MemoryLog::new(RETENTION);
    every_text_is_the_one_of_the_model(Arc::new(log), notifications).await;
}

#[tokio::test]
async fn scripts_tell_of_a_board_what_the_board_says() {
    let redis = Redis::start().await;
    let started = RedisLog::start(
        &redis.plain_url(),
        &RedisFiles::default(),
        "fantail",
        "node",
        RETENTION,
        0,
    );
    let (log, notifications) = started.unwrap();
    every_text_is_the_one_of_the_model(log, notifications).await;
}
