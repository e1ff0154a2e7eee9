//! How the index of boards is made from the boards, which are the truth: by one node at a time, which
//! goes through all of them, and again from the beginning if that one is cut off.

use std::time::Duration;

use super::super::RedisLog;
use super::super::replies::unexpected;
use super::super::scripts::{self, Call};
use crate::json::to_text as json;
use crate::log::LogError;
use crate::topic::Topic;

/// Numbers that are left out when the index was lost: they may have been given to somebody.
const NUMBERS_LEFT_OUT: u64 = 100;

/// How long a node that makes the index may say nothing.
const MAKER_LIFETIME: Duration = Duration::from_secs(3);

/// Keys that are looked at in one step of the way through all.
const SCAN_KEYS: usize = 1_000;

/// Boards that are gone through before their maker says again that it lives.
const BOARDS_BATCH: usize = 10;

impl RedisLog {
    /// Says that this node makes the index from now on, and returns the words by which it is known.
    ///
    /// # Errors
    /// Another one does.
    pub(in crate::log::redis) async fn begin_making(&self) -> Result<String, LogError> {
        let maker = format!("{:x}", fastrand::u128(..));
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(self.keys.shared("maker")).arg(&maker);
        pipe.arg("NX").arg("PX").arg(MAKER_LIFETIME.as_millis() as u64);
        let (set,): (Option<String>,) = self.commands.pipe("set", &pipe).await?;
        match set {
            Some(_) => Ok(maker),
            None => {
                let why = "another node goes through all boards to make their index";
                Err(LogError::Unavailable(why.to_owned()))
            }
        }
    }

    /// Says so again, for what takes long.
    ///
    /// # Errors
    /// It is another one by now.
    pub(in crate::log::redis) async fn go_on_making(&self, maker: &str) -> Result<(), LogError> {
        let mut pipe = redis::pipe();
        pipe.cmd("EVAL").arg(GO_ON_MAKING).arg(1).arg(self.keys.shared("maker")).arg(maker);
        pipe.arg(MAKER_LIFETIME.as_millis() as u64);
        let (is_ours,): (bool,) = self.commands.pipe("maker", &pipe).await?;
        match is_ours {
            true => Ok(()),
            false => Err(LogError::Unavailable("it took too long to make the index".to_owned())),
        }
    }

    /// Ends that. If this fails, it ends by itself some seconds later.
    pub(in crate::log::redis) async fn end_making(&self, maker: &str) {
        let mut pipe = redis::pipe();
        pipe.cmd("EVAL").arg(END_MAKING).arg(1).arg(self.keys.shared("maker")).arg(maker).ignore();
        let _: Result<(), LogError> = self.commands.pipe("maker", &pipe).await;
    }

    /// Goes through all boards and makes the index from them. Boards that an earlier version has made
    /// are moved; the first board's tasks may have numbers up to `last_task`.
    pub(in crate::log::redis) async fn make_index(
        &self,
        maker: &str,
        last_task: u64,
    ) -> Result<(), LogError> {
        tracing::info!("making the index of boards");
        let keys = ["boards", "board-seq", "list-seq"].map(|key| self.keys.shared(key));
        let begin = Call::new(&scripts::INDEX_BEGIN, &keys).arg(NUMBERS_LEFT_OUT);
        let reign: String = self.commands.call(begin).await?;
        let mut pipe = redis::pipe();
        for lists in self.keys.all_lists() {
            pipe.cmd("EVAL").arg(REIGN).arg(1).arg(lists);
        }
        let reigns: Vec<String> = self.commands.pipe("reign", &pipe).await?;
        let mut cursor = "0".to_owned();
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SCAN").arg(&cursor).arg("MATCH").arg(self.keys.all_states());
            pipe.arg("COUNT").arg(SCAN_KEYS);
            let ((next, keys),): ((String, Vec<String>),) =
                self.commands.pipe("scan", &pipe).await?;
            let boards = keys.iter().filter_map(|key| self.keys.topic_of_state(key));
            for (n, board) in boards.enumerate() {
                if n % BOARDS_BATCH == 0 {
                    self.go_on_making(maker).await?;
                }
                self.index_board(&board, last_task).await?;
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
            self.go_on_making(maker).await?;
        }
        // Boards of an earlier version whose own key was evicted. There are no others without it.
        let mut pipe = redis::pipe();
        pipe.cmd("HKEYS").arg(self.keys.shared("board-ids"));
        let (ids,): (Vec<String>,) = self.commands.pipe("hkeys", &pipe).await?;
        for board in ids.iter().filter_map(|id| Topic::new(id).ok()) {
            self.index_board(&board, last_task).await?;
        }
        let mut pipe = redis::pipe();
        for (lists, reign) in self.keys.all_lists().zip(&reigns) {
            pipe.cmd("EVAL").arg(IS_COMPLETE).arg(1).arg(lists).arg(reign).ignore();
        }
        let _: () = self.commands.pipe("complete", &pipe).await?;
        let end = Call::new(&scripts::INDEX_END, &[self.keys.shared("boards")]).arg(reign);
        let _: bool = self.commands.call(end).await?;
        Ok(())
    }

