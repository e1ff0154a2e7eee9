//! [`Layout`]: how keys are laid out, and how what an earlier version has left is moved to where this
//! one looks.
//!
//! Nothing is read or written before that is done. One node moves at a time, board by board, each in
//! one script. Each step may be done twice: whoever is cut off leaves what the next one goes on with.
//! What shows that there is something to move goes last.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::RedisLog;
use super::registry::STATS_LIFETIME;
use super::replies::unexpected;
use super::scripts::{self, Call};
use super::slots::SLOTS;
use crate::log::LogError;

/// How this version lays keys out. The one before it had no number.
const LAYOUT: &str = "2";

/// Slots that are written to in one batch.
const SLOTS_BATCH: u16 = 512;

/// Tasks that are looked at in one step.
const SCAN_TASKS: usize = 1_000;

/// Whether all keys are where this version looks for them.
#[derive(Default)]
pub(super) struct Layout {
    is_settled: AtomicBool,
    /// There are tasks of an earlier version whose ids do not say their board.
    has_old_tasks: AtomicBool,
    /// Held by whoever looks or moves.
    moving: Mutex<()>,
    /// Why this node cannot go on.
    refusal: OnceLock<String>,
}

/// What an earlier version has left.
struct Old {
    /// When Redis was found empty, if that is known; now; both in milliseconds since 1970.
    empty_since: String,
    now: String,
    reign: String,
    evicted: String,
    last_task: u64,
}

impl Layout {
    /// Why this node cannot go on, if it cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.get().cloned()
    }

    /// Whether there are tasks of an earlier version whose ids do not say their board.
    pub(super) fn has_old_tasks(&self) -> bool {
        self.has_old_tasks.load(Ordering::Relaxed)
    }

    fn refuse(&self, why: String) -> LogError {
        LogError::Unavailable(self.refusal.get_or_init(|| why).clone())
    }
}

impl RedisLog {
    /// Returns when all keys are where this version looks for them.
    ///
    /// # Errors
    /// Redis cannot be asked, another node is moving them, or nodes of an earlier version are alive.
    pub(super) async fn settled(&self) -> Result<(), LogError> {
        if self.layout.is_settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let _moving = self.layout.moving.lock().await;
        if !self.layout.is_settled.load(Ordering::Acquire) {
            self.settle().await?;
            self.layout.is_settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), LogError> {
        if self.find_old().await?.is_none() {
            return Ok(());
        }
        let maker = self.begin_making().await?;
        let moved = async {
            // Perhaps somebody else has just done it.
            match self.find_old().await? {
                Some(old) => self.move_all(&maker, &old).await,
                None => Ok(()),
            }
        };
        let moved = moved.await;
        self.end_making(&maker).await;
        moved
    }

    /// What an earlier version has left, if anything.
    async fn find_old(&self) -> Result<Option<Old>, LogError> {
        let keys = ["layout", "births", "stats", "boards", "board-ids", "task-seq", "tasks"];
        let call = Call::new(&scripts::LAYOUT, &keys.map(|key| self.keys.shared(key)))
            .arg(LAYOUT)
            .arg(STATS_LIFETIME.as_millis() as u64);
        let answer: Vec<String> = self.commands.call(call).await?;
        match &answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["settled", has_old_tasks] => {
                self.layout.has_old_tasks.store(*has_old_tasks == "1", Ordering::Relaxed);
                Ok(None)
            }
            ["later", layout] => Err(self.layout.refuse(format!(
                "the keys in Redis are of a later version (layout {layout}): start that one"
            ))),
            ["alive", nodes @ ..] => Err(self.layout.refuse(format!(
                "Redis has keys of an earlier version, whose nodes are still alive ({}): end them, \
                 and start this version when they are gone",
                nodes.join(", ")
            ))),
            ["old", empty_since, now, reign, evicted, last_task] => Ok(Some(Old {
                empty_since: (*empty_since).to_owned(),
                now: (*now).to_owned(),
                reign: (*reign).to_owned(),
                evicted: (*evicted).to_owned(),
                last_task: last_task.parse().unwrap_or(0),
            })),
            _ => Err(unexpected("a layout of keys")),
        }
    }

    async fn move_all(&self, maker: &str, old: &Old) -> Result<(), LogError> {
        tracing::info!("moving the keys of an earlier version");
        if !old.empty_since.is_empty() {
            self.move_births(maker, old).await?;
        }
        let boards = self.boards_of_old_tasks(maker).await?;
        let numbers =
            boards.keys().filter_map(|task| task.strip_prefix("task-")?.parse::<u64>().ok());
        let last_task = numbers.max().unwrap_or(0).max(old.last_task);
        self.make_index(maker, last_task).await?;
        // Those of the first board say it by their ids.
        let first = self.find_board(1).await?;
        let is_of_first =
            |board: &String| first.as_ref().is_some_and(|first| first.as_str() == board);
        let of_first = boards.into_iter().filter(|(_, board)| is_of_first(board));
        let of_first: Vec<String> = of_first.map(|(task, _)| task).collect();
        for tasks in of_first.chunks(SCAN_TASKS) {
            let mut pipe = redis::pipe();
            pipe.hdel(self.keys.shared("tasks"), tasks).ignore();
            let _: () = self.commands.pipe("move", &pipe).await?;
        }
        let keys = ["layout", "births", "lists", "board-ids", "task-seq", "stats"];
        let end = Call::new(&scripts::LAYOUT_END, &keys.map(|key| self.keys.shared(key)));
        let _: bool = self.commands.call(end.arg(LAYOUT)).await?;
        self.find_old().await.map(drop)
    }

    /// Writes for each slot what was known of all topics: when Redis was found empty, and that any log
    /// may have begun until now.
    async fn move_births(&self, maker: &str, old: &Old) -> Result<(), LogError> {
        for first in (0..SLOTS).step_by(usize::from(SLOTS_BATCH)) {
            let mut pipe = redis::pipe();
            for slot in first..first + SLOTS_BATCH {
                let births = self.keys.births_of(slot);
                for (field, value) in [
                    ("reign", &old.reign),
                    ("evicted", &old.evicted),
                    ("born", &old.now),
                    ("at", &old.empty_since),
                ] {
                    pipe.hset_nx(&births, field, value).ignore();
                }
            }
            let _: () = self.commands.pipe("move", &pipe).await?;
            self.go_on_making(maker).await?;
        }
        Ok(())
    }

    /// The boards of all tasks that an earlier version has made and nobody has deleted.
    async fn boards_of_old_tasks(&self, maker: &str) -> Result<HashMap<String, String>, LogError> {
        let mut boards = HashMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("HSCAN").arg(self.keys.shared("tasks")).arg(&cursor);
            pipe.arg("COUNT").arg(SCAN_TASKS);
            let ((next, found),): ((String, Vec<(String, String)>),) =
                self.commands.pipe("hscan", &pipe).await?;
            self.go_on_making(maker).await?;
            boards.extend(found);
            if next == "0" {
                return Ok(boards);
            }
            cursor = next;
        }
    }
}
