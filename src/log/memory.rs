//! The embedded log: everything in this process's memory, for one node.
//!
//! It keeps every promise of [`Log`] except outliving the process, so that one command shows
//! Fantail working and tests run against a real log without Redis. All state stands behind one
//! lock, which makes each step as atomic as a Redis script.

mod answers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{
    Appended, Conditions, Health, Log, LogError, Notification, Notifier, Opened, Page, Probe,
    READ_BYTES_MAX, READ_ENTRIES_MAX, Registry, Retention, Snapshot, Snapshots,
};
use crate::board::{
    self, BOARDS_MAX, Board, BoardError, BoardSummary, Boards, ChangeError, Changed, Command,
    NewList,
};
use crate::entry::{Data, Entry, Event};
use crate::json::to_text as json;
use crate::position::{Epoch, LogHistory, Position};
use crate::topic::Topic;
use crate::wire::sse;
use answers::{Answers, Kept};

/// Memory that entries may take over all topics, in bytes. Beyond it the longest idle topics
/// expire early, then the fullest lose their oldest entries; both are told as resets.
const ENTRIES_BYTES_MAX: usize = 256 << 20;

/// What one entry or topic costs beside its text, roughly, in bytes.
const OVERHEAD_BYTES: usize = 200;

/// A log in memory.
pub struct MemoryLog {
    state: Mutex<State>,
    notifier: Notifier,
    retention: Retention,
}

struct State {
    topics: HashMap<Topic, TopicLog>,
    boards: HashMap<Topic, Board>,
    /// Ids of boards in the order of their creation.
    board_order: Vec<Topic>,
    board_of_list: HashMap<Topic, Topic>,
    board_of_task: HashMap<Topic, Topic>,
    tasks_made: u64,
    lists_made: u64,
    boards_made: u64,
    subscribed: HashSet<Topic>,
    reports: HashMap<String, String>,
    answers: Answers,
    bytes: usize,
}

/// Invariant: `entries` is contiguous and ends at `seq`.
struct TopicLog {
    epoch: Epoch,
    seq: u64,
    entries: VecDeque<Entry>,
    used_at: Instant,
}

impl MemoryLog {
    /// An empty log with the first board, and where it is notifications.
    pub fn new(retention: Retention) -> (MemoryLog, mpsc::Receiver<Notification>) {
        let (notifier, notifications) = Notifier::new();
        let state = State {
            topics: HashMap::new(),
            boards: HashMap::new(),
            board_order: Vec::new(),
            board_of_list: HashMap::new(),
            board_of_task: HashMap::new(),
            tasks_made: 0,
            lists_made: 0,
            boards_made: 0,
            subscribed: HashSet::new(),
            reports: HashMap::new(),
            answers: Answers::default(),
            bytes: 0,
        };
        (MemoryLog { state: Mutex::new(state), notifier, retention }, notifications)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change that matters to others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request was answered before, if it was.
    fn answered(
        &self,
        state: &mut State,
        topic: &Topic,
        request: &impl Hash,
        conditions: &Conditions,
    ) -> Result<Option<Kept>, LogError> {
        let Some(key) = &conditions.idempotency_key else { return Ok(None) };
        let place = (topic.clone(), key.clone());
        state.answers.find(&place, request, self.retention.idempotency_window)
    }

    /// Whether the head is where the request wants it.
    fn check_head(
        &self,
        state: &mut State,
        topic: &Topic,
        conditions: &Conditions,
    ) -> Result<(), LogError> {
        let Some(position) = conditions.if_match else { return Ok(()) };
        let history = state.open(topic, &self.retention).history();
        match history.is_head(position) {
            true => Ok(()),
            false => Err(LogError::PreconditionFailed(history.at(history.head))),
        }
    }

    /// Appends under the lock, so that announcements leave in log order.
    fn append_to(&self, state: &mut State, topic: &Topic, event: &Event) -> Position {
        let log = state.open(topic, &self.retention);
        log.seq += 1;
        let position = Position { seq: log.seq, epoch: log.epoch };
        let entry = Entry {
            position,
            milliseconds: milliseconds(),
            json: matches!(event.data, Data::Json(_)),
            rest: sse::event_text(event),
        };
        let announced = sse::frame(&entry);
        let mut bytes = (entry.rest.len() + OVERHEAD_BYTES) as isize;
        log.entries.push_back(entry);
        while log.entries.len() > self.retention.history_entries_max {
            bytes -= log.trim() as isize;
        }
        state.bytes = state.bytes.saturating_add_signed(bytes);
        if state.bytes > ENTRIES_BYTES_MAX {
            state.make_room(topic);
        }
        if state.subscribed.contains(topic) {
            self.notifier.notify(topic.clone(), announced);
        }
        position
    }
}

impl TopicLog {
    fn history(&self) -> LogHistory {
        let oldest = self.seq + 1 - self.entries.len() as u64;
        LogHistory { epoch: self.epoch, past_epochs: Vec::new(), head: self.seq, oldest }
    }

