//! The task board in Redis: which script a command calls, and the ids that are unique over all
//! boards.
//!
//! A board's own keys change in one script together with the event. Ids of tasks, lists and boards
//! are handed out before, under keys of their own: an id that is then not used leads to a board
//! that does not know it, which is the same as no id.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use redis::Value;

use super::answers::{accepted, board_json, text, unexpected};
use super::scripts::{self, Call};
use super::{LISTS_KNOWN_MAX, RedisLog};
use crate::board::{
    self, BOARDS_MAX, BoardError, BoardSummary, Boards, ChangeError, Changed, Command, LISTS_MAX,
    NewList, TASKS_MAX, Title,
};
use crate::json::to_text as json;
use crate::log::{Appended, Conditions, LogError, Snapshot, Snapshots};
use crate::position::{Epoch, Position};
use crate::topic::Topic;

/// What a request asks for, and under what conditions.
pub(super) struct Asked<'a> {
    /// [`Command::words`]; what an idempotency key is tied to.
    words: String,
    conditions: &'a Conditions,
}

impl Asked<'static> {
    /// Nothing that could be asked twice.
    pub(super) const NOTHING: Asked<'static> =
        Asked { words: String::new(), conditions: &Conditions::NONE };
}

#[async_trait]
impl Snapshots for RedisLog {
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError> {
        if self.boards_exist(topics).await? {
            return Ok(true);
        }
        if !topics.iter().any(is_first_board) {
            return Ok(false);
        }
        // A Redis that has just come, or has come back empty, gets the first board sooner or
        // later. Whoever asks before must not be told that it will never be there.
        self.ensure_first_board().await?;
        self.boards_exist(topics).await
    }

    async fn snapshot(&self, board: &Topic) -> Result<Option<Snapshot>, LogError> {
        let call = self.board_call(&scripts::BOARD_READ, board, &Asked::NOTHING);
        let answer: Vec<Value> = self.reading.call(call).await?;
        let Ok([seq, epoch, name, lists]) = <[Value; 4]>::try_from(answer) else {
            return Ok(None);
        };
        let position = format!("{}-{}", text(seq)?, text(epoch)?);
        let position: Position = position.parse().map_err(|_| unexpected("a position"))?;
        let json = board_json(board, &text(name)?, lists, &position)?;
        Ok(Some(Snapshot { position, json: json.into() }))
    }
}

