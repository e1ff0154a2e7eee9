//! A snapshot of a board, from what its keys hold.

use std::borrow::Cow;

use redis::Value;
use serde::Deserialize;

use super::super::replies::unexpected;
use crate::board::view::{BoardView, FullListView, Index, TaskView};
use crate::json::to_text as json;
use crate::log::{LogError, Snapshot};
use crate::position::Position;
use crate::topic::Topic;

/// Reads what `board_read.lua` returned; `None` if there is no such board.
pub(super) fn snapshot(board: &Topic, reply: &[Value]) -> Result<Option<Snapshot>, LogError> {
    let [seq, epoch, name, Value::Array(lists)] = reply else {
        return if reply.is_empty() { Ok(None) } else { Err(unexpected("a board")) };
    };
    let position = format!("{}-{}", text(seq)?, text(epoch)?);
    let exact_at: Position = position.parse().map_err(|_| unexpected("a position"))?;
    let view = BoardView {
        id: board.as_str(),
        name: title(text(name)?)?,
        lists: lists
            .chunks_exact(3)
            .map(|list| read_list(board, list))
            .collect::<Result<_, _>>()?,
        last_event_id: &position,
    };
    Ok(Some(Snapshot { position: exact_at, json: json(&view).into(), pieces: None }))
}

fn read_list<'a>(board: &'a Topic, reply: &'a [Value]) -> Result<FullListView<'a>, LogError> {
    let [id, name, Value::Array(tasks)] = reply else { return Err(unexpected("a list")) };
    let id = text(id)?;
    let mut list = FullListView {
        id,
        title: title(text(name)?)?,
        board_id: board.as_str(),
        tasks: Vec::with_capacity(tasks.len() / 2),
    };
    for task in tasks.chunks_exact(2) {
        let (task_id, record) = (text(&task[0])?, text(&task[1])?);
        // The list, the times and the title; one that was evicted is no task any more.
        let mut fields = record.splitn(4, '\n').skip(1);
        let (Some(created_at), Some(updated_at), Some(task_title)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        list.tasks.push(TaskView {
            id: task_id,
            title: title(task_title)?,
            list_id: id,
            board_id: board.as_str(),
            index: Index::At(list.tasks.len()),
            created_at,
            updated_at,
        });
    }
    Ok(list)
}

fn text(value: &Value) -> Result<&str, LogError> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unexpected("text")),
        Value::SimpleString(text) => Ok(text),
        _ => Err(unexpected("text")),
    }
}

/// Reads a title, which is kept as JSON; copied only where it has to be unescaped.
fn title(json: &str) -> Result<Cow<'_, str>, LogError> {
    #[derive(Deserialize)]
    struct Title<'a>(#[serde(borrow)] Cow<'a, str>);
    let title: Title<'_> = serde_json::from_str(json).map_err(|_| unexpected("a title"))?;
    Ok(title.0)
}
