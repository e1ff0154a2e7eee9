//! [`Board`]: the state of one board, and each change as the event that tells of it.

use std::collections::HashMap;

use super::view::{BoardEvent, BoardView, FullListView, Index, ListView, Subject, TaskView};
use super::{BoardError, LISTS_MAX, TASKS_MAX, Title};
use crate::entry::Event;
use crate::json::to_text as json;
use crate::topic::Topic;

/// The state of one board.
///
/// Invariant: every task is in exactly one list, the one its record names.
#[derive(Debug, Clone)]
pub struct Board {
    id: Topic,
    name: Title,
    lists: Vec<(Topic, Title, Vec<Topic>)>,
    tasks: HashMap<Topic, Record>,
}

/// What a board knows of a task apart from its place in the list.
#[derive(Debug, Clone)]
struct Record {
    title: Title,
    list: Topic,
    created_at: String,
    updated_at: String,
}

/// A change that happened: the event to log, and the thing to answer with.
#[derive(Debug, Clone)]
pub struct Change {
    /// What subscribers are told.
    pub event: Event,
    /// The changed task or list as JSON; empty for a deletion.
    pub answer: String,
}

impl Board {
    /// A board without lists.
    pub fn new(id: Topic, name: Title) -> Board {
        Board { id, name, lists: Vec::new(), tasks: HashMap::new() }
    }

    /// Its name.
    pub fn name(&self) -> &Title {
        &self.name
    }

    /// Adds a list at the right.
    pub fn create_list(&mut self, id: Topic, title: Title) -> Result<Change, BoardError> {
        if self.lists.iter().any(|(list, ..)| *list == id) {
            return Err(BoardError::ListExists);
        }
        if self.lists.len() >= LISTS_MAX {
            return Err(BoardError::BoardFull);
        }
        let list = ListView { id: id.as_str(), title: title.as_str(), board_id: self.id.as_str() };
        let change =
            Change::new(&BoardEvent::ListCreated { list: Subject::Is(&list) }, json(&list));
        self.lists.push((id, title, Vec::new()));
        Ok(change)
    }

    /// Adds a task at the end of `list`.
    pub fn create_task(
        &mut self,
        id: Topic,
        title: Title,
        list: Topic,
        now: &str,
    ) -> Result<Change, BoardError> {
        if self.tasks.len() >= TASKS_MAX {
            return Err(BoardError::BoardFull);
        }
        self.order(&list)?.push(id.clone());
        let record = Record { title, list, created_at: now.to_owned(), updated_at: now.to_owned() };
        self.tasks.insert(id.clone(), record);
        let task = self.view(&id)?;
        Ok(Change::new(&BoardEvent::TaskCreated { task: Subject::Is(&task) }, json(&task)))
    }

    /// Gives a task another title.
    pub fn rename_task(
        &mut self,
        id: &Topic,
        title: Title,
        now: &str,
    ) -> Result<Change, BoardError> {
        let record = self.tasks.get_mut(id).ok_or(BoardError::NoSuchTask)?;
        record.title = title;
        record.updated_at = now.to_owned();
        let task = self.view(id)?;
        Ok(Change::new(&BoardEvent::TaskUpdated { task: Subject::Is(&task) }, json(&task)))
    }

    /// Puts a task at `index` of `list`, or at its end.
    pub fn move_task(
        &mut self,
        id: &Topic,
        list: Topic,
        index: Option<usize>,
        now: &str,
    ) -> Result<Change, BoardError> {
        let from = self.tasks.get(id).ok_or(BoardError::NoSuchTask)?.list.clone();
        self.order(&list)?;
        self.order(&from)?.retain(|task| task != id);
        let order = self.order(&list)?;
        let index = index.unwrap_or(order.len()).min(order.len());
        order.insert(index, id.clone());
        if let Some(record) = self.tasks.get_mut(id) {
            record.list = list;
            record.updated_at = now.to_owned();
        }
        let task = self.view(id)?;
        let event = BoardEvent::TaskMoved { task: Subject::Is(&task), from_list_id: from.as_str() };
        Ok(Change::new(&event, json(&task)))
    }

    /// Removes a task.
    pub fn delete_task(&mut self, id: &Topic) -> Result<Change, BoardError> {
        let record = self.tasks.remove(id).ok_or(BoardError::NoSuchTask)?;
        self.order(&record.list)?.retain(|task| task != id);
        let event = BoardEvent::TaskDeleted { task_id: id.as_str(), board_id: self.id.as_str() };
        Ok(Change::new(&event, String::new()))
    }

    /// The whole board as JSON, exact at `last_event_id`.
    pub fn to_json(&self, last_event_id: &str) -> String {
        json(&BoardView {
            id: self.id.as_str(),
            name: self.name.as_str().into(),
            lists: self.lists.iter().map(|list| self.view_of_list(list)).collect(),
            last_event_id,
        })
    }

