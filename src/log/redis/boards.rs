//! The task board in Redis: which script a command calls.
//!
//! A board's own keys change in one script together with the event, and so does the number of a new
//! task. The [`index`] leads from an id to its board, and what it says is [`known`] for a while; [`read`] makes a snapshot of what a board's keys
//! hold.

mod index;
mod known;
mod making;
mod read;

use async_trait::async_trait;
use redis::Value;

use super::RedisLog;
use super::replies::{accepted, unexpected};
use super::scripts::{self, Call};
use crate::board::view::{
    BoardEvent, Index, ListView, OPEN_CREATED_AT, OPEN_FROM_LIST, OPEN_ID, OPEN_LIST, OPEN_TITLE,
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
use index::BoardClaim;
pub(super) use known::KnownBoards;

/// Boards that are asked for in one step.
const PAGE_BOARDS: usize = 500;

/// A board, and how this node came to know of it.
struct Found {
    board: Topic,
    /// It was told before, and did not ask now.
    is_remembered: bool,
}

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
                let event = BoardEvent::TaskUpdated { task: Subject::Open };
                let call = |board: &Topic| {
                    let view = TaskView {
                        title: title.as_str().into(),
                        ..open_view(task.as_str(), board)
                    };
                    self.telling_call(&scripts::TASK_RENAME, board, &context, &event, &json(&view))
                        .arg(task.as_str())
                        .arg(json(&title))
                };
                self.change_task(&task, call).await
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
        self.settled().await?;
        let found = match thing {
            OnBoard::List(list) => self.board_of_list(list).await?,
            OnBoard::Task(task) => self.board_of_task(task).await?,
        };
        Ok(found.board)
    }

    async fn list(
        &self,
        after: Option<&Topic>,
        limit: usize,
    ) -> Result<Vec<BoardSummary>, LogError> {
        self.settled().await?;
        let mut summaries = Vec::new();
        let mut page = self.boards_from(0, after, PAGE_BOARDS).await?;
        while let Some(&(_, last)) = page.last()
            && summaries.len() < limit
        {
            let mut pipe = redis::pipe();
            for (board, _) in &page {
                pipe.hget(self.keys.state(board), "name");
            }
            let names: Vec<Option<String>> = self.commands.pipe("hget", &pipe).await?;
            // A board that was claimed and not made has no name.
            let summary = |((id, _), name): (&(Topic, u64), Option<String>)| {
                let name = serde_json::from_str(&name?).ok()?;
                Some(BoardSummary { id: id.to_string(), name })
            };
            summaries.extend(page.iter().zip(names).filter_map(summary));
            page = self.boards_from(last + 1, None, PAGE_BOARDS).await?;
        }
        summaries.truncate(limit);
        Ok(summaries)
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        self.settled().await?;
        let command = board::first_board();
        let Command::CreateBoard { id: Some(first), .. } = &command else { return Ok(()) };
        // Also makes the index if it was lost.
        let boards = self.boards_from(0, None, 2).await?;
        // With one board noted but not made, the node that made it was cut off in between.
        if boards.len() > 1 || self.boards_exist(std::slice::from_ref(first)).await? {
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
fn open_view<'a>(task: &'a str, board: &'a Topic) -> TaskView<'a> {
    TaskView {
        id: task,
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
        Call::new(script, &self.keys.board(board))
            .key(idempotency_key.as_ref().map(|key| self.keys.once(board, key)))
            .arg(self.keys.channel(board))
            .arg(Epoch::random().as_str())
            .arg(self.history_sizes())
            .arg(self.ttl_milliseconds())
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
        if answer.first().is_some_and(|word| word == "too_late") {
            let why = "the ids were claimed so long ago that somebody else may have them";
            return Err(LogError::Unavailable(why.to_owned()).into());
        }
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
        let call = |board: &Topic| {
            let view = TaskView {
                title: title.as_str().into(),
                list_id: list.as_str(),
                ..open_view(OPEN_ID, board)
            };
            let event = BoardEvent::TaskCreated { task: Subject::Open };
            self.telling_call(&scripts::TASK_CREATE, board, context, &event, &json(&view))
                .arg(json(title))
                .arg(list.as_str())
                .arg(TASKS_MAX)
        };
        let found = self.board_of_list(list).await?;
        let result = self.change_board(&found.board, call(&found.board)).await;
        if !matches!(result, Err(ChangeError::Refused(BoardError::NoSuchList))) {
            return result;
        }
        self.known_boards.of_list.remove(list);
        if found.is_remembered {
            // It may have been made anew since, on another board.
            let again = self.board_of_list(list).await?;
            if again.board != found.board {
                return self.change_board(&again.board, call(&again.board)).await;
            }
        }
        result
    }

    /// As far as this node knows; the script finds out whether it is so.
    async fn board_of_list(&self, list: &Topic) -> Result<Found, ChangeError> {
        let known = &self.known_boards.of_list;
        if let Some(board) = known.get(list) {
            return Ok(Found { board, is_remembered: true });
        }
        let board = self.find_list(list).await?.ok_or(BoardError::NoSuchList)?;
        known.insert(list.clone(), board.clone());
        Ok(Found { board, is_remembered: false })
    }

    /// The board that a task is on if it is there at all; the script finds out whether it is.
    async fn board_of_task(&self, task: &Topic) -> Result<Found, ChangeError> {
        let no_such_task = BoardError::NoSuchTask;
        if let Some(board) = self.board_of_old_task(task).await? {
            return Ok(Found { board, is_remembered: false });
        }
        let number = board::number_of_board(task).ok_or(no_such_task)?;
        let known = &self.known_boards.of_number;
        if let Some(board) = known.get(&number) {
            return Ok(Found { board, is_remembered: true });
        }
        let board = self.find_board(number).await?.ok_or(no_such_task)?;
        known.insert(number, board.clone());
        Ok(Found { board, is_remembered: false })
    }

    /// The board of a task that an earlier version has made on another board than the first: its id
    /// does not say the board.
    async fn board_of_old_task(&self, task: &Topic) -> Result<Option<Topic>, LogError> {
        if !self.layout.has_old_tasks() || board::number_of_board(task) != Some(1) {
            return Ok(None);
        }
        let mut pipe = redis::pipe();
        pipe.hget(self.keys.shared("tasks"), task.as_str());
        let (board,): (Option<String>,) = self.commands.pipe("hget", &pipe).await?;
        Ok(board.and_then(|board| Topic::new(&board).ok()))
    }

    /// Changes the board that a task is on.
    async fn change_task(
        &self,
        task: &Topic,
        call: impl Fn(&Topic) -> Call<'static>,
    ) -> Result<Changed, ChangeError> {
        let found = self.board_of_task(task).await?;
        let result = self.change_board(&found.board, call(&found.board)).await;
        if found.is_remembered
            && matches!(result, Err(ChangeError::Refused(BoardError::NoSuchTask)))
            && let Some(number) = board::number_of_board(task)
        {
            // In a Redis that was flushed another board may have the number since.
            self.known_boards.of_number.remove(&number);
            let again = self.board_of_task(task).await?;
            if again.board != found.board {
                return self.change_board(&again.board, call(&again.board)).await;
            }
        }
        result
    }

    async fn move_task(
        &self,
        task: &Topic,
        list: &Topic,
        index: Option<usize>,
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        let call = |board: &Topic| {
            let view = TaskView { list_id: list.as_str(), ..open_view(task.as_str(), board) };
            let event = BoardEvent::TaskMoved { task: Subject::Open, from_list_id: OPEN_FROM_LIST };
            self.telling_call(&scripts::TASK_MOVE, board, context, &event, &json(&view))
                .arg(task.as_str())
                .arg(list.as_str())
                .arg(index.map(|index| index.to_string()).unwrap_or_default())
        };
        let result = self.change_task(task, call).await;
        if matches!(result, Err(ChangeError::Refused(BoardError::NoSuchList))) {
            let board = self.board_of_task(task).await?.board;
            if self.find_list(list).await?.is_some_and(|elsewhere| elsewhere != board) {
                return Err(BoardError::ListElsewhere.into());
            }
        }
        result
    }

    async fn delete_task(
        &self,
        task: &Topic,
        context: &WriteContext<'_>,
    ) -> Result<Changed, ChangeError> {
        let call = |board: &Topic| {
            let event =
                BoardEvent::TaskDeleted { task_id: task.as_str(), board_id: board.as_str() };
            self.telling_call(&scripts::TASK_DELETE, board, context, &event, "").arg(task.as_str())
        };
        let changed = self.change_task(task, call).await?;
        if self.layout.has_old_tasks() {
            // If this fails, the note leads to a board that does not know the task: the same as none.
            let mut pipe = redis::pipe();
            pipe.hdel(self.keys.shared("tasks"), task.as_str()).ignore();
            let _: Result<(), LogError> = self.commands.pipe("hdel", &pipe).await;
        }
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
        let BoardClaim { claim, number, was_there } = self.claim_board(id.as_ref()).await?;
        let board = claim.id.clone();
        let list_claims = match self.claim_lists(&board, lists).await {
            Ok(claims) => claims,
            Err(error) => {
                self.end_board_claim(&claim, false).await;
                return Err(error);
            }
        };
        let used_until = list_claims.iter().map(|list| list.used_until).min();
        let mut call = self
            .board_call(&scripts::BOARD_CREATE, &board, &WriteContext::NONE)
            .arg(json(name))
            .arg(number)
            .arg(used_until.map_or(claim.used_until, |lists| lists.min(claim.used_until)))
            .arg(i32::from(was_there));
        for (list_claim, list) in list_claims.iter().zip(lists) {
            call = call.arg(list_claim.id.as_str()).arg(json(&list.title));
        }
        let changed = match self.change_board(&board, call).await {
            Ok(changed) => changed,
            Err(error) => {
                // Perhaps it was made all the same, or by somebody else.
                if !matches!(error, ChangeError::Log(LogError::OutcomeUnknown(_))) {
                    self.give_back(&board, &list_claims).await;
                }
                return Err(error);
            }
        };
        self.end_board_claim(&claim, true).await;
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
        let claims = self.claim_lists(board, std::slice::from_ref(&list)).await?;
        let claim = claims.first().ok_or_else(|| unexpected("an id"))?;
        let list_id = claim.id.as_str();
        let view = ListView { id: list_id, title: list.title.as_str(), board_id: board.as_str() };
        let event = BoardEvent::ListCreated { list: Subject::Open };
        let call = self
            .telling_call(&scripts::LIST_CREATE, board, context, &event, &json(&view))
            .arg(list_id)
            .arg(json(&list.title))
            .arg(LISTS_MAX)
            .arg(claim.used_until);
        let result = self.change_board(board, call).await;
        let is_unused = match &result {
            // It was made before, and a number that was handed out for it again is free.
            Ok(changed) => changed.replayed && list.id.is_none(),
            Err(ChangeError::Log(LogError::OutcomeUnknown(_))) => false,
            Err(_) => true,
        };
        if is_unused {
            self.give_back(board, &claims).await;
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
}
