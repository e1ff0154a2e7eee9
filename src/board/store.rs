//! [`Boards`]: what the task board needs from a backend.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BoardError, BoardSummary, Command};
use crate::log::{Conditions, LogError, Snapshots};
use crate::position::Position;
use crate::topic::Topic;

/// The boards, whose changes their logs tell. Each board is the state of the topic of its name, as
/// [`Snapshots`] gives it.
///
/// After any `Err` but [`LogError::OutcomeUnknown`] nothing has changed.
#[async_trait]
pub trait Boards: Snapshots {
    /// Changes a board and appends the event that tells of it, as one atomic step. Making a board
    /// and deleting a task take no idempotency key.
    async fn change(
        &self,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, ChangeError>;

    /// The board that something is on, if it is there at all. Nothing moves from one board to another.
    ///
    /// # Errors
    /// [`BoardError::NoSuchList`] or [`BoardError::NoSuchTask`] where it can be on none.
    async fn board_of(&self, thing: OnBoard<'_>) -> Result<Topic, ChangeError>;

    /// Boards in the order of their creation, so many at most: all, or those after one of them.
    async fn list(
        &self,
        after: Option<&Topic>,
        limit: usize,
    ) -> Result<Vec<BoardSummary>, LogError>;

    /// Makes the first board if there are none: a new installation, or one that lost everything.
    async fn ensure_first_board(&self) -> Result<(), LogError>;
}

/// Something that is on a board, by its id.
#[derive(Debug, Clone, Copy)]
pub enum OnBoard<'a> {
    /// A list.
    List(&'a Topic),
    /// A task.
    Task(&'a Topic),
}

impl OnBoard<'_> {
    /// What is told where there is none.
    pub fn missing(self) -> BoardError {
        match self {
            OnBoard::List(_) => BoardError::NoSuchList,
            OnBoard::Task(_) => BoardError::NoSuchTask,
        }
    }
}

/// Where and how a change took effect.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The board that changed.
    pub board: Topic,
    /// The position of the event it caused; of the log as it is if it caused none.
    pub position: Position,
    /// How many events it caused.
    pub events: u64,
    /// The changed task, list or board as JSON; empty for a deletion.
    pub answer: Bytes,
    /// Whether that happened before, when the same request came with the same idempotency key.
    pub replayed: bool,
}

/// Why a change was not carried out.
#[derive(Debug, Clone)]
pub enum ChangeError {
    /// The rules of the board forbid it.
    Refused(BoardError),
    /// The log did not do it.
    Log(LogError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Refused(refusal) => write!(f, "refused: {refusal:?}"),
            ChangeError::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<BoardError> for ChangeError {
    fn from(refusal: BoardError) -> ChangeError {
        ChangeError::Refused(refusal)
    }
}

impl From<LogError> for ChangeError {
    fn from(error: LogError) -> ChangeError {
        ChangeError::Log(error)
    }
}
