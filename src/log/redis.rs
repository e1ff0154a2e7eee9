//! The log in Redis, shared by all nodes.
//!
//! Every write is one Lua script: change of state, sequence number, entry and announcement happen
//! together or not at all. [`commands`] carries scripts and reads, [`subscription`] hears
//! announcements, [`keys`] names things. Keys of one topic share a hash tag.

mod commands;
mod keys;
mod scripts;
mod subscription;
mod version;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Client, FromRedisValue, IntoConnectionInfo, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{
    Announcer, Changed, EventLog, Health, Heard, LogError, Opened, Page, READ_BYTES_MAX,
    READ_ENTRIES_MAX, Retention, Snapshot,
};
use crate::board::{
    self, BOARDS_MAX, BoardSummary, Command, EVENT_TYPES, LISTS_MAX, NewList, Refusal, TASKS_MAX,
    Title,
};
use crate::entry::{Data, Entry, Event};
use crate::frame::{encode_rest, json};
use crate::position::{Epoch, Lineage, Position};
use crate::topic::Topic;
use commands::Commands;
use keys::Keys;
use scripts::Call;
use subscription::Subscription;

/// How long a node's report counts after it was made.
const REPORT_COUNTS: Duration = Duration::from_secs(5);

/// How many lists' boards are remembered.
const LISTS_KNOWN_MAX: usize = 10_000;

/// How long a canary may take from publish to subscription.
const CANARY_WITHIN: Duration = Duration::from_millis(1_500);

/// How often a subscription is replaced while Redis stays read-only.
const REPLACE_EVERY: Duration = Duration::from_secs(3);

/// Topics whose heads are asked for in one command.
const HEADS_AT_ONCE: usize = 500;

/// A log in Redis.
pub struct RedisLog {
    commands: Commands,
    subscription: Arc<Subscription>,
    keys: Keys,
    retention: Retention,
    /// Lists never change boards, so what was once looked up stays true until Redis loses it.
    board_of_list: Mutex<HashMap<Topic, Topic>>,
    canaries: AtomicU64,
    clock: Mutex<Option<(Instant, u64)>>,
    /// When the subscription was last replaced because Redis was found to be read-only.
    replaced_at: Mutex<Option<Instant>>,
}

/// Checks that `url` can be the address of a Redis.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    url.into_connection_info().map(|_| ()).map_err(|error| error.to_string())
}

impl RedisLog {
    /// Starts following `url`, whether or not it can be reached already, and says where it is
    /// heard. Must be called within a runtime.
    ///
    /// # Errors
    /// When `url` is no address of a Redis.
    pub fn start(
        url: &str,
        prefix: &str,
        node: &str,
        retention: Retention,
    ) -> Result<(Arc<RedisLog>, mpsc::Receiver<Heard>), String> {
        // redis-rs leaves the choice of a cryptography provider to us. An error means that one is
        // chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        let info = commands::with_resp3(info);
        let (announcer, heard) = Announcer::new();
        let keys = Keys::new(prefix);
        let client = Client::open(info.clone()).map_err(|error| error.to_string())?;
        let subscription = Arc::new(Subscription::new(client, keys.clone(), node, announcer));
        tokio::spawn(subscription.clone().run());
        let commands = Commands::new(&info).map_err(|error| error.to_string())?;
        let log = RedisLog {
            commands,
            subscription,
            keys,
            retention,
            board_of_list: Mutex::default(),
            canaries: AtomicU64::new(0),
            clock: Mutex::new(None),
            replaced_at: Mutex::new(None),
        };
        Ok((Arc::new(log), heard))
    }

    /// Whether a demoted master was last turned away from long enough ago to do so again.
    fn may_replace(&self) -> bool {
        let mut replaced_at = self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = replaced_at.is_none_or(|at| at.elapsed() >= REPLACE_EVERY);
        if may {
            *replaced_at = Some(Instant::now());
        }
        may
    }

    fn ttl_milliseconds(&self) -> u64 {
        self.retention.history_ttl.as_millis() as u64
    }