    /// Removes the oldest entry and says how many bytes that freed.
    fn trim(&mut self) -> usize {
        self.entries.pop_front().map_or(0, |entry| entry.rest.len() + OVERHEAD_BYTES)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.rest.len() + OVERHEAD_BYTES).sum()
    }
}

impl State {
    /// Finds a topic's log that has not expired, or makes it.
    fn open(&mut self, topic: &Topic, retention: &Retention) -> &mut TopicLog {
        self.expire(topic, retention);
        if !self.topics.contains_key(topic) {
            self.bytes += OVERHEAD_BYTES;
        }
        let log = self.topics.entry(topic.clone()).or_insert_with(|| TopicLog {
            epoch: Epoch::random(),
            seq: 0,
            entries: VecDeque::new(),
            used_at: Instant::now(),
        });
        log.used_at = Instant::now();
        log
    }

    /// Forgets the topic if it was idle for too long. A board's log stays with its board.
    fn expire(&mut self, topic: &Topic, retention: &Retention) {
        let Some(log) = self.topics.get(topic) else { return };
        if log.used_at.elapsed() > retention.history_ttl && !self.boards.contains_key(topic) {
            self.forget(topic);
        }
    }

    fn forget(&mut self, topic: &Topic) {
        if let Some(log) = self.topics.remove(topic) {
            self.bytes = self.bytes.saturating_sub(log.bytes() + OVERHEAD_BYTES);
        }
    }

    /// Brings the entries to nine tenths of their bound. Seldom, and so allowed to look at all
    /// topics.
    fn make_room(&mut self, current: &Topic) {
        let enough = ENTRIES_BYTES_MAX / 10 * 9;
        let mut idle: Vec<(Instant, Topic)> = self
            .topics
            .iter()
            .filter(|(topic, _)| *topic != current && !self.boards.contains_key(*topic))
            .filter(|(topic, _)| !self.subscribed.contains(*topic))
            .map(|(topic, log)| (log.used_at, topic.clone()))
            .collect();
        idle.sort_unstable_by_key(|(used_at, _)| *used_at);
        for (_, topic) in idle {
            if self.bytes <= enough {
                return;
            }
            self.forget(&topic);
        }
        let mut full: Vec<&mut TopicLog> = self.topics.values_mut().collect();
        full.sort_by_key(|log| std::cmp::Reverse(log.bytes()));
        for log in full {
            while self.bytes > enough && log.entries.len() > 1 {
                self.bytes = self.bytes.saturating_sub(log.trim());
            }
        }
    }

    /// The board whose topic will tell of a change, if there is one already.
    fn board_of(&self, command: &Command) -> Option<Topic> {
        match command {
            Command::CreateTask { list, .. } => self.board_of_list.get(list).cloned(),
            Command::RenameTask { task, .. }
            | Command::MoveTask { task, .. }
            | Command::DeleteTask { task } => self.board_of_task.get(task).cloned(),
            Command::CreateBoard { .. } => None,
            Command::CreateList { board, .. } => {
                self.boards.contains_key(board).then(|| board.clone())
            }
        }
    }

    fn board_of_task(&mut self, task: &Topic) -> Result<(Topic, &mut Board), BoardError> {
        let board = self.board_of_task.get(task).ok_or(BoardError::NoSuchTask)?.clone();
        let state = self.boards.get_mut(&board).ok_or(BoardError::NoSuchTask)?;
        Ok((board, state))
    }

    fn list_id(&mut self, list: &NewList) -> Result<Topic, BoardError> {
        if let Some(id) = &list.id {
            let taken = self.board_of_list.contains_key(id);
            return if taken { Err(BoardError::ListExists) } else { Ok(id.clone()) };
        }
        let made = &mut self.lists_made;
        Ok(number("list", made, |id| !self.board_of_list.contains_key(id)))
    }
}

