//! `POST /tasks`, `PATCH /tasks/{id}`, `PATCH /tasks/{id}/move`, `DELETE /tasks/{id}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::problem::Problem;
use super::request::{Body, IdPath};
use super::{App, changed, title};
use crate::board::{Command, Refusal};
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
    State(app): State<App>,
    Body(task): Body<NewTask>,
) -> Result<Response, Problem> {
    let command = Command::CreateTask { title: title(&task.title)?, list: list(&task.list_id)? };
    let change = app.node.log.change(command).await?;
    Ok(changed(StatusCode::CREATED, change))
}

pub(super) async fn rename(
    State(app): State<App>,
    IdPath(task): IdPath,
    Body(new): Body<NewTitle>,
) -> Result<Response, Problem> {
    let command = Command::RenameTask { task, title: title(&new.title)? };
    Ok(changed(StatusCode::OK, app.node.log.change(command).await?))
}

pub(super) async fn place(
    State(app): State<App>,
    IdPath(task): IdPath,
    Body(new): Body<NewPlace>,
) -> Result<Response, Problem> {
    let command = Command::MoveTask { task, list: list(&new.list_id)?, index: new.index };
    Ok(changed(StatusCode::OK, app.node.log.change(command).await?))
}

pub(super) async fn delete(
    State(app): State<App>,
    IdPath(task): IdPath,
) -> Result<Response, Problem> {
    let command = Command::DeleteTask { task };
    Ok(changed(StatusCode::NO_CONTENT, app.node.log.change(command).await?))
}

/// The id of a list that must exist: what cannot be an id, nothing has.
fn list(id: &str) -> Result<Topic, Problem> {
    Topic::new(id).map_err(|_| Refusal::NoSuchList.into())
}
