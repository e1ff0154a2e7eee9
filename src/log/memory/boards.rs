//! The task board in memory: every command is carried out by [`Board`] itself.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::{MemoryLog, State};
use crate::board::{
    self, BOARDS_MAX, Board, BoardError, BoardSummary, Boards, Change, ChangeError, Changed,
    Command, NewList, OnBoard, Title,
};
use crate::entry::Event;
use crate::log::{Conditions, LogError, Snapshot, Snapshots};
use crate::topic::Topic;

/// All boards, and where ids lead that are unique over all of them.
#[derive(Default)]
pub(super) struct BoardStates {
    boards: HashMap<Topic, NumberedBoard>,
    /// Ids of boards by their numbers, which is the order of their creation.
    by_number: BTreeMap<u64, Topic>,
    board_of_list: HashMap<Topic, Topic>,
    lists_made: u64,
    boards_made: u64,
}

/// A board, its number, and how many tasks it has numbered.
struct NumberedBoard {
    board: Board,
    number: u64,
    tasks_made: u64,
}

/// The time now; by a clock that is wrong by thousands of years, the last one that has a text.
fn now() -> jiff::Timestamp {
    jiff::Timestamp::try_from(SystemTime::now()).unwrap_or(jiff::Timestamp::MAX)
}

/// Whether only a board may publish one of these events, if the topic belongs to one.
pub(super) fn are_of_board(events: &[Event]) -> bool {
    events.iter().any(board::is_of_board)
}

#[async_trait]
impl Snapshots for MemoryLog {
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError> {
        let state = self.state();
        Ok(topics.iter().all(|topic| state.boards.contain(topic)))
    }

    async fn snapshot(&self, topic: &Topic) -> Result<Option<Snapshot>, LogError> {
        let state = &mut *self.state();
        if !state.boards.contain(topic) {
            return Ok(None);
        }
        let position = state.open(topic).head();
        let board = state.boards.boards.get(topic);
        let json = board.map(|NumberedBoard { board, .. }| board.to_json(&position.to_string()));
        Ok(json.map(|json| Snapshot { position, json: json.into(), pieces: None }))
    }
}

#[async_trait]
impl Boards for MemoryLog {
    async fn change(
        &self,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, ChangeError> {
        let now = format!("{:.3}", now());
        let fingerprint = command.fingerprint();
        let state = &mut *self.state();
        if let Some(board) = state.boards.told_on(&command) {
            let stored = state.stored_result(&board, &fingerprint, conditions)?;
            if let Some(stored) = stored {
                let (position, answer) = (stored.position, stored.answer);
                return Ok(Changed { board, position, events: 0, answer, replayed: true });
            }
            state.check_head(&board, conditions)?;
        }
        let (board, change) = match command {
            Command::CreateBoard { id, name, lists } => {
                return create_board(state, id, name, lists);
            }
            command => state.boards.apply(command, &now)?,
        };
        let position = self.append_to(state, &board, &change.event);
        let answer = Bytes::from(change.answer);
        state.store_result(&board, &fingerprint, conditions, position, answer.clone());
        Ok(Changed { board, position, events: 1, answer, replayed: false })
    }

    async fn board_of(&self, thing: OnBoard<'_>) -> Result<Topic, ChangeError> {
        let boards = &self.state().boards;
        let board = match thing {
            OnBoard::List(list) => boards.board_of_list.get(list),
            OnBoard::Task(task) => boards.board_of_task(task),
        };
        board.cloned().ok_or_else(|| thing.missing().into())
    }

    async fn list(
        &self,
        after: Option<&Topic>,
        limit: usize,
    ) -> Result<Vec<BoardSummary>, LogError> {
        let boards = &self.state().boards;
        let after =
            after.and_then(|after| boards.boards.get(after)).map_or(0, |board| board.number);
        let summary = |id: &Topic| {
            let name = boards.boards.get(id)?.board.name().as_str().to_owned();
            Some(BoardSummary { id: id.to_string(), name })
        };
        let ids = boards.by_number.range(after + 1..).map(|(_, id)| id);
        Ok(ids.filter_map(summary).take(limit).collect())
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        if !self.state().boards.boards.is_empty() {
            return Ok(());
        }
        match self.change(board::first_board(), &Conditions::NONE).await {
            Ok(_) | Err(ChangeError::Refused(_)) => Ok(()),
            Err(ChangeError::Log(error)) => Err(error),
        }
    }
}

fn create_board(
    state: &mut State,
    id: Option<Topic>,
    name: Title,
    lists: Vec<NewList>,
) -> Result<Changed, ChangeError> {
    let id = state.boards.create(id, name, lists)?;
    let position = state.open(&id).head();
    let made = state.boards.boards.get(&id).ok_or(BoardError::NoSuchBoard)?;
    let answer = made.board.to_json(&position.to_string()).into();
    Ok(Changed { board: id, position, events: 0, answer, replayed: false })
}

impl BoardStates {
    /// Whether there is a board of this name.
    pub(super) fn contain(&self, topic: &Topic) -> bool {
        self.boards.contains_key(topic)
    }