/// The next free id with this prefix.
fn number(prefix: &str, made: &mut u64, free: impl Fn(&Topic) -> bool) -> Topic {
    loop {
        *made += 1;
        // The prefixes are short and the digits harmless, so this is a name.
        if let Ok(id) = Topic::new(&format!("{prefix}-{made}"))
            && free(&id)
        {
            return id;
        }
    }
}

fn milliseconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError> {
        let state = &mut *self.state();
        if let Some(kept) = self.answered(state, topic, &events, conditions)? {
            return Ok(Appended { last: kept.position, replayed: true });
        }
        if state.boards.contains_key(topic) && events.iter().any(board::is_of_board) {
            return Err(LogError::ReservedEventType);
        }
        self.check_head(state, topic, conditions)?;
        let history = state.open(topic, &self.retention).history();
        let mut last = history.at(history.head);
        for event in events {
            last = self.append_to(state, topic, event);
        }
        if let Some(key) = &conditions.idempotency_key {
            state.answers.keep((topic.clone(), key.clone()), &events, last, Bytes::new());
        }
        Ok(Appended { last, replayed: false })
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        let mut state = self.state();
        let has_state = state.boards.contains_key(topic);
        if state.bytes > ENTRIES_BYTES_MAX {
            state.make_room(topic);
        }
        Ok(Opened { history: state.open(topic, &self.retention).history(), has_state })
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        let mut state = self.state();
        state.expire(topic, &self.retention);
        let Some(log) = state.topics.get(topic) else { return Ok(None) };
        let history = log.history();
        let mut bytes = 0;
        let entries = log
            .entries
            .iter()
            .skip((after + 1).saturating_sub(history.oldest) as usize)
            .take(READ_ENTRIES_MAX)
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.rest.len() <= READ_BYTES_MAX;
                bytes += entry.rest.len();
                fits && entry.position.seq <= through
            })
            .cloned()
            .collect();
        Ok(Some(Page { history, entries }))
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        let mut state = self.state();
        state.expire(topic, &self.retention);
        Ok(state.topics.get(topic).map(TopicLog::history))
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Vec<Option<(Epoch, u64)>>, LogError> {
        let state = self.state();
        let head = |topic| state.topics.get(topic).map(|log| (log.epoch, log.seq));
        Ok(topics.iter().map(head).collect())
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        let mut state = self.state();
        for topic in topics {
            if let Some(log) = state.topics.get_mut(topic) {
                log.used_at = Instant::now();
            }
        }
        Ok(())
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.state().subscribed.extend(topics.iter().cloned());
        Ok(())
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        let mut state = self.state();
        for topic in topics {
            state.subscribed.remove(topic);
        }
    }
}

#[async_trait]
impl Probe for MemoryLog {
    async fn canary(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "embedded"
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn now_milliseconds(&self) -> Option<u64> {
        Some(milliseconds())
    }
}

#[async_trait]
impl Registry for MemoryLog {
    async fn report(&self, node: &str, report: &str) -> Result<(), LogError> {
        self.state().reports.insert(node.to_owned(), report.to_owned());
        Ok(())
    }

    async fn reports(&self) -> Result<Vec<(String, String)>, LogError> {
        let state = self.state();
        Ok(state.reports.iter().map(|(node, report)| (node.clone(), report.clone())).collect())
    }

    async fn withdraw(&self, node: &str) {
        self.state().reports.remove(node);
    }
}

#[async_trait]
impl Snapshots for MemoryLog {
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError> {
        let state = self.state();
        Ok(topics.iter().all(|topic| state.boards.contains_key(topic)))
    }

