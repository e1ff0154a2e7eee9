//! `GET /boards`, `POST /boards`, `GET /boards/{board}`, `POST /boards/{board}/lists`.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use super::super::access::{BoardChanger, Caller, ChangeableBoard};
use super::super::held::Made;
use super::super::problem::Problem;
use super::super::request::body::{AtMost, Object};
use super::super::request::{Body, IdPath, Preconditions, topic};
use super::super::set_last_event_id;
use super::{BoardApp, title, write_response};
use crate::access::Action;
use crate::board::{BOARDS_MAX, BoardError, BoardSummary, Command, LISTS_MAX, NewList};
use crate::json;
use crate::log::Conditions;
use crate::net;
use crate::topic::Topic;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewBoard {
    id: Option<String>,
    name: String,
    #[serde(default)]
    lists: AtMost<NewListBody, LISTS_MAX>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewListBody {
    id: Option<String>,
    title: String,
}

impl NewListBody {
    fn into_list(self) -> Result<NewList, Problem> {
        let id = self.id.as_deref().map(topic).transpose()?;
        Ok(NewList { id, title: title(&self.title)? })
    }
}

/// The boards that the caller may read.
pub(super) async fn all(caller: Caller, State(app): State<BoardApp>) -> Result<Response, Problem> {
    let make = async || {
        let mut boards = app.boards.list(None, BOARDS_MAX).await?;
        // All of them are there for a moment, whoever may see which.
        let bytes = boards.iter().map(size_of_summary).sum();
        boards.retain(|board| {
            let id = Topic::new(&board.id);
            id.is_ok_and(|id| caller.grant.allows(&Action::ReadBoard(&id)))
        });
        Ok(Made { text: json::to_text(&boards), bytes })
    };
    let budget = app.node.replays.budget();
    let question = caller.grant.readable_boards().clone();
    app.lists_of_boards.answer(budget, question, "application/json", make).await
}

/// What it is as JSON, roughly, in bytes.
fn size_of_summary(board: &BoardSummary) -> usize {
    board.id.len() + board.name.len() + r#"{"id":"","name":""},"#.len()
}

pub(super) async fn create(
    BoardChanger(caller): BoardChanger,
    State(app): State<BoardApp>,
    Preconditions(conditions): Preconditions,
    Body(Object(board), _memory): Body<Object<NewBoard>>,
) -> Result<Response, Problem> {
    let id = board.id.as_deref().map(topic).transpose()?;
    match &id {
        Some(id) => caller.may(Action::ChangeBoard(id))?,
        None => caller.may_make_boards()?,
    }
    if conditions != Conditions::NONE {
        return Err(Problem::bad_request(
            "making a board takes neither Idempotency-Key nor If-Match: give it an id, and making \
             it twice is refused",
        ));
    }
    let lists: Result<Vec<NewList>, Problem> =
        board.lists.0.into_iter().map(NewListBody::into_list).collect();
    let command = Command::CreateBoard { id, name: title(&board.name)?, lists: lists? };
    Ok(write_response(StatusCode::CREATED, app.change(&caller, command, &conditions).await?))
}

pub(super) async fn show(
    caller: Caller,
    State(app): State<BoardApp>,
    IdPath(board): IdPath,
) -> Result<Response, Problem> {
    caller.may(Action::ReadBoard(&board))?;
    let snapshot = app.node.replays.snapshot(&board).await?.ok_or(BoardError::NoSuchBoard)?;
    let body = net::body_of_held(snapshot.json, app.node.replays.budget());
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set_last_event_id(&mut response, snapshot.position);
    Ok(response)
}

pub(super) async fn create_list(
    State(app): State<BoardApp>,
    ChangeableBoard(board, caller): ChangeableBoard,
    Preconditions(conditions): Preconditions,
    Body(Object(list), _memory): Body<Object<NewListBody>>,
) -> Result<Response, Problem> {
    let command = Command::CreateList { board, list: list.into_list()? };
    Ok(write_response(StatusCode::CREATED, app.change(&caller, command, &conditions).await?))
}
