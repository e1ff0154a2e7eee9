//! A board as others see it: the one place where tasks, lists and boards become JSON, and changes
//! become events. Pure.
//!
//! On Redis a change is carried out by a script, and some of what is told of it only the script
//! knows: the title of a task that is moved, its place, the time. Such a value is left open in the
//! text ([`OPEN_TITLE`] and the others) and the script fills it in. So that what is told is written
//! here even then, and the same on both logs.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::entry::{Data, Event, EventType};
use crate::json::to_text as json;

/// What a script fills in: stands for the whole value, as the JSON string of one control character,
/// which no name and no title has. `board.lua` knows them by their numbers.
pub(crate) const OPEN_TITLE: &str = "\u{1}";
/// The id of a new task.
pub(crate) const OPEN_ID: &str = "\u{0}";
/// The id of the task's list.
pub(crate) const OPEN_LIST: &str = "\u{2}";
/// When the task was made.
pub(crate) const OPEN_CREATED_AT: &str = "\u{4}";
/// When the task was changed.
pub(crate) const OPEN_UPDATED_AT: &str = "\u{5}";
/// The id of the list where the task was before.
pub(crate) const OPEN_FROM_LIST: &str = "\u{6}";

/// How many tasks are above a task in its list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Index {
    /// So many.
    At(usize),
    /// The script fills it in.
    Open,
}

impl Serialize for Index {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Index::At(index) => index.serialize(serializer),
            Index::Open => serializer.serialize_str("\u{3}"),
        }
    }
}

/// A task as the API shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskView<'a> {
    /// `task-5`, or `task-5-12` on the board with the number 12.
    pub(crate) id: &'a str,
    /// What it says.
    pub(crate) title: Cow<'a, str>,
    /// The list it is in.
    pub(crate) list_id: &'a str,
    /// The board it is on.
    pub(crate) board_id: &'a str,
    /// How many tasks are above it in its list.
    pub(crate) index: Index,
    /// When it was made, RFC 3339 with milliseconds, by the log's clock.
    pub(crate) created_at: &'a str,
    /// When it was last changed, likewise.
    pub(crate) updated_at: &'a str,
}

/// A list without its tasks, as `list_created` tells of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListView<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Its title.
    pub(crate) title: &'a str,
    /// The board it is on.
    pub(crate) board_id: &'a str,
}

/// A list with its tasks, as a board shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FullListView<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Its title.
    pub(crate) title: Cow<'a, str>,
    /// The board it is on.
    pub(crate) board_id: &'a str,
    /// Its tasks, top to bottom.
    pub(crate) tasks: Vec<TaskView<'a>>,
}

/// A whole board.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BoardView<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Its name.
    pub(crate) name: Cow<'a, str>,
    /// Its lists, left to right.
    pub(crate) lists: Vec<FullListView<'a>>,
    /// The position it is exact for.
    pub(crate) last_event_id: &'a str,
}

/// What subscribers are told of a change.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum BoardEvent<'a> {
    /// A task was added.
    TaskCreated { task: Subject<'a, TaskView<'a>> },
    /// A task has another title.
    TaskUpdated { task: Subject<'a, TaskView<'a>> },
    /// A task is elsewhere on its board.
    TaskMoved { task: Subject<'a, TaskView<'a>>, from_list_id: &'a str },
    /// A task is gone.
    TaskDeleted { task_id: &'a str, board_id: &'a str },
    /// A list was added.
    ListCreated { list: Subject<'a, ListView<'a>> },
}

/// The task or list that an event tells of; the answer to who changed it is the same text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a, T> {
    /// This one.
    Is(&'a T),
    /// The script puts the answer here.
    Open,
}

const OPEN_SUBJECT: &str = "\u{7}";

impl<T: Serialize> Serialize for Subject<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Subject::Is(view) => view.serialize(serializer),
            Subject::Open => serializer.serialize_str(OPEN_SUBJECT),
        }
    }
}

/// What stands before and after the subject in a text where it was left open; all of the text and
/// nothing, if it has none.
pub(crate) fn around_subject(text: &str) -> (&str, &str) {
    text.split_once(&json(&OPEN_SUBJECT)).unwrap_or((text, ""))
}