    async fn snapshot(&self, topic: &Topic) -> Result<Option<Snapshot>, LogError> {
        let mut state = self.state();
        if !state.boards.contains_key(topic) {
            return Ok(None);
        }
        let history = state.open(topic, &self.retention).history();
        let position = history.at(history.head);
        let json = state.boards.get(topic).map(|board| board.to_json(&position.to_string()));
        Ok(json.map(|json| Snapshot { position, json: json.into() }))
    }
}

#[async_trait]
impl Boards for MemoryLog {
    async fn change(
        &self,
        command: Command,
        conditions: &Conditions,
    ) -> Result<Changed, ChangeError> {
        let now = format!("{:.3}", jiff::Timestamp::now());
        let fingerprint = command.fingerprint();
        let state = &mut *self.state();
        if let Some(board) = state.board_of(&command) {
            if let Some(kept) = self.answered(state, &board, &fingerprint, conditions)? {
                let Kept { position, answer, .. } = kept;
                return Ok(Changed { board, position, events: 0, answer, replayed: true });
            }
            self.check_head(state, &board, conditions)?;
        }
        let (board, change) = match command {
            Command::CreateTask { title, list } => {
                let board = state.board_of_list.get(&list).ok_or(BoardError::NoSuchList)?.clone();
                let id = number("task", &mut state.tasks_made, |_| true);
                let found = state.boards.get_mut(&board).ok_or(BoardError::NoSuchList)?;
                let change = found.create_task(id.clone(), title, list, &now)?;
                state.board_of_task.insert(id, board.clone());
                (board, change)
            }
            Command::RenameTask { task, title } => {
                let (board, found) = state.board_of_task(&task)?;
                (board, found.rename_task(&task, title, &now)?)
            }
            Command::MoveTask { task, list, index } => {
                let elsewhere = state.board_of_list.get(&list).cloned();
                let (board, found) = state.board_of_task(&task)?;
                if elsewhere.is_some_and(|elsewhere| elsewhere != board) {
                    return Err(BoardError::ListElsewhere.into());
                }
                (board, found.move_task(&task, list, index, &now)?)
            }
            Command::DeleteTask { task } => {
                let (board, found) = state.board_of_task(&task)?;
                let change = found.delete_task(&task)?;
                state.board_of_task.remove(&task);
                (board, change)
            }
            Command::CreateBoard { id, name, lists } => {
                return self.create_board(state, id, name, lists);
            }
            Command::CreateList { board, list } => {
                if !state.boards.contains_key(&board) {
                    return Err(BoardError::NoSuchBoard.into());
                }
                let id = state.list_id(&list)?;
                let found = state.boards.get_mut(&board).ok_or(BoardError::NoSuchBoard)?;
                let change = found.create_list(id.clone(), list.title)?;
                state.board_of_list.insert(id, board.clone());
                (board, change)
            }
        };
        let position = self.append_to(state, &board, &change.event);
        let answer = Bytes::from(change.answer);
        if let Some(key) = &conditions.idempotency_key {
            state.answers.keep(
                (board.clone(), key.clone()),
                &fingerprint,
                position,
                answer.clone(),
            );
        }
        Ok(Changed { board, position, events: 1, answer, replayed: false })
    }

    async fn list(&self) -> Result<Vec<BoardSummary>, LogError> {
        let state = self.state();
        let summary = |id: &Topic| {
            let name = state.boards.get(id)?.name().as_str().to_owned();
            Some(BoardSummary { id: id.to_string(), name })
        };
        Ok(state.board_order.iter().filter_map(summary).collect())
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        if !self.state().boards.is_empty() {
            return Ok(());
        }
        match self.change(board::first_board(), &Conditions::NONE).await {
            Ok(_) | Err(ChangeError::Refused(_)) => Ok(()),
            Err(ChangeError::Log(error)) => Err(error),
        }
    }
}

impl MemoryLog {
    fn create_board(
        &self,
        state: &mut State,
        id: Option<Topic>,
        name: board::Title,
        lists: Vec<NewList>,
    ) -> Result<Changed, ChangeError> {
        if state.boards.len() >= BOARDS_MAX {
            return Err(BoardError::TooManyBoards.into());
        }
        let id = match id {
            Some(id) if state.boards.contains_key(&id) => {
                return Err(BoardError::BoardExists.into());
            }
            Some(id) => id,
            None => number("board", &mut state.boards_made, |id| !state.boards.contains_key(id)),
        };
        let mut board = Board::new(id.clone(), name);
        let mut list_ids = Vec::new();
        for list in lists {
            let list_id = state.list_id(&list)?;
            board.create_list(list_id.clone(), list.title)?;
            list_ids.push(list_id);
        }
        // Nothing can fail from here on.
        state.boards.insert(id.clone(), board);
        state.board_order.push(id.clone());
        for list_id in list_ids {
            state.board_of_list.insert(list_id, id.clone());
        }
        let history = state.open(&id, &self.retention).history();
        let position = history.at(history.head);
        let answer = match state.boards.get(&id) {
            Some(board) => board.to_json(&position.to_string()),
            None => json(&id),
        };
        Ok(Changed { board: id, position, events: 0, answer: answer.into(), replayed: false })
    }
}
