//! `POST /tasks`, `PATCH /tasks/{id}`, `PATCH /tasks/{id}/move`, `DELETE /tasks/{id}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::super::access::{BoardChanger, Caller};
use super::super::problem::Problem;
use super::super::request::body::Object;
use super::super::request::{Body, IdPath, Preconditions};
use super::{BoardApp, title, write_response};
use crate::board::{BoardError, Command, OnBoard};
use crate::log::Conditions;
use crate::topic::Topic;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct NewTask {
    title: String,
    list_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewTitle {
    title: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct NewPlace {
    list_id: String,
    index: Option<usize>,
}

pub(super) async fn create(
    BoardChanger(caller): BoardChanger,
    State(app): State<BoardApp>,
    Preconditions(conditions): Preconditions,
    Body(Object(task), _memory): Body<Object<NewTask>>,
) -> Result<Response, Problem> {
    let list = list(&task.list_id)?;
    may_change(&app, &caller, OnBoard::List(&list)).await?;
    let command = Command::CreateTask { title: title(&task.title)?, list };
    Ok(write_response(StatusCode::CREATED, app.change(&caller, command, &conditions).await?))
}

pub(super) async fn rename(
    BoardChanger(caller): BoardChanger,
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
    Body(Object(new), _memory): Body<Object<NewTitle>>,
) -> Result<Response, Problem> {
    may_change(&app, &caller, OnBoard::Task(&task)).await?;
    let command = Command::RenameTask { task, title: title(&new.title)? };
    Ok(write_response(StatusCode::OK, app.change(&caller, command, &conditions).await?))
}

pub(super) async fn place(
    BoardChanger(caller): BoardChanger,
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
    Body(Object(new), _memory): Body<Object<NewPlace>>,
) -> Result<Response, Problem> {
    may_change(&app, &caller, OnBoard::Task(&task)).await?;
    let command = Command::MoveTask { task, list: list(&new.list_id)?, index: new.index };
    Ok(write_response(StatusCode::OK, app.change(&caller, command, &conditions).await?))
}

pub(super) async fn delete(
    BoardChanger(caller): BoardChanger,
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
) -> Result<Response, Problem> {
    may_change(&app, &caller, OnBoard::Task(&task)).await?;
    let command = Command::DeleteTask { task };
    // To delete twice is to delete once: the second finds no task. A key would add nothing.
    let conditions = Conditions { idempotency_key: None, ..conditions };
    Ok(write_response(StatusCode::NO_CONTENT, app.change(&caller, command, &conditions).await?))
}

/// Whether the caller may change the board that this is on. Found out before anything else is done
/// on their behalf: neither a condition nor the answer to an earlier request says more than they may
/// know. A task and a list stay on the board that they were made on. Of boards that they may not even
/// read they learn nothing: what is there is not found.
async fn may_change(app: &BoardApp, caller: &Caller, thing: OnBoard<'_>) -> Result<(), Problem> {
    if caller.grant.may_change_all_boards() {
        return Ok(());
    }
    let board = app.boards.board_of(thing).await?;
    caller.may_change_its_board(&board, thing.missing())
}

/// The id of a list that must exist: what cannot be an id, nothing has.
fn list(id: &str) -> Result<Topic, Problem> {
    Topic::new(id).map_err(|_| BoardError::NoSuchList.into())
}