    /// The board whose topic will tell of a change, if there is one already.
    fn told_on(&self, command: &Command) -> Option<Topic> {
        match command {
            Command::CreateTask { list, .. } => self.board_of_list.get(list).cloned(),
            Command::RenameTask { task, .. }
            | Command::MoveTask { task, .. }
            | Command::DeleteTask { task } => self.board_of_task(task).cloned(),
            Command::CreateBoard { .. } => None,
            Command::CreateList { board, .. } => {
                self.boards.contains_key(board).then(|| board.clone())
            }
        }
    }

    /// Changes the board that a command is about; it does not make boards.
    fn apply(&mut self, command: Command, now: &str) -> Result<(Topic, Change), BoardError> {
        match command {
            Command::CreateTask { title, list } => {
                let board = self.board_of_list.get(&list).ok_or(BoardError::NoSuchList)?.clone();
                let found = self.boards.get_mut(&board).ok_or(BoardError::NoSuchList)?;
                let id = board::task_id(found.tasks_made + 1, found.number);
                let id = Topic::new(&id).map_err(|_| BoardError::BoardFull)?;
                let change = found.board.create_task(id, title, list, now)?;
                found.tasks_made += 1;
                Ok((board, change))
            }
            Command::RenameTask { task, title } => {
                let (board, found) = self.board_with(&task)?;
                Ok((board, found.rename_task(&task, title, now)?))
            }
            Command::MoveTask { task, list, index } => {
                let elsewhere = self.board_of_list.get(&list).cloned();
                let (board, found) = self.board_with(&task)?;
                match found.move_task(&task, list, index, now) {
                    Err(BoardError::NoSuchList)
                        if elsewhere.is_some_and(|elsewhere| elsewhere != board) =>
                    {
                        Err(BoardError::ListElsewhere)
                    }
                    moved => Ok((board, moved?)),
                }
            }
            Command::DeleteTask { task } => {
                let (board, found) = self.board_with(&task)?;
                Ok((board, found.delete_task(&task)?))
            }
            Command::CreateList { board, list } => {
                if !self.contain(&board) {
                    return Err(BoardError::NoSuchBoard);
                }
                let id = self.list_id(&list)?;
                let found = self.boards.get_mut(&board).ok_or(BoardError::NoSuchBoard)?;
                let change = found.board.create_list(id.clone(), list.title)?;
                self.board_of_list.insert(id, board.clone());
                Ok((board, change))
            }
            Command::CreateBoard { .. } => Err(BoardError::NoSuchBoard),
        }
    }

    /// Makes a board with its lists and returns its id.
    fn create(
        &mut self,
        id: Option<Topic>,
        name: Title,
        lists: Vec<NewList>,
    ) -> Result<Topic, BoardError> {
        if self.boards.len() >= BOARDS_MAX {
            return Err(BoardError::TooManyBoards);
        }
        // Its number is the next one, whatever its id, and says the id if it has none.
        let made = &mut self.boards_made;
        let id = match id {
            Some(id) if self.boards.contains_key(&id) => return Err(BoardError::BoardExists),
            Some(id) => {
                *made += 1;
                id
            }
            None => number("board", made, |id| !self.boards.contains_key(id)),
        };
        let number = self.boards_made;
        let mut board = Board::new(id.clone(), name);
        let mut list_ids = Vec::new();
        for list in lists {
            let list_id = self.list_id(&list)?;
            board.create_list(list_id.clone(), list.title)?;
            list_ids.push(list_id);
        }
        // Nothing can fail from here on.
        self.boards.insert(id.clone(), NumberedBoard { board, number, tasks_made: 0 });
        self.by_number.insert(number, id.clone());
        for list_id in list_ids {
            self.board_of_list.insert(list_id, id.clone());
        }
        Ok(id)
    }

    /// The board that a task is on if it is there at all: its id says the board.
    fn board_of_task(&self, task: &Topic) -> Option<&Topic> {
        self.by_number.get(&board::number_of_board(task)?)
    }

    fn board_with(&mut self, task: &Topic) -> Result<(Topic, &mut Board), BoardError> {
        let board = self.board_of_task(task).ok_or(BoardError::NoSuchTask)?.clone();
        let found = self.boards.get_mut(&board).ok_or(BoardError::NoSuchTask)?;
        Ok((board, &mut found.board))
    }

    fn list_id(&mut self, list: &NewList) -> Result<Topic, BoardError> {
        if let Some(id) = &list.id {
            let taken = self.board_of_list.contains_key(id);
            return if taken { Err(BoardError::ListExists) } else { Ok(id.clone()) };
        }
        let made = &mut self.lists_made;
        Ok(number("list", made, |id| !self.board_of_list.contains_key(id)))
    }
}

/// The next free id with this prefix.
fn number(prefix: &str, made: &mut u64, free: impl Fn(&Topic) -> bool) -> Topic {
    loop {
        *made += 1;
        // The prefixes are short and the digits harmless, so this is a name.
        if let Ok(id) = Topic::new(&format!("{prefix}-{made}"))
            && free(&id)
        {
            return id;
        }
    }
}
