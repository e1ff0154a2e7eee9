//! The task board's API: the one place where the application is mounted.

mod boards;
#[cfg(feature = "fuzz")]
pub(super) mod fuzz {
    pub(in crate::http) use super::boards::{NewBoard, NewListBody};
    pub(in crate::http) use super::tasks::{NewPlace, NewTask, NewTitle};
}
mod tasks;

use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};

use super::access::Caller;
use super::held::HeldAnswers;
use super::problem::Problem;
use super::{READS, Route, set_last_event_id, set_replayed};
use crate::access::names::Names;
use crate::admission::client_rates::ClientRates;
use crate::board::{BoardError, Boards, ChangeError, Changed, Command, OnBoard, Title};
use crate::log::{Conditions, NoState};
use crate::stream::Node;
use crate::telemetry::metric;
use crate::topic::Topic;

/// What the board's handlers share.
#[derive(Clone)]
struct BoardApp {
    boards: Arc<dyn Boards>,
    /// Whose reads of whole boards are shared with its streams.
    node: Arc<Node>,
    rates: Arc<ClientRates>,
    /// By which boards the caller may read.
    lists_of_boards: Arc<HeldAnswers<Names>>,
}

impl BoardApp {
    /// Changes a board on the caller's account.
    async fn change(
        &self,
        caller: &Caller,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, Problem> {
        caller.may_publish_now(&self.rates, 1)?;
        let to_list = match &command {
            Command::MoveTask { list, .. } => Some(list.clone()),
            _ => None,
        };
        let changed = self.boards.change(command, conditions).await;
        if let Err(ChangeError::Refused(BoardError::ListElsewhere)) = changed
            && let Some(list) = to_list
            && !self.may_know_of(caller, &list).await
        {
            return Err(BoardError::NoSuchList.into());
        }
        Ok(changed?)
    }

    /// Whether the caller may be told that there is this list.
    async fn may_know_of(&self, caller: &Caller, list: &Topic) -> bool {
        if caller.grant.may_change_all_boards() {
            return true;
        }
        let board = self.boards.board_of(OnBoard::List(list)).await;
        board.is_ok_and(|board| caller.may_know_of(&board))
    }
}

/// The board's routes; its streams are those of every topic. None takes parameters.
pub(super) fn routes(
    boards: Arc<dyn Boards>,
    node: Arc<Node>,
    rates: Arc<ClientRates>,
) -> Vec<Route> {
    const POST: &[Method] = &[Method::POST];
    const PATCH: &[Method] = &[Method::PATCH];
    const PATCH_OR_DELETE: &[Method] = &[Method::PATCH, Method::DELETE];
    const READS_OR_POST: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
    let app = BoardApp { boards, node, rates, lists_of_boards: Arc::default() };
    let route = |path, methods: MethodRouter<BoardApp>, without_parameters| {
        Route::new(path, methods.with_state(app.clone())).without_parameters(without_parameters)
    };
    vec![
        route("/tasks", post(tasks::create), POST),
        route("/tasks/{task}", patch(tasks::rename).delete(tasks::delete), PATCH_OR_DELETE),
        route("/tasks/{task}/move", patch(tasks::place), PATCH),
        route("/boards", get(boards::all).post(boards::create), READS_OR_POST),
        route("/boards/{board}", get(boards::show), READS),
        route("/boards/{board}/lists", post(boards::create_list), POST),
    ]
}

/// The answer to a write: the changed thing, and the position of the event it caused, so that a
/// page can open its stream exactly there.
fn write_response(status: StatusCode, changed: Changed) -> Response {
    metric::published(changed.events);
    let mut response = if changed.answer.is_empty() {
        status.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        (status, [(header::CONTENT_TYPE, json)], changed.answer).into_response()
    };
    set_last_event_id(&mut response, changed.position);
    set_replayed(&mut response, changed.replayed);
    response
}

/// A title from a request.
fn title(text: &str) -> Result<Title, Problem> {
    Title::new(text).map_err(|error| Problem::bad_request(error.to_string()))
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Problem {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Log(error) => error.into(),
        }
    }
}

/// The only states are those of boards.
impl From<NoState> for Problem {
    fn from(_: NoState) -> Problem {
        BoardError::NoSuchBoard.into()
    }
}

impl From<BoardError> for Problem {
    fn from(error: BoardError) -> Problem {
        let (status, kind, title, detail) = match error {
            BoardError::NoSuchBoard => {
                (StatusCode::NOT_FOUND, "no-such-board", "No such board", "no board has this id")
            }
            BoardError::NoSuchList => {
                (StatusCode::NOT_FOUND, "no-such-list", "No such list", "no list has this id")
            }
            BoardError::NoSuchTask => {
                (StatusCode::NOT_FOUND, "no-such-task", "No such task", "no task has this id")
            }
            BoardError::BoardExists => (
                StatusCode::CONFLICT,
                "board-exists",
                "Board exists",
                "a board has this id already",
            ),
            BoardError::ListExists => (
                StatusCode::CONFLICT,
                "list-exists",
                "List exists",
                "a list has this id already, on this board or another",
            ),
            BoardError::ListElsewhere => (
                StatusCode::CONFLICT,
                "list-elsewhere",
                "List on another board",
                "a task cannot move to a list of another board",
            ),
            BoardError::BoardFull => (
                StatusCode::CONFLICT,
                "board-full",
                "Board full",
                "the board has as many tasks or lists as a board may have",
            ),
            BoardError::TooManyBoards => (
                StatusCode::CONFLICT,
                "too-many-boards",
                "Too many boards",
                "there are as many boards as there may be",
            ),
        };
        Problem::new(status, kind, title, detail.to_owned())
    }
}
