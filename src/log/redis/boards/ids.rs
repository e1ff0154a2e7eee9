//! Ids of tasks, lists and boards, which are unique over all boards, and where each leads.
//!
//! They are handed out before the board itself changes, under keys of their own: an id that is then
//! not used leads to a board that does not know it, which is the same as no id.

use super::super::RedisLog;
use super::super::replies::unexpected;
use super::super::scripts::{self, Call};
use crate::board::{BOARDS_MAX, BoardError, ChangeError, NewList};
use crate::log::LogError;
use crate::topic::Topic;

impl RedisLog {
    pub(super) async fn board_of_task(&self, task: &Topic) -> Result<Topic, ChangeError> {
        let board = self.index("tasks", task).await?;
        board.ok_or_else(|| BoardError::NoSuchTask.into())
    }

    pub(super) async fn index(&self, hash: &str, id: &Topic) -> Result<Option<Topic>, LogError> {
        let mut pipe = redis::pipe();
        pipe.hget(self.keys.shared(hash), id.as_str());
        let (board,): (Option<String>,) = self.commands.pipe("hget", &pipe).await?;
        Ok(board.and_then(|board| Topic::new(&board).ok()))
    }

    /// The next free id for a task, which leads to this board from now on.
    pub(super) async fn new_task_id(&self, board: &Topic) -> Result<String, LogError> {
        let keys = [self.keys.shared("task-seq"), self.keys.shared("tasks")];
        self.commands.call(Call::new(&scripts::INDEX_TASK, &keys).arg(board.as_str())).await
    }

    /// Removes the note that leads from a task to its board. If this fails, the note leads to a
    /// board that does not know the task: the same as none.
    pub(super) async fn forget_task(&self, task: &str) {
        let mut pipe = redis::pipe();
        pipe.hdel(self.keys.shared("tasks"), task);
        let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
    }

    /// Claims the ids of a board and of its new lists; returns them, the board's first.
    pub(super) async fn claim(
        &self,
        board: Option<&Topic>,
        new: bool,
        lists: &[NewList],
    ) -> Result<(Topic, Vec<String>), ChangeError> {
        let keys = ["board-seq", "boards", "list-seq", "lists", "board-ids"];
        let keys = keys.map(|key| self.keys.shared(key));
        let mut call = Call::new(&scripts::INDEX_BOARD, &keys)
            .arg(board.map_or("", Topic::as_str))
            .arg(BOARDS_MAX)
            .arg(i32::from(new));
        for list in lists {
            call = call.arg(list.id.as_ref().map_or("", Topic::as_str));
        }
        let claimed: Vec<String> = self.commands.call(call).await?;
        let mut ids = claimed.into_iter();
        let word = ids.next().unwrap_or_default();
        if word != "ok" {
            let refusal = BoardError::from_word(&word).ok_or_else(|| unexpected("a word"))?;
            return Err(refusal.into());
        }
        let board = ids.next().and_then(|board| Topic::new(&board).ok());
        Ok((board.ok_or_else(|| unexpected("an id"))?, ids.collect()))
    }

    /// Gives back the ids of lists that were claimed and not made. If this fails they stay claimed
    /// by a board that may still get to use them.
    pub(super) async fn unclaim(&self, board: &Topic, list_ids: &[String]) {
        for id in list_ids {
            let mut pipe = redis::pipe();
            pipe.hexists(self.keys.titles(board), id);
            // Somebody else may have made one of this name on the same board.
            if let Ok((false,)) = self.commands.pipe::<(bool,)>("hexists", &pipe).await {
                let mut pipe = redis::pipe();
                pipe.hdel(self.keys.shared("lists"), id);
                let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
            }
        }
    }
}
