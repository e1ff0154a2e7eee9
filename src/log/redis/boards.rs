//! The task board in Redis: which script a command calls.
//!
//! A board's own keys change in one script together with the event. [`ids`] are handed out before;
//! [`read`] makes a snapshot of what a board's keys hold.

mod ids;
mod read;

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use redis::Value;

use super::RedisLog;
use super::replies::{accepted, unexpected};
use super::scripts::{self, Call};
use crate::board::view::{
    BoardEvent, Index, ListView, OPEN_CREATED_AT, OPEN_FROM_LIST, OPEN_LIST, OPEN_TITLE,
    OPEN_UPDATED_AT, Subject, TaskView, around_subject,
};
use crate::board::{
    self, BoardError, BoardSummary, Boards, ChangeError, Changed, Command, LISTS_MAX, NewList,
    OnBoard, TASKS_MAX, Title,
};
use crate::entry::Event;
use crate::json::to_text as json;
use crate::log::{Appended, Conditions, LogError, Snapshot, Snapshots};
use crate::position::Epoch;
use crate::topic::Topic;
use crate::wire::sse;

/// How many lists' boards are remembered.
const LISTS_KNOWN_MAX: usize = 10_000;

/// What a request asks for, and under what conditions.
pub(super) struct WriteContext<'a> {
    /// [`Command::fingerprint`]; what an idempotency key is tied to.
    fingerprint: String,
    conditions: &'a Conditions,
}

impl WriteContext<'static> {
    /// Nothing that could be asked twice.
    pub(super) const NONE: WriteContext<'static> =
        WriteContext { fingerprint: String::new(), conditions: &Conditions::NONE };
}

#[async_trait]
impl Snapshots for RedisLog {
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError> {
        self.settled().await?;
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
        self.settled().await?;
        let call = self.board_call(&scripts::BOARD_READ, board, &WriteContext::NONE);
        let reply: Vec<Value> = self.reads.call(call).await?;
        read::snapshot(board, &reply)
    }
}

