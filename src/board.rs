//! The task board: what may happen on it, and what then is so. Pure.
//!
//! [`http`](crate::http) turns requests into [`Command`]s; the log applies them together with the
//! event they cause, in one atomic step. The embedded log does so with [`Board`]; Redis does the
//! same in Lua (`log/redis/*.lua`), because only there state and event can change together for all
//! nodes. [`Board`] is the definition of both: tests feed the same commands to the two logs and
//! compare.

mod first;
mod state;
mod store;
mod task_id;
pub(crate) mod view;

use std::fmt;

use serde::Serialize;

use crate::entry::Event;
use crate::topic::Topic;

pub use first::{first_board, keep_first_board};
pub use state::{Board, Change};
pub use store::{Boards, ChangeError, Changed, OnBoard};
pub(crate) use task_id::{number_of_board, task_id};

/// Tasks on one board at most: what Redis can read in one step without holding up everybody else
/// for long. A board of them takes some 5 MB as JSON with ordinary titles, 24 MB with the longest.
pub const TASKS_MAX: usize = 20_000;

/// Lists on one board at most.
pub const LISTS_MAX: usize = 200;

/// Boards of one installation at most.
pub const BOARDS_MAX: usize = 10_000;

/// The longest title of a task, list or board, in bytes.
pub const TITLE_BYTES_MAX: usize = 1_000;

/// The event types that tell of changes on a board. Nobody else may publish them to a board's
/// topic: no event without its state.
pub const EVENT_TYPES: [&str; 5] =
    ["task_created", "task_updated", "task_moved", "task_deleted", "list_created"];

/// Whether only a board may publish an event of this type, if the topic belongs to one.
pub(crate) fn is_of_board(event: &Event) -> bool {
    event.event_type.as_ref().is_some_and(|event_type| EVENT_TYPES.contains(&event_type.as_str()))
}

/// A title: 1 to [`TITLE_BYTES_MAX`] bytes without control characters, not only white space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Title(String);

/// Why a text is not a [`Title`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TitleError {
    /// Nothing, or nothing but white space.
    Empty,
    /// More than [`TITLE_BYTES_MAX`] bytes.
    TooLong,
    /// A line break or another control character.
    Control,
}

impl Title {
    /// Takes `text` for a title, if it can be one. White space around it is cut off.
    pub fn new(text: &str) -> Result<Title, TitleError> {
        let text = text.trim();
        if text.is_empty() {
            Err(TitleError::Empty)
        } else if text.len() > TITLE_BYTES_MAX {
            Err(TitleError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(TitleError::Control)
        } else {
            Ok(Title(text.to_owned()))
        }
    }

    /// The title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TitleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TitleError::Empty => f.write_str("a title needs at least one visible character"),
            TitleError::TooLong => write!(f, "a title has at most {TITLE_BYTES_MAX} bytes"),
            TitleError::Control => f.write_str("a title is one line without control characters"),
        }
    }
}

impl std::error::Error for TitleError {}

/// A list to be made together with its board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewList {
    /// Its id; numbered by the log if absent. Ids of lists are unique over all boards.
    pub id: Option<Topic>,
    /// Its title.
    pub title: Title,
}

/// What somebody wants to change. Ids of boards and lists obey the rules of topic names, since a
/// board's id is its topic's name and both become parts of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Add a task at the end of a list.
    CreateTask {
        /// What it says.
        title: Title,
        /// Where to.
        list: Topic,
    },
    /// Give a task another title.
    RenameTask {
        /// Which one.
        task: Topic,
        /// What it says from now on.
        title: Title,
    },
    /// Put a task elsewhere on its board.
    MoveTask {
        /// Which one.
        task: Topic,
        /// Into which list; may be the one it is in.
        list: Topic,
        /// How many tasks shall be above it; the end if absent or beyond the end.
        index: Option<usize>,
    },
    /// Remove a task for good.
    DeleteTask {
        /// Which one.
        task: Topic,
    },
    /// Make a board. No event tells of it: nobody can watch a board before it exists, and what it
    /// begins with is in its snapshot.
    CreateBoard {
        /// Its id; numbered by the log if absent.
        id: Option<Topic>,
        /// Its name.
        name: Title,
        /// The lists it begins with.
        lists: Vec<NewList>,
    },
    /// Add a list at the right of a board.
    CreateList {
        /// On which board.
        board: Topic,
        /// The list.
        list: NewList,
    },
}

impl Command {
    /// What is asked, as one text that is the same on every node and differs for every other
    /// command: what an idempotency key is tied to.
    pub(crate) fn fingerprint(&self) -> String {
        // Ids and titles contain no control characters.
        match self {
            Command::CreateTask { title, list } => format!("create task\n{title}\n{list}"),
            Command::RenameTask { task, title } => format!("rename task\n{task}\n{title}"),
            Command::MoveTask { task, list, index } => {
                format!("move task\n{task}\n{list}\n{index:?}")
            }
            Command::DeleteTask { task } => format!("delete task\n{task}"),
            Command::CreateBoard { id, name, lists } => {
                let id = id.as_ref().map_or("", Topic::as_str);
                let lists: String = lists.iter().map(NewList::fingerprint).collect();
                format!("create board\n{id}\n{name}{lists}")
            }
            Command::CreateList { board, list } => {
                format!("create list\n{board}{}", list.fingerprint())
            }
        }
    }
}

impl NewList {
    fn fingerprint(&self) -> String {
        format!("\n{}\n{}", self.id.as_ref().map_or("", Topic::as_str), self.title)
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a command cannot be carried out. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoardError {
    /// No board has this id.
    NoSuchBoard,
    /// No list has this id.
    NoSuchList,
    /// No task has this id.
    NoSuchTask,
    /// A board has this id already.
    BoardExists,
    /// A list has this id already, on this board or another.
    ListExists,
    /// The list is on another board than the task.
    ListElsewhere,
    /// The board holds [`TASKS_MAX`] tasks or [`LISTS_MAX`] lists.
    BoardFull,
    /// There are [`BOARDS_MAX`] boards.
    TooManyBoards,
}

impl BoardError {
    /// The word by which Lua scripts name it.
    pub(crate) fn from_word(word: &str) -> Option<BoardError> {
        Some(match word {
            "no_such_board" => BoardError::NoSuchBoard,
            "no_such_list" => BoardError::NoSuchList,
            "no_such_task" => BoardError::NoSuchTask,
            "board_exists" => BoardError::BoardExists,
            "list_exists" => BoardError::ListExists,
            "board_full" => BoardError::BoardFull,
            "too_many_boards" => BoardError::TooManyBoards,
            _ => return None,
        })
    }
}

/// A board among others, as `GET /boards` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoardSummary {
    /// Its id, which is its topic's name too.
    pub id: String,
    /// Its name.
    pub name: String,
}