    /// A call of a board's script, with everything they have in common.
    fn board_call(
        &self,
        script: &'static (&'static str, redis::Script),
        board: &Topic,
    ) -> Call<'static> {
        Call::new(script, &self.keys.board(board))
            .arg(self.keys.channel(board))
            .arg(Epoch::random().as_str())
            .arg(self.retention.history_entries_max)
            .arg(self.ttl_milliseconds())
            .arg(self.keys.order(board))
            .arg(board.as_str())
    }

    /// Carries out a board's script and says what came of it.
    async fn change_board(&self, board: &Topic, call: Call<'static>) -> Result<Changed, LogError> {
        let answer: Vec<String> = self.commands.call(call).await?;
        let position = accepted(&answer)?;
        let answer = answer.get(3).cloned().unwrap_or_default();
        Ok(Changed { board: board.clone(), position, events: 1, answer })
    }

    async fn board_of_task(&self, task: &Topic) -> Result<Topic, LogError> {
        let board = self.index("tasks", task).await?;
        board.ok_or_else(|| Refusal::NoSuchTask.into())
    }

    async fn index(&self, hash: &str, id: &Topic) -> Result<Option<Topic>, LogError> {
        let mut pipe = redis::pipe();
        pipe.hget(self.keys.shared(hash), id.as_str());
        let (board,): (Option<String>,) = self.commands.pipe("hget", &pipe).await?;
        Ok(board.and_then(|board| Topic::new(&board).ok()))
    }

    async fn create_task(&self, title: &Title, list: &Topic) -> Result<Changed, LogError> {
        let known = self.lists().get(list).cloned();
        let board = match &known {
            Some(board) => board.clone(),
            None => self.index("lists", list).await?.ok_or(Refusal::NoSuchList)?,
        };
        let index = [self.keys.shared("task-seq"), self.keys.shared("tasks")];
        let index = Call::new(&scripts::INDEX_TASK, &index).arg(board.as_str());
        let task: String = self.commands.call(index).await?;
        let call = self
            .board_call(&scripts::TASK_CREATE, &board)
            .arg(&task)
            .arg(json(title))
            .arg(list.as_str())
            .arg(TASKS_MAX);
        let result = self.change_board(&board, call).await;
        if let Err(LogError::Refused(_)) = result {
            self.forget_task(&task).await;
        }
        let mut lists = self.lists();
        match &result {
            Ok(_) => {
                if lists.len() >= LISTS_KNOWN_MAX {
                    lists.clear();
                }
                lists.insert(list.clone(), board);
            }
            Err(LogError::Refused(_)) => {
                lists.remove(list);
            }
            Err(_) => {}
        }
        result
    }

    async fn move_task(
        &self,
        task: &Topic,
        list: &Topic,
        index: Option<usize>,
    ) -> Result<Changed, LogError> {
        let board = self.board_of_task(task).await?;
        let call = self
            .board_call(&scripts::TASK_MOVE, &board)
            .arg(task.as_str())
            .arg(list.as_str())
            .arg(index.map(|index| index.to_string()).unwrap_or_default());
        let result = self.change_board(&board, call).await;
        if matches!(result, Err(LogError::Refused(Refusal::NoSuchList)))
            && self.index("lists", list).await?.is_some_and(|elsewhere| elsewhere != board)
        {
            return Err(Refusal::ListElsewhere.into());
        }
        result
    }

    async fn delete_task(&self, task: &Topic) -> Result<Changed, LogError> {
        let board = self.board_of_task(task).await?;
        let call = self.board_call(&scripts::TASK_DELETE, &board).arg(task.as_str());
        let changed = self.change_board(&board, call).await?;
        self.forget_task(task.as_str()).await;
        Ok(changed)
    }

    /// Removes the note that leads from a task to its board. If this fails, the note leads to a
    /// board that does not know the task: the same as none.
    async fn forget_task(&self, task: &str) {
        let mut pipe = redis::pipe();
        pipe.hdel(self.keys.shared("tasks"), task);
        let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
    }

    /// Claims the ids of a board and of its new lists; returns them, the board's first.
    async fn claim(
        &self,
        board: Option<&Topic>,
        new: bool,
        lists: &[NewList],
    ) -> Result<(Topic, Vec<String>), LogError> {
        let keys = ["board-seq", "boards", "list-seq", "lists", "board-ids"];
        let keys = keys.map(|key| self.keys.shared(key));
        let mut call = Call::new(&scripts::INDEX_BOARD, &keys)
            .arg(board.map_or("", Topic::as_str))
            .arg(BOARDS_MAX)
            .arg(i32::from(new));
        for list in lists {
            call = call.arg(list.id.as_ref().map_or("", Topic::as_str));
        }
        let claimed: Vec<String> = self.commands.call(call).await?;
        let mut ids = claimed.into_iter();
        let word = ids.next().unwrap_or_default();
        if word != "ok" {
            return Err(refused(&word));
        }
        let board = ids.next().and_then(|board| Topic::new(&board).ok());
        Ok((board.ok_or_else(|| unexpected("an id"))?, ids.collect()))
    }

    async fn create_board(
        &self,
        id: Option<Topic>,
        name: &Title,
        lists: &[NewList],
    ) -> Result<Changed, LogError> {
        if let Some(id) = &id
            && self.have_boards(std::slice::from_ref(id)).await?
        {
            return Err(Refusal::BoardExists.into());
        }
        let (board, list_ids) = self.claim(id.as_ref(), true, lists).await?;
        let mut call = self.board_call(&scripts::BOARD_CREATE, &board).arg(json(name));
        for (id, list) in list_ids.iter().zip(lists) {
            call = call.arg(id).arg(json(&list.title));
        }
        let changed = self.change_board(&board, call).await?;
        // The board is made, whatever happens now.
        let made = |error| LogError::Unanswered(format!("the board was made, but: {error}"));
        let answer = self.board(&board).await.map_err(made)?.json;
        Ok(Changed { answer, events: 0, ..changed })
    }

    async fn create_list(&self, board: &Topic, list: NewList) -> Result<Changed, LogError> {
        if !self.have_boards(std::slice::from_ref(board)).await? {
            return Err(Refusal::NoSuchBoard.into());
        }
        let lists = [list];
        let (board, list_ids) = self.claim(Some(board), false, &lists).await?;
        let call = self
            .board_call(&scripts::LIST_CREATE, &board)
            .arg(&list_ids)
            .arg(json(&lists[0].title))
            .arg(LISTS_MAX);
        let result = self.change_board(&board, call).await;
        if matches!(result, Err(LogError::Refused(Refusal::BoardFull))) {
            let mut pipe = redis::pipe();
            pipe.hdel(self.keys.shared("lists"), list_ids);
            // If this fails the id stays claimed by a board that may still get to use it.
            let _: Result<(i64,), LogError> = self.commands.pipe("hdel", &pipe).await;
        }
        result
    }

    fn lists(&self) -> MutexGuard<'_, HashMap<Topic, Topic>> {
        self.board_of_list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventLog for RedisLog {
    async fn append(&self, topic: &Topic, event: Event) -> Result<Position, LogError> {
        let of_board = event.event_type.as_ref().is_some_and(|t| EVENT_TYPES.contains(&t.as_str()));
        let call = Call::new(&scripts::APPEND, &self.keys.topic(topic))
            .arg(self.keys.channel(topic))
            .arg(Epoch::random().as_str())
            .arg(self.retention.history_entries_max)
            .arg(self.ttl_milliseconds())
            .arg(i32::from(matches!(event.data, Data::Json(_))))
            .arg(&encode_rest(&event)[..])
            .arg(i32::from(of_board));
        let answer: Vec<String> = self.commands.call(call).await?;
        accepted(&answer)
    }

    async fn change(&self, command: Command) -> Result<Changed, LogError> {
        match command {
            Command::CreateTask { title, list } => self.create_task(&title, &list).await,
            Command::RenameTask { task, title } => {
                let board = self.board_of_task(&task).await?;
                let call = self
                    .board_call(&scripts::TASK_RENAME, &board)
                    .arg(task.as_str())
                    .arg(json(&title));
                self.change_board(&board, call).await
            }
            Command::MoveTask { task, list, index } => self.move_task(&task, &list, index).await,
            Command::DeleteTask { task } => self.delete_task(&task).await,
            Command::CreateBoard { id, name, lists } => self.create_board(id, &name, &lists).await,
            Command::CreateList { board, list } => self.create_list(&board, list).await,
        }
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        let call = Call::new(&scripts::OPEN, &self.keys.topic(topic))
            .arg(Epoch::random().as_str())
            .arg(self.ttl_milliseconds());
        let (head, meta, oldest, is_board): (String, String, String, bool) =
            self.commands.call(call).await?;
        Ok(Opened { lineage: lineage(&head, &meta, &oldest)?, is_board })
    }

    async fn have_boards(&self, boards: &[Topic]) -> Result<bool, LogError> {
        let mut pipe = redis::pipe();
        for board in boards {
            pipe.exists(&self.keys.topic(board)[3]);
        }
        let exist: Vec<bool> = self.commands.pipe("exists", &pipe).await?;
        Ok(exist.into_iter().all(|exists| exists))
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        let [seq, log, meta, _] = self.keys.topic(topic);
        let call = Call::new(&scripts::READ, &[seq, log, meta])
            .arg(after.saturating_add(1))
            .arg(through)
            .arg(READ_ENTRIES_MAX)
            .arg(READ_BYTES_MAX);
        let answer: Vec<Value> = self.commands.call(call).await?;
        let Ok([head, meta, oldest, entries]) = <[Value; 4]>::try_from(answer) else {
            return Ok(None);
        };
        let lineage = lineage(&text(head)?, &text(meta)?, &text(oldest)?)?;
        let Value::Array(entries) = entries else { return Err(unexpected("entries")) };
        let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Some(Page { lineage, entries }))
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Vec<Option<(Epoch, u64)>>, LogError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for batch in topics.chunks(HEADS_AT_ONCE) {
            let keys = batch.iter().flat_map(|topic| [self.keys.seq(topic), self.keys.meta(topic)]);
            pipe.cmd("MGET").arg(keys.collect::<Vec<String>>());
        }
        let batches: Vec<Vec<Option<String>>> = self.commands.pipe("mget", &pipe).await?;
        let values: Vec<Option<String>> = batches.into_iter().flatten().collect();
        let head = |pair: &[Option<String>]| match pair {
            [Some(seq), Some(meta)] => {
                let epoch = meta.split(' ').next()?.parse().ok()?;
                Some((epoch, seq.parse().ok()?))
            }
            _ => None,
        };
        Ok(values.chunks(2).map(head).collect())
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        let mut pipe = redis::pipe();
        for topic in topics {
            for key in &self.keys.topic(topic)[..3] {
                // Greater only: a board's numbering never expires and must stay so.
                let ttl = self.ttl_milliseconds();
                pipe.cmd("EVAL").arg(KEEP).arg(1).arg(key).arg(ttl).ignore();
            }
        }
        self.commands.pipe("keep", &pipe).await
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.subscription.subscribe(topics).await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        self.subscription.unsubscribe(topics).await;
    }

    async fn boards(&self) -> Result<Vec<BoardSummary>, LogError> {
        let mut pipe = redis::pipe();
        pipe.lrange(self.keys.shared("boards"), 0, -1);
        let (ids,): (Vec<String>,) = self.commands.pipe("lrange", &pipe).await?;
        let boards: Vec<Topic> = ids.iter().filter_map(|id| Topic::new(id).ok()).collect();
        if boards.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for board in &boards {
            pipe.hget(&self.keys.topic(board)[3], "name");
        }
        let names: Vec<Option<String>> = self.commands.pipe("hget", &pipe).await?;
        // A board that was claimed and not made has no name.
        let summary = |(id, name): (&Topic, Option<String>)| {
            let name = serde_json::from_str(&name?).ok()?;
            Some(BoardSummary { id: id.to_string(), name })
        };
        Ok(boards.iter().zip(names).filter_map(summary).collect())
    }

    async fn board(&self, board: &Topic) -> Result<Snapshot, LogError> {
        let call = self.board_call(&scripts::BOARD_READ, board);
        let answer: Vec<Value> = self.commands.call(call).await?;
        let Ok([seq, epoch, name, lists]) = <[Value; 4]>::try_from(answer) else {
            return Err(Refusal::NoSuchBoard.into());
        };
        let position = format!("{}-{}", text(seq)?, text(epoch)?);
        let position: Position = position.parse().map_err(|_| unexpected("a position"))?;
        let json = board_json(board, &text(name)?, lists, &position)?;
        Ok(Snapshot { position, json })
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        let command = board::first_board();
        let Command::CreateBoard { id: Some(first), .. } = &command else { return Ok(()) };
        let mut pipe = redis::pipe();
        pipe.exists(&self.keys.topic(first)[3]).llen(self.keys.shared("boards"));
        let (exists, boards): (bool, u64) = self.commands.pipe("exists", &pipe).await?;
        // With one board noted but not made, the node that made it was cut off in between.
        if exists || boards > 1 {
            return Ok(());
        }
        match self.change(command).await {
            // Another node was faster, or somebody has taken its ids for something else.
            Ok(_) | Err(LogError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn canary(&self) -> Result<(), LogError> {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed) + 1;
        let hearing = self.subscription.hearing();
        let asked_at = Instant::now();
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        // Whether Redis takes writes shows only when one is tried: a master that was demoted
        // publishes as if nothing had happened.
        pipe.set_ex(self.subscription.canary_channel(), number, 60).ignore();
        pipe.publish(self.subscription.canary_channel(), number);
        let sent = self.commands.pipe("canary", &pipe).await;
        if self.commands.was_demoted()
            && let Some(hearing) = hearing
            && self.may_replace()
        {
            // The name of the primary may lead elsewhere by now.
            self.subscription.replace(hearing);
        }
        let ((seconds, microseconds), hearers): ((u64, u64), i64) = sent?;
        // Redis read its clock somewhere between asking and now: take the middle.
        let read_at = asked_at + asked_at.elapsed() / 2;
        let milliseconds = seconds * 1000 + microseconds / 1000;
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((read_at, milliseconds));
        let Some(hearing) = hearing else {
            return Err(LogError::Unavailable("not hearing announcements yet".to_owned()));
        };
        // With nobody subscribed where the commands go, there is nothing to wait for.
        let heard = self.subscription.canary_heard(number);
        if hearers == 0 || tokio::time::timeout(CANARY_WITHIN, heard).await.is_err() {
            self.subscription.replace(hearing);
            let why = "a canary was published and not heard by this node's subscription";
            return Err(LogError::Unavailable(why.to_owned()));
        }
        Ok(())
    }

    async fn report(&self, node: &str, report: &str) -> Result<(), LogError> {
        let call = self.report_call().arg(node).arg(report).arg(REPORT_COUNTS.as_millis() as u64);
        self.commands.call(call).await
    }

    async fn reports(&self) -> Result<Vec<(String, String)>, LogError> {
        let call = self.report_call().arg("").arg("").arg(REPORT_COUNTS.as_millis() as u64);
        self.commands.call(call).await
    }

    async fn withdraw(&self, node: &str) {
        // A report that stays is forgotten after REPORT_COUNTS.
        let _ = self.report(node, "").await;
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    fn health(&self) -> Health {
        self.subscription.health()
    }

    fn now_milliseconds(&self) -> Option<u64> {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map(|(read_at, milliseconds)| milliseconds + read_at.elapsed().as_millis() as u64)
    }
}

impl RedisLog {
    fn report_call(&self) -> Call<'static> {
        Call::new(&scripts::REPORT, &[self.keys.shared("nodes")])
    }
}

/// Puts off the expiry of a key that has one.
const KEEP: &str =
    "if redis.call('PTTL', KEYS[1]) >= 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end";

/// The position in the answer of a script that appends, or why it did not.
fn accepted(answer: &[String]) -> Result<Position, LogError> {
    match answer {
        [word, seq, epoch, ..] if word == "ok" => {
            let position = format!("{seq}-{epoch}").parse();
            position.map_err(|_| unexpected("a position"))
        }
        [word, ..] => Err(refused(word)),
        [] => Err(unexpected("an answer")),
    }
}

fn refused(word: &str) -> LogError {
    match Refusal::from_word(word) {
        Some(refusal) => refusal.into(),
        None => unexpected("a word"),
    }
}

/// Redis holds something under our keys that we did not put there.
fn unexpected(what: &str) -> LogError {
    LogError::Unavailable(format!("unexpected data in Redis instead of {what}"))
}

fn text(value: Value) -> Result<String, LogError> {
    String::from_redis_value(value).map_err(|_| unexpected("text"))
}

/// Reads seq, meta and the id of the oldest entry (see `log.lua`).
fn lineage(head: &str, meta: &str, oldest: &str) -> Result<Lineage, LogError> {
    let read = || {
        let head: u64 = head.parse().ok()?;
        let mut words = meta.split(' ');
        let epoch = words.next()?.parse().ok()?;
        let floor: u64 = words.nth(1)?.parse().ok()?;
        let past = words.map(|word| {
            let (epoch, end) = word.split_once(':')?;
            Some((epoch.parse().ok()?, end.parse().ok()?))
        });
        let past = past.collect::<Option<_>>()?;
        let oldest = match oldest.split_once('-') {
            Some((seq, _)) => seq.parse().ok()?,
            None => head + 1,
        };
        Some(Lineage { epoch, past, head, oldest: oldest.max(floor + 1) })
    };
    read().ok_or_else(|| unexpected("epochs"))
}

/// Reads one entry: `[id, [e, epoch, t, milliseconds, j, json, f, rest]]`.
fn entry(value: Value) -> Result<Entry, LogError> {
    let (id, fields) =
        <(String, Vec<Value>)>::from_redis_value(value).map_err(|_| unexpected("an entry"))?;
    let mut values = fields.into_iter().skip(1).step_by(2);
    let mut next = || values.next().ok_or_else(|| unexpected("a field"));
    let epoch = text(next()?)?;
    let milliseconds = text(next()?)?;
    let json = text(next()?)? == "1";
    let Value::BulkString(rest) = next()? else { return Err(unexpected("a frame")) };
    let seq = id.split_once('-').map_or("", |(seq, _)| seq);
    Ok(Entry {
        position: format!("{seq}-{epoch}").parse().map_err(|_| unexpected("a position"))?,
        milliseconds: milliseconds.parse().map_err(|_| unexpected("a time"))?,
        json,
        rest: Bytes::from(rest),
    })
}

/// Writes a board as `Board::to_json` does, from what `board_read.lua` returned. Titles are JSON
/// already.
fn board_json(
    board: &Topic,
    name: &str,
    lists: Value,
    position: &Position,
) -> Result<String, LogError> {
    use std::fmt::Write;
    let board = json(board);
    let mut text_of = format!(r#"{{"id":{board},"name":{name},"lists":["#);
    let Value::Array(lists) = lists else { return Err(unexpected("lists")) };
    let mut lists = lists.into_iter();
    let mut comma = "";
    while let (Some(list), Some(title), Some(Value::Array(tasks))) =
        (lists.next(), lists.next(), lists.next())
    {
        let list = json(&text(list)?);
        let title = text(title)?;
        // Writing to a `String` cannot fail.
        let _ =
            write!(text_of, r#"{comma}{{"id":{list},"title":{title},"boardId":{board},"tasks":["#);
        comma = ",";
        let mut tasks = tasks.into_iter();
        let mut index = 0;
        while let (Some(task), Some(record)) = (tasks.next(), tasks.next()) {
            let (task, record) = (json(&text(task)?), text(record)?);
            let mut fields = record.splitn(4, '\n').skip(1);
            let (Some(created), Some(updated), Some(title)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(
                text_of,
                r#"{comma}{{"id":{task},"title":{title},"listId":{list},"boardId":{board},"index":{index},"createdAt":"{created}","updatedAt":"{updated}"}}"#
            );
            index += 1;
        }
        text_of.push_str("]}");
    }
    let _ = write!(text_of, r#"],"lastEventId":"{position}"}}"#);
    Ok(text_of)
}
