//! `POST /tasks`, `PATCH /tasks/{id}`, `PATCH /tasks/{id}/move`, `DELETE /tasks/{id}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::super::problem::Problem;
use super::super::request::body::Object;
use super::super::request::{Body, IdPath, Preconditions};
use super::{BoardApp, title, write_response};
use crate::board::{BoardError, Command};
use crate::log::Conditions;
use crate::topic::Topic;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewTask {
    title: String,
    list_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTitle {
    title: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewPlace {
    list_id: String,
    index: Option<usize>,
}

pub(super) async fn create(
    State(app): State<BoardApp>,
    Preconditions(conditions): Preconditions,
    Body(Object(task), _memory): Body<Object<NewTask>>,
) -> Result<Response, Problem> {
    let command = Command::CreateTask { title: title(&task.title)?, list: list(&task.list_id)? };
    Ok(write_response(StatusCode::CREATED, app.boards.change(command, &conditions).await?))
}

pub(super) async fn rename(
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
    Body(Object(new), _memory): Body<Object<NewTitle>>,
) -> Result<Response, Problem> {
    let command = Command::RenameTask { task, title: title(&new.title)? };
    Ok(write_response(StatusCode::OK, app.boards.change(command, &conditions).await?))
}

pub(super) async fn place(
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
    Body(Object(new), _memory): Body<Object<NewPlace>>,
) -> Result<Response, Problem> {
    let command = Command::MoveTask { task, list: list(&new.list_id)?, index: new.index };
    Ok(write_response(StatusCode::OK, app.boards.change(command, &conditions).await?))
}

pub(super) async fn delete(
    State(app): State<BoardApp>,
    IdPath(task): IdPath,
    Preconditions(conditions): Preconditions,
) -> Result<Response, Problem> {
    let command = Command::DeleteTask { task };
    // To delete twice is to delete once: the second finds no task. A key would add nothing.
    let conditions = Conditions { idempotency_key: None, ..conditions };
    Ok(write_response(StatusCode::NO_CONTENT, app.boards.change(command, &conditions).await?))
}

/// The id of a list that must exist: what cannot be an id, nothing has.
fn list(id: &str) -> Result<Topic, Problem> {
    Topic::new(id).map_err(|_| BoardError::NoSuchList.into())
}