impl BoardEvent<'_> {
    fn event_type(&self) -> &'static str {
        match self {
            BoardEvent::TaskCreated { .. } => "task_created",
            BoardEvent::TaskUpdated { .. } => "task_updated",
            BoardEvent::TaskMoved { .. } => "task_moved",
            BoardEvent::TaskDeleted { .. } => "task_deleted",
            BoardEvent::ListCreated { .. } => "list_created",
        }
    }

    /// As an event of the board's topic.
    pub(crate) fn event(&self) -> Event {
        Event { event_type: EventType::new(self.event_type()).ok(), data: Data::Json(json(self)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::is_of_board;

    /// As `board.lua` fills it in.
    fn fill(text: &str, values: &[(&str, &str)]) -> String {
        let mut filled = text.to_owned();
        for (open, value) in values {
            filled = filled.replace(&json(open), value);
        }
        filled
    }

    #[test]
    fn what_is_left_open_is_filled_in_and_nothing_else() {
        // Titles that look like it.
        for title in ["\\u0001", "\"\\u0001\"", "\\\"\\u0001\"", "u0001", "\\"] {
            let known = TaskView {
                id: "task-1",
                title: title.into(),
                list_id: "a\"\\b",
                board_id: "b",
                index: Index::At(7),
                created_at: "then",
                updated_at: "now",
            };
            let open = TaskView {
                id: OPEN_ID,
                index: Index::Open,
                created_at: OPEN_CREATED_AT,
                updated_at: OPEN_UPDATED_AT,
                ..known.clone()
            };
            let values = [
                (OPEN_TITLE, "never"),
                (OPEN_LIST, "never"),
                ("\u{3}", "7"),
                (OPEN_ID, "\"task-1\""),
                (OPEN_CREATED_AT, "\"then\""),
                (OPEN_UPDATED_AT, "\"now\""),
                (OPEN_FROM_LIST, "\"from\""),
            ];
            assert_eq!(fill(&json(&open), &values), json(&known));
            let moved =
                json(&BoardEvent::TaskMoved { task: Subject::Open, from_list_id: OPEN_FROM_LIST });
            let (before, after) = around_subject(&moved);
            let moved = format!("{before}{}{}", json(&known), fill(after, &values));
            let task = Subject::Is(&known);
            let expected = BoardEvent::TaskMoved { task, from_list_id: "from" };
            assert_eq!(moved, json(&expected));
            let deleted = json(&BoardEvent::TaskDeleted { task_id: title, board_id: title });
            assert_eq!(around_subject(&deleted), (deleted.as_str(), ""));
        }
    }

    #[test]
    fn what_is_left_open_has_the_form_by_which_scripts_know_it() {
        let open = [
            OPEN_ID,
            OPEN_TITLE,
            OPEN_LIST,
            "\u{3}",
            OPEN_CREATED_AT,
            OPEN_UPDATED_AT,
            OPEN_FROM_LIST,
            OPEN_SUBJECT,
        ];
        for (n, open) in open.iter().enumerate() {
            assert_eq!(json(open), format!("\"\\u000{n}\""));
        }
        assert_eq!(json(&Index::Open), "\"\\u0003\"");
    }

    #[test]
    fn what_a_board_tells_nobody_else_may_say() {
        let list = ListView { id: "l", title: "L", board_id: "b" };
        let task = TaskView {
            id: "t",
            title: "T".into(),
            list_id: "l",
            board_id: "b",
            index: Index::At(0),
            created_at: "",
            updated_at: "",
        };
        for event in [
            BoardEvent::TaskCreated { task: Subject::Is(&task) },
            BoardEvent::TaskUpdated { task: Subject::Is(&task) },
            BoardEvent::TaskMoved { task: Subject::Is(&task), from_list_id: "l" },
            BoardEvent::TaskDeleted { task_id: "t", board_id: "b" },
            BoardEvent::ListCreated { list: Subject::Is(&list) },
        ] {
            assert!(is_of_board(&event.event()), "{event:?}");
        }
    }
}