#[async_trait]
impl Boards for RedisLog {
    async fn change(
        &self,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, ChangeError> {
        self.settled().await?;
        let context = WriteContext { fingerprint: command.fingerprint(), conditions };
        match command {
            Command::CreateTask { title, list } => self.create_task(&title, &list, &context).await,
            Command::RenameTask { task, title } => {
                let board = self.board_of_task(&task).await?;
                let view = TaskView { title: title.as_str().into(), ..open_view(&task, &board) };
                let event = BoardEvent::TaskUpdated { task: Subject::Open };
                let call = self
                    .telling_call(&scripts::TASK_RENAME, &board, &context, &event, &json(&view))
                    .arg(task.as_str())
                    .arg(json(&title));
                self.change_board(&board, call).await
            }
            Command::MoveTask { task, list, index } => {
                self.move_task(&task, &list, index, &context).await
            }
            Command::DeleteTask { task } => self.delete_task(&task, &context).await,
            Command::CreateBoard { id, name, lists } => self.create_board(id, &name, &lists).await,
            Command::CreateList { board, list } => self.create_list(&board, list, &context).await,
        }
    }

    async fn board_of(&self, thing: OnBoard<'_>) -> Result<Topic, ChangeError> {
        match thing {
            OnBoard::List(list) => self.board_of_list(list).await,
            OnBoard::Task(task) => self.board_of_task(task).await,
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
            pipe.hget(self.keys.state(board), "name");
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
        self.settled().await?;
        let command = board::first_board();
        let Command::CreateBoard { id: Some(first), .. } = &command else { return Ok(()) };
        let mut pipe = redis::pipe();
        pipe.exists(self.keys.state(first)).llen(self.keys.shared("boards"));
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

/// A task of which only the script knows more than where it is told of.
fn open_view<'a>(task: &'a Topic, board: &'a Topic) -> TaskView<'a> {
    TaskView {
        id: task.as_str(),
        title: OPEN_TITLE.into(),
        list_id: OPEN_LIST,
        board_id: board.as_str(),
        index: Index::Open,
        created_at: OPEN_CREATED_AT,
        updated_at: OPEN_UPDATED_AT,
    }
}

/// Whether only a board may publish one of these events, if the topic belongs to one.
pub(super) fn are_of_board(events: &[Event]) -> bool {
    events.iter().any(board::is_of_board)
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
        context: &WriteContext<'_>,
    ) -> Call<'static> {
        let Conditions { idempotency_key, if_match } = context.conditions;
        Call::new(script, &self.keys.board(board).all())
            .key(idempotency_key.as_ref().map(|key| self.keys.once(board, key)))
            .arg(self.keys.channel(board))
            .arg(Epoch::random().as_str())
            .arg(self.retention.history_entries_max)
            .arg(self.ttl_milliseconds())
            .arg(self.keys.order(board))
            .arg(if_match.map(|position| position.to_string()).unwrap_or_default())
            .arg(self.retention.idempotency_window.as_millis() as u64)
            .arg(&context.fingerprint)
    }

    /// A call of a script that tells of a change by this event, which has this answer as its subject;
    /// both with what only the script knows left open.
    fn telling_call(
        &self,
        script: &'static (&'static str, redis::Script),
        board: &Topic,
        context: &WriteContext<'_>,
        event: &BoardEvent<'_>,
        answer: &str,
    ) -> Call<'static> {
        let text = sse::event_text(&event.event());
        let (before, after) = around_subject(std::str::from_utf8(&text).unwrap_or_default());
        self.board_call(script, board, context).arg(before).arg(answer).arg(after)
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

    async fn create_task(
        &self,
        title: &Title,
        list: &Topic,
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        let board = self.board_of_list(list).await?;
        let task = self.new_task_id(&board).await?;
        let view = TaskView {
            id: &task,
            title: title.as_str().into(),
            list_id: list.as_str(),
            board_id: board.as_str(),
            index: Index::Open,
            created_at: OPEN_CREATED_AT,
            updated_at: OPEN_UPDATED_AT,
        };
        let event = BoardEvent::TaskCreated { task: Subject::Open };
        let call = self
            .telling_call(&scripts::TASK_CREATE, &board, context, &event, &json(&view))
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

    /// As far as this node knows; the script finds out whether it is so.
    async fn board_of_list(&self, list: &Topic) -> Result<Topic, ChangeError> {
        let known = self.lists().get(list).cloned();
        match known {
            Some(board) => Ok(board),
            None => Ok(self.index("lists", list).await?.ok_or(BoardError::NoSuchList)?),
        }
    }

    async fn move_task(
        &self,
        task: &Topic,
        list: &Topic,
        index: Option<usize>,
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        let board = self.board_of_task(task).await?;
        let view = TaskView { list_id: list.as_str(), ..open_view(task, &board) };
        let event = BoardEvent::TaskMoved { task: Subject::Open, from_list_id: OPEN_FROM_LIST };
        let call = self
            .telling_call(&scripts::TASK_MOVE, &board, context, &event, &json(&view))
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

    async fn delete_task(
        &self,
        task: &Topic,
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        let board = self.board_of_task(task).await?;
        let event = BoardEvent::TaskDeleted { task_id: task.as_str(), board_id: board.as_str() };
        let call = self
            .telling_call(&scripts::TASK_DELETE, &board, context, &event, "")
            .arg(task.as_str());
        let changed = self.change_board(&board, call).await?;
        self.forget_task(task.as_str()).await;
        Ok(changed)
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
            self.board_call(&scripts::BOARD_CREATE, &board, &WriteContext::NONE).arg(json(name));
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
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        if !self.boards_exist(std::slice::from_ref(board)).await? {
            return Err(BoardError::NoSuchBoard.into());
        }
        let lists = [list];
        let (board, list_ids) = self.claim(Some(board), false, &lists).await?;
        let list_id = list_ids.first().ok_or_else(|| unexpected("an id"))?;
        let view =
            ListView { id: list_id, title: lists[0].title.as_str(), board_id: board.as_str() };
        let event = BoardEvent::ListCreated { list: Subject::Open };
        let call = self
            .telling_call(&scripts::LIST_CREATE, &board, context, &event, &json(&view))
            .arg(list_id)
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

    async fn boards_exist(&self, boards: &[Topic]) -> Result<bool, LogError> {
        let mut pipe = redis::pipe();
        for board in boards {
            pipe.exists(self.keys.state(board));
        }
        let exist: Vec<bool> = self.commands.pipe("exists", &pipe).await?;
        Ok(exist.into_iter().all(|exists| exists))
    }

    fn lists(&self) -> MutexGuard<'_, HashMap<Topic, Topic>> {
        self.board_of_list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