    /// Notes a board and its lists.
    async fn index_board(&self, board: &Topic, last_task: u64) -> Result<(), LogError> {
        let keys = ["boards", "board-seq"].map(|key| self.keys.shared(key));
        let number = async |known: &str| {
            let call = Call::new(&scripts::INDEX_BOARD, &keys).arg(board.as_str()).arg(known);
            self.commands.call::<String>(call).await
        };
        let read = async || {
            let mut pipe = redis::pipe();
            pipe.cmd("HMGET").arg(self.keys.state(board)).arg("no").arg("lists");
            let (fields,): ((Option<String>, Option<String>),) =
                self.commands.pipe("hmget", &pipe).await?;
            Ok::<_, LogError>(fields)
        };
        let (known, mut lists) = read().await?;
        match known {
            Some(known) => drop(number(&known).await?),
            None => {
                let number = number("").await?;
                self.move_board(board, &number, last_task).await?;
                lists = read().await?.1;
            }
        }
        let mut pipe = redis::pipe();
        for list in lists.iter().flat_map(|lists| lists.lines()) {
            if let Ok(list) = Topic::new(list) {
                // Claimed long ago.
                pipe.hset_nx(self.keys.lists(&list), list.as_str(), format!("{board} 0")).ignore();
            }
        }
        if pipe.is_empty() { Ok(()) } else { self.commands.pipe("hsetnx", &pipe).await }
    }

    /// Moves a board of an earlier version to where this one looks.
    async fn move_board(
        &self,
        board: &Topic,
        number: &str,
        last_task: u64,
    ) -> Result<(), LogError> {
        let old = self.keys.old_board(board);
        // Its lists can change between the two steps only if somebody does what nobody may.
        for _ in 0..3 {
            let mut pipe = redis::pipe();
            pipe.cmd("LRANGE").arg(&old.lists).arg(0).arg(-1).cmd("HKEYS").arg(&old.titles);
            let (mut lists, titles): (Vec<String>, Vec<String>) =
                self.commands.pipe("lrange", &pipe).await?;
            let others: Vec<String> =
                titles.into_iter().filter(|list| !lists.contains(list)).collect();
            lists.extend(others);
            let orders: Vec<String> = lists.iter().map(|list| old.order(list)).collect();
            let keys = [
                self.keys.meta(board),
                self.keys.state(board),
                self.keys.order(board),
                old.lists.clone(),
                old.titles.clone(),
                old.tasks.clone(),
            ];
            let mut call = Call::new(&scripts::BOARD_MOVE, &keys)
                .keys(&orders)
                .arg(number)
                .arg(last_task)
                .arg(json(&board.as_str()));
            for list in &lists {
                call = call.arg(list);
            }
            let answer: String = self.commands.call(call).await?;
            if answer != "lists" {
                return Ok(());
            }
        }
        Err(unexpected("the lists of a board"))
    }
}

/// Puts off the end of a node's time as the one that makes the index, if it still is.
const GO_ON_MAKING: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
                            return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// Ends a node's time as the one that makes the index, if it still is.
const END_MAKING: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// The replication id where a key lies.
const REIGN: &str = concat!(include_str!("../server.lua"), "return replication_id()");

/// Notes that a part of the lists is complete, unless another process took over meanwhile.
const IS_COMPLETE: &str = concat!(
    include_str!("../server.lua"),
    "if replication_id() == ARGV[1] then redis.call('HSET', KEYS[1], '', ARGV[1]) end"
);