#[async_trait]
impl Boards for RedisLog {
    async fn change(
        &self,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, ChangeError> {
        let asked = Asked { words: command.words(), conditions };
        match command {
            Command::CreateTask { title, list } => self.create_task(&title, &list, &asked).await,
            Command::RenameTask { task, title } => {
                let board = self.board_of_task(&task).await?;
                let call = self
                    .board_call(&scripts::TASK_RENAME, &board, &asked)
                    .arg(task.as_str())
                    .arg(json(&title));
                self.change_board(&board, call).await
            }
            Command::MoveTask { task, list, index } => {
                self.move_task(&task, &list, index, &asked).await
            }
            Command::DeleteTask { task } => self.delete_task(&task, &asked).await,
            Command::CreateBoard { id, name, lists } => self.create_board(id, &name, &lists).await,
            Command::CreateList { board, list } => self.create_list(&board, list, &asked).await,
        }
    }

    async fn list(&self) -> Result<Vec<BoardSummary>, LogError> {
        let mut pipe = redis::pipe();
        pipe.lrange(self.keys.shared("boards"), 0, -1);
        let (ids,): (Vec<String>,) = self.commands.pipe("lrange", &pipe).await?;
        let boards: Vec<Topic> = ids.iter().filter_map(|id| Topic::new(id).ok()).collect();
        if boards.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for board in &boards {
            pipe.hget(&self.keys.topic(board)[3], "name");
        }
        let names: Vec<Option<String>> = self.commands.pipe("hget", &pipe).await?;
        // A board that was claimed and not made has no name.
        let summary = |(id, name): (&Topic, Option<String>)| {
            let name = serde_json::from_str(&name?).ok()?;
            Some(BoardSummary { id: id.to_string(), name })
        };
        Ok(boards.iter().zip(names).filter_map(summary).collect())
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        let command = board::first_board();
        let Command::CreateBoard { id: Some(first), .. } = &command else { return Ok(()) };
        let mut pipe = redis::pipe();
        pipe.exists(&self.keys.topic(first)[3]).llen(self.keys.shared("boards"));
        let (exists, boards): (bool, u64) = self.commands.pipe("exists", &pipe).await?;
        // With one board noted but not made, the node that made it was cut off in between.
        if exists || boards > 1 {
            return Ok(());
        }
        match self.change(command, &Conditions::NONE).await {
            // Another node was faster, or somebody has taken its ids for something else.
            Ok(_) | Err(ChangeError::Refused(_)) => Ok(()),
            Err(ChangeError::Log(error)) => Err(error),
        }
    }
}

/// Whether a new installation has a board of this name.
pub(super) fn is_first_board(topic: &Topic) -> bool {
    matches!(board::first_board(), Command::CreateBoard { id: Some(first), .. } if first == *topic)
}

impl RedisLog {
    /// A call of a board's script, with everything they have in common.
    pub(super) fn board_call(
        &self,
        script: &'static (&'static str, redis::Script),
        board: &Topic,
        asked: &Asked<'_>,
    ) -> Call<'static> {
        let Conditions { idempotency_key, if_match } = asked.conditions;
        Call::new(script, &self.keys.board(board))
            .key(idempotency_key.as_ref().map(|key| self.keys.once(board, key)))
            .arg(self.keys.channel(board))
            .arg(Epoch::random().as_str())
            .arg(self.retention.history_entries_max)
            .arg(self.ttl_milliseconds())
            .arg(self.keys.order(board))
            .arg(board.as_str())
            .arg(if_match.map(|position| position.to_string()).unwrap_or_default())
            .arg(self.retention.idempotency_window.as_millis() as u64)
            .arg(&asked.words)
    }

    /// Carries out a board's script and says what came of it.
    async fn change_board(
        &self,
        board: &Topic,
        call: Call<'static>,
    ) -> Result<Changed, ChangeError> {
        let answer = self.write(call).await?;
        if let Some(refusal) = answer.first().and_then(|word| BoardError::from_word(word)) {
            return Err(refusal.into());
        }
        let Appended { last: position, replayed } = accepted(&answer)?;
        let answer = answer.get(3).cloned().unwrap_or_default().into();
        Ok(Changed {
            board: board.clone(),
            position,
            events: u64::from(!replayed),
            answer,
            replayed,
        })
    }

    async fn board_of_task(&self, task: &Topic) -> Result<Topic, ChangeError> {
        let board = self.index("tasks", task).await?;
        board.ok_or_else(|| BoardError::NoSuchTask.into())
    }

    async fn index(&self, hash: &str, id: &Topic) -> Result<Option<Topic>, LogError> {
        let mut pipe = redis::pipe();
        pipe.hget(self.keys.shared(hash), id.as_str());
        let (board,): (Option<String>,) = self.commands.pipe("hget", &pipe).await?;
        Ok(board.and_then(|board| Topic::new(&board).ok()))
    }

    async fn create_task(
        &self,
        title: &Title,
        list: &Topic,
        asked: &Asked<'_>,
    ) -> Result<Changed, ChangeError> {
        let known = self.lists().get(list).cloned();
        let board = match &known {
            Some(board) => board.clone(),
            None => self.index("lists", list).await?.ok_or(BoardError::NoSuchList)?,
        };
        let index = [self.keys.shared("task-seq"), self.keys.shared("tasks")];
        let index = Call::new(&scripts::INDEX_TASK, &index).arg(board.as_str());
        let task: String = self.commands.call(index).await?;
        let call = self
            .board_call(&scripts::TASK_CREATE, &board, asked)
            .arg(&task)
            .arg(json(title))
            .arg(list.as_str())
            .arg(TASKS_MAX);
        let result = self.change_board(&board, call).await;
        let unused = match &result {
            // It was made before, under another id.
            Ok(changed) => changed.replayed,
            Err(ChangeError::Log(LogError::OutcomeUnknown(_) | LogError::Unavailable(_))) => false,
            Err(_) => true,
        };
        if unused {
            self.forget_task(&task).await;
        }
        let mut lists = self.lists();
        match &result {
            Ok(_) => {
                if lists.len() >= LISTS_KNOWN_MAX {
                    lists.clear();
                }
                lists.insert(list.clone(), board);
            }
            Err(ChangeError::Refused(_)) => {
                lists.remove(list);
            }
            Err(_) => {}
        }
        result
    }

    async fn move_task(
        &self,
        task: &Topic,
        list: &Topic,
        index: Option<usize>,
        asked: &Asked<'_>,
    ) -> Result<Changed, ChangeError> {
        let board = self.board_of_task(task).await?;
        let call = self
            .board_call(&scripts::TASK_MOVE, &board, asked)
            .arg(task.as_str())
            .arg(list.as_str())
            .arg(index.map(|index| index.to_string()).unwrap_or_default());
        let result = self.change_board(&board, call).await;
        if matches!(result, Err(ChangeError::Refused(BoardError::NoSuchList)))
            && self.index("lists", list).await?.is_some_and(|elsewhere| elsewhere != board)
        {
            return Err(BoardError::ListElsewhere.into());
        }
        result
    }

    async fn delete_task(&self, task: &Topic, asked: &Asked<'_>) -> Result<Changed, ChangeError> {
        let board = self.board_of_task(task).await?;
        let call = self.board_call(&scripts::TASK_DELETE, &board, asked).arg(task.as_str());
        let changed = self.change_board(&board, call).await?;
        self.forget_task(task.as_str()).await;
        Ok(changed)
    }

    /// Removes the note that leads from a task to its board. If this fails, the note leads to a
    /// board that does not know the task: the same as none.
    async fn forget_task(&self, task: &str) {
        let mut pipe = redis::pipe();
        pipe.hdel(self.keys.shared("tasks"), task);
        let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
    }

    /// Claims the ids of a board and of its new lists; returns them, the board's first.
    async fn claim(
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

    async fn create_board(
        &self,
        id: Option<Topic>,
        name: &Title,
        lists: &[NewList],
    ) -> Result<Changed, ChangeError> {
        if let Some(id) = &id
            && self.boards_exist(std::slice::from_ref(id)).await?
        {
            return Err(BoardError::BoardExists.into());
        }
        let (board, list_ids) = self.claim(id.as_ref(), true, lists).await?;
        let mut call =
            self.board_call(&scripts::BOARD_CREATE, &board, &Asked::NOTHING).arg(json(name));
        for (id, list) in list_ids.iter().zip(lists) {
            call = call.arg(id).arg(json(&list.title));
        }
        let changed = self.change_board(&board, call).await?;
        // The board is made, whatever happens now.
        let made = |error| LogError::OutcomeUnknown(format!("the board was made, but: {error}"));
        let snapshot = self.snapshot(&board).await.map_err(made)?;
        let answer = snapshot.ok_or_else(|| made(unexpected("the board")))?.json;
        Ok(Changed { answer, events: 0, ..changed })
    }

    async fn create_list(
        &self,
        board: &Topic,
        list: NewList,
        asked: &Asked<'_>,
    ) -> Result<Changed, ChangeError> {
        if !self.boards_exist(std::slice::from_ref(board)).await? {
            return Err(BoardError::NoSuchBoard.into());
        }
        let lists = [list];
        let (board, list_ids) = self.claim(Some(board), false, &lists).await?;
        let call = self
            .board_call(&scripts::LIST_CREATE, &board, asked)
            .arg(&list_ids)
            .arg(json(&lists[0].title))
            .arg(LISTS_MAX);
        let result = self.change_board(&board, call).await;
        let refused = match &result {
            // It was made before, and a number that was handed out for it again is free.
            Ok(changed) => changed.replayed && lists[0].id.is_none(),
            Err(ChangeError::Refused(refusal)) => *refusal == BoardError::BoardFull,
            Err(ChangeError::Log(LogError::PreconditionFailed(_) | LogError::KeyReused)) => true,
            Err(_) => false,
        };
        if refused {
            self.unclaim(&board, &list_ids).await;
        }
        result
    }

    /// Gives back the ids of lists that were claimed and not made. If this fails they stay claimed
    /// by a board that may still get to use them.
    async fn unclaim(&self, board: &Topic, list_ids: &[String]) {
        for id in list_ids {
            let mut pipe = redis::pipe();
            pipe.hexists(&self.keys.board(board)[5], id);
            // Somebody else may have made one of this name on the same board.
            if let Ok((false,)) = self.commands.pipe::<(bool,)>("hexists", &pipe).await {
                let mut pipe = redis::pipe();
                pipe.hdel(self.keys.shared("lists"), id);
                let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
            }
        }
    }

    async fn boards_exist(&self, boards: &[Topic]) -> Result<bool, LogError> {
        let mut pipe = redis::pipe();
        for board in boards {
            pipe.exists(&self.keys.topic(board)[3]);
        }
        let exist: Vec<bool> = self.commands.pipe("exists", &pipe).await?;
        Ok(exist.into_iter().all(|exists| exists))
    }

    fn lists(&self) -> MutexGuard<'_, HashMap<Topic, Topic>> {
        self.board_of_list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