    fn view_of_list<'a>(
        &'a self,
        (id, title, order): &'a (Topic, Title, Vec<Topic>),
    ) -> FullListView<'a> {
        let tasks = order.iter().enumerate();
        FullListView {
            id: id.as_str(),
            title: title.as_str().into(),
            board_id: self.id.as_str(),
            tasks: tasks.filter_map(|(index, task)| self.view_at(task, index)).collect(),
        }
    }

    fn order(&mut self, list: &Topic) -> Result<&mut Vec<Topic>, BoardError> {
        let found = self.lists.iter_mut().find(|(id, ..)| id == list);
        found.map(|(.., order)| order).ok_or(BoardError::NoSuchList)
    }

    fn view<'a>(&'a self, id: &'a Topic) -> Result<TaskView<'a>, BoardError> {
        let find = || {
            let list = &self.tasks.get(id)?.list;
            let (.., order) = self.lists.iter().find(|(id, ..)| id == list)?;
            // Tasks are mostly made, and looked at, at the end.
            let index = order.iter().rposition(|task| task == id)?;
            self.view_at(id, index)
        };
        find().ok_or(BoardError::NoSuchTask)
    }

    fn view_at<'a>(&'a self, id: &'a Topic, index: usize) -> Option<TaskView<'a>> {
        let record = self.tasks.get(id)?;
        Some(TaskView {
            id: id.as_str(),
            title: record.title.as_str().into(),
            list_id: record.list.as_str(),
            board_id: self.id.as_str(),
            index: Index::At(index),
            created_at: &record.created_at,
            updated_at: &record.updated_at,
        })
    }
}

impl Change {
    fn new(event: &BoardEvent<'_>, answer: String) -> Change {
        Change { event: event.event(), answer }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn title(text: &str) -> Title {
        Title::new(text).unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Create(usize),
        Move(usize, usize, Option<usize>),
        Delete(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize).prop_map(Step::Create),
            (0..40_usize, 0..3_usize, proptest::option::of(0..6_usize))
                .prop_map(|(task, list, index)| Step::Move(task, list, index)),
            (0..40_usize).prop_map(Step::Delete),
        ]
    }

    proptest! {
        #[test]
        fn whoever_applies_the_events_has_the_board(
            steps in proptest::collection::vec(any_step(), 0..40)
        ) {
            let mut board = Board::new(topic("b"), title("B"));
            let lists = ["l0", "l1", "l2"].map(topic);
            // A subscriber's view: lists of task ids, changed by events alone.
            let mut view = vec![Vec::<String>::new(); 3];
            for list in &lists {
                board.create_list(list.clone(), title("L")).unwrap();
            }
            for (n, step) in steps.into_iter().enumerate() {
                let task = |n: usize| topic(&format!("task-{n}"));
                let change = match step {
                    Step::Create(list) => {
                        board.create_task(task(n), title("T"), lists[list].clone(), "now")
                    }
                    Step::Move(id, list, index) => {
                        board.move_task(&task(id), lists[list].clone(), index, "now")
                    }
                    Step::Delete(id) => board.delete_task(&task(id)),
                };
                let Ok(change) = change else { continue };
                let data: serde_json::Value =
                    serde_json::from_str(change.event.data.text()).unwrap();
                let id = data["task"]["id"].as_str().or(data["taskId"].as_str()).unwrap();
                for order in &mut view {
                    order.retain(|task| task != id);
                }
                if let Some(list) = data["task"]["listId"].as_str() {
                    let list: usize = list[1..].parse().unwrap();
                    let index = data["task"]["index"].as_u64().unwrap() as usize;
                    view[list].insert(index, id.to_owned());
                }
                let whole: serde_json::Value =
                    serde_json::from_str(&board.to_json("1-aaaa")).unwrap();
                for (n, order) in view.iter().enumerate() {
                    let tasks = whole["lists"][n]["tasks"].as_array().unwrap();
                    let ids: Vec<&str> =
                        tasks.iter().map(|task| task["id"].as_str().unwrap()).collect();
                    prop_assert_eq!(&ids, order);
                    for (index, task) in tasks.iter().enumerate() {
                        prop_assert_eq!(task["index"].as_u64(), Some(index as u64));
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut board = Board::new(topic("b"), title("B"));
        board.create_list(topic("l"), title("L")).unwrap();
        board.create_task(topic("task-1"), title("T"), topic("l"), "now").unwrap();
        let before = board.to_json("");
        let refusals = [
            board.create_list(topic("l"), title("L")).unwrap_err(),
            board.create_task(topic("task-2"), title("T"), topic("?"), "now").unwrap_err(),
            board.move_task(&topic("task-1"), topic("?"), None, "now").unwrap_err(),
            board.move_task(&topic("task-9"), topic("l"), None, "now").unwrap_err(),
            board.rename_task(&topic("task-9"), title("T"), "now").unwrap_err(),
            board.delete_task(&topic("task-9")).unwrap_err(),
        ];
        use BoardError::*;
        assert_eq!(
            refusals,
            [ListExists, NoSuchList, NoSuchList, NoSuchTask, NoSuchTask, NoSuchTask]
        );
        assert_eq!(board.to_json(""), before);
    }
}
