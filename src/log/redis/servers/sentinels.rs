//! [`Sentinels`]: who says where the master is.
//!
//! Each sentinel of the URL, and each that one of them knows, is asked over a connection of its own:
//! every second, and as soon as anything happens (one of them announces a failover, or a connection to
//! the master is in trouble). [`choice`] says which answer is right. Who is named must say of itself
//! that it is a master.

mod choice;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::RedisFiles;
use crate::log::redis::address::{self, Place};
use crate::log::redis::meaning::meaning_of_sentinel;
use crate::log::redis::server::Server;
pub(super) use choice::Choice;
use choice::{Answer, Asked, Chosen};

/// How long a sentinel, or whoever it names, may take for an answer, and for a new connection. One
/// that takes longer is as good as away.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How often each is asked where nothing happens, and how soon again whatever happens.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
const ASK_SOONEST: Duration = Duration::from_millis(20);

/// How often who is named is asked whether it is a master, until it says so.
const ROLE_INTERVAL: Duration = Duration::from_millis(200);

/// The first and the longest wait before one is connected anew.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(1_000);

/// Sentinels that are asked at most, and after how many answers of one it is asked for others.
const SENTINELS_MAX: usize = 16;
const OTHERS_EVERY: u64 = 10;

/// What a sentinel announces when a failover has gone so far that there is another master.
const EVENTS: [&str; 2] = ["+switch-master", "+promoted-slave"];

/// Who takes the writes, by the word of the sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// Nobody, as far as is known, for this reason.
    Nobody(String),
    /// Somebody in a moment, for this reason.
    Soon(String),
    /// This one.
    Master(Choice),
}

/// Those who know the master.
pub(super) struct Sentinels {
    of_url: Vec<Place>,
    /// What they call it.
    name: String,
    /// How each is connected to, and the master; at their places.
    sentinel: Server,
    master: Server,
    asked: Mutex<Vec<Asked>>,
    /// Something has changed in `asked`.
    answered: Notify,
    /// Counts what happens that is a reason to ask.
    happenings: watch::Sender<u64>,
    named: watch::Sender<Named>,
}

/// What the one that is named says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    Other,
    /// It does not answer, or refuses: those who connect to it will say why.
    Unknown,
}

impl Sentinels {
    pub(super) fn new(of_url: address::Sentinels, files: &RedisFiles) -> Sentinels {
        let address::Sentinels { places, name, master } = of_url;
        Sentinels {
            of_url: places,
            name,
            sentinel: Server::of_sentinels(&master, files),
            master: Server::new(master, files),
            asked: Mutex::default(),
            answered: Notify::new(),
            happenings: watch::Sender::new(0),
            named: watch::Sender::new(Named::Soon("no sentinel has answered yet".to_owned())),
        }
    }

    /// Who is named now, and from now on.
    pub(super) fn named(&self) -> watch::Receiver<Named> {
        self.named.subscribe()
    }

    /// Asks all of them now.
    pub(super) fn ask(&self) {
        self.happenings.send_modify(|happenings| *happenings += 1);
    }

    /// The server that was chosen.
    pub(super) fn server(&self, choice: &Choice) -> Server {
        let Choice { place, by, .. } = choice;
        self.master.at(place, format!("{place}, the master by the word of sentinel {by}"))
    }

    /// Asks for ever.
    pub(super) async fn run(self: Arc<Sentinels>) {
        let mut asking = JoinSet::new();
        let mut under_way = HashSet::new();
        // One that ran before may have broken.
        self.asked().clear();
        self.know(self.of_url.clone());
        let began_at = Instant::now();
        let mut chosen = Chosen::default();
        let mut followed: Option<Followed> = None;
        let mut line = Line::default();
        loop {
            let asked = self.asked().clone();
            under_way.retain(|place| asked.iter().any(|asked| asked.sentinel == *place));
            for Asked { sentinel, .. } in &asked {
                if under_way.insert(sentinel.clone()) {
                    asking.spawn(self.clone().keep_asking(sentinel.clone()));
                }
            }
            let may_not_wait = began_at.elapsed() >= ANSWER_TIMEOUT;
            chosen.choose(&asked, may_not_wait, Instant::now());
            let is_named = asked.iter().any(|asked| matches!(asked.answer, Answer::Master { .. }));
            let silence = (!is_named && may_not_wait).then(|| nobody_says(&asked));
            match (&chosen.now, silence) {
                (Some(choice), None) => self.follow(choice, &mut followed, &mut line).await,
                (Some(choice), Some(why)) => {
                    line.say(&format!("{why}; going on with the master of before"));
                    self.follow(choice, &mut followed, &mut line).await;
                }
                (None, Some(why)) => {
                    line.say(&format!("{why}; until that changes, {WITHOUT_MASTER}"));
                    self.name(Named::Nobody(why));
                }
                (None, None) => {}
            }
            let is_soon = !may_not_wait
                || followed.as_ref().is_some_and(|followed| followed.role == Role::Other);
            tokio::select! {
                () = self.answered.notified() => {}
                () = tokio::time::sleep(if is_soon { ROLE_INTERVAL } else { ASK_INTERVAL }) => {}
                Some(Err(error)) = asking.join_next() => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }

    /// Names who was chosen, unless it says of itself that it is no master.
    async fn follow(&self, choice: &Choice, followed: &mut Option<Followed>, line: &mut Line) {
        let before = followed.take().filter(|before| before.choice.is_same(choice));
        if before.is_none() {
            let Choice { place, by, .. } = choice;
            tracing::info!(redis = %place, sentinel = %by, "the master, by the word of a sentinel");
            // The one before is left first of all.
            self.name(Named::Soon(format!("sentinel {by} has just named a master")));
        }
        let mut now = before.unwrap_or_else(|| Followed::new(choice.clone()));
        if now.role != Role::Master && now.is_due() {
            now.role = self.role(&now.choice).await;
            now.asked_at = Some(Instant::now());
            let Choice { place, by, .. } = &now.choice;
            if now.role == Role::Other {
                let why = format!("{place}, which sentinel {by} names, says that it is no master");
                line.say(&format!("{why}; until that changes, {WITHOUT_MASTER}"));
                self.name(Named::Nobody(why));
            } else {
                self.name(Named::Master(now.choice.clone()));
            }
        }
        *followed = Some(now);
    }

    /// What it says of itself. `ROLE` would be another right.
    async fn role(&self, choice: &Choice) -> Role {
        let asked = async {
            let client = Client::open(self.server(choice).info()?)?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(ANSWER_TIMEOUT))
                .set_response_timeout(Some(ANSWER_TIMEOUT));
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&config).await?;
            let info = redis::cmd("INFO").arg("replication").to_owned();
            info.query_async::<String>(&mut connection).await
        };
        match asked.await {
            Ok(info) if info.lines().any(|line| line.trim() == "role:master") => Role::Master,
            Ok(_) => Role::Other,
            Err(_) => Role::Unknown,
        }
    }

    fn name(&self, named: Named) {
        self.named.send_if_modified(|now| {
            let is_news = *now != named;
            *now = named;
            is_news
        });
    }

    /// Asks one sentinel until it is forgotten.
    async fn keep_asking(self: Arc<Sentinels>, sentinel: Place) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let error = self.ask_until_error(&sentinel, &mut backoff).await;
            let why = match error {
                Some(error) => meaning_of_sentinel(&error),
                None => return,
            };
            if !self.note(&sentinel, Answer::Nothing(why)) {
                return;
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Asks one sentinel over one connection; nothing when it is forgotten.
    async fn ask_until_error(&self, sentinel: &Place, backoff: &mut Backoff) -> Option<RedisError> {
        let mut connection = match self.connect(sentinel).await {
            Ok(connection) => connection,
            Err(error) => return Some(error),
        };
        let mut happenings = self.happenings.subscribe();
        for count in 0_u64.. {
            // What happens from here on is a reason to ask once more.
            happenings.mark_unchanged();
            let answer = match self.ask_one(&mut connection).await {
                Ok(answer) => answer,
                Err(error) => return Some(error),
            };
            backoff.reset();
            if !self.note(sentinel, answer) {
                return None;
            }
            if count.is_multiple_of(OTHERS_EVERY)
                && let Ok(others) = self.others(&mut connection).await
            {
                self.know(others);
            }
            tokio::time::sleep(ASK_SOONEST).await;
            tokio::select! {
                _ = happenings.changed() => {}
                () = tokio::time::sleep(ASK_INTERVAL) => {}
            }
        }
        None
    }

    async fn connect(&self, sentinel: &Place) -> Result<MultiplexedConnection, RedisError> {
        let happenings = self.happenings.clone();
        let on_push = move |push: PushInfo| {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                happenings.send_modify(|happenings| *happenings += 1);
            }
            Ok::<(), ()>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(on_push);
        let server = self.sentinel.at(sentinel, sentinel.to_string());
        let client = Client::open(server.info()?)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(&EVENTS).await?;
        Ok(connection)
    }

    async fn ask_one(&self, connection: &mut MultiplexedConnection) -> Result<Answer, RedisError> {
        let mut pipe = redis::pipe();
        // In this order: whoever names a new master has counted the failover before.
        pipe.cmd("SENTINEL").arg("MASTER").arg(&self.name);
        // Known some seconds before MASTER shows it: as soon as the new master says that it is one.
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let asked = pipe.query_async(connection).await;
        let (fields, place): (HashMap<String, String>, Option<(String, u16)>) = match asked {
            Err(error) if error.to_string().contains("No such master") => {
                return Ok(Answer::Nothing(UNKNOWN_NAME.to_owned()));
            }
            asked => asked?,
        };
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        Ok(match (place, epoch) {
            (Some((host, port)), Some(epoch)) if !host.is_empty() => {
                Answer::Master { place: Place { host, port }, epoch }
            }
            _ => Answer::Nothing(UNKNOWN_NAME.to_owned()),
        })
    }

    /// The other sentinels that one knows.
    async fn others(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Vec<Place>, RedisError> {
        let asked = redis::cmd("SENTINEL").arg("SENTINELS").arg(&self.name).to_owned();
        let others: Vec<HashMap<String, String>> = asked.query_async(connection).await?;
        let place = |fields: HashMap<String, String>| {
            let host = fields.get("ip").filter(|host| !host.is_empty())?.clone();
            Some(Place { host, port: fields.get("port")?.parse().ok()? })
        };
        Ok(others.into_iter().filter_map(place).collect())
    }

    /// Has these asked, too, as far as there is room: one that is away makes room unless it stands in
    /// the URL.
    fn know(&self, places: Vec<Place>) {
        let mut asked = self.asked();
        for sentinel in places {
            if asked.iter().any(|asked| asked.sentinel == sentinel) {
                continue;
            }
            if asked.len() >= SENTINELS_MAX {
                let is_away = |asked: &Asked| matches!(asked.answer, Answer::Nothing(_));
                let may_go =
                    |asked: &Asked| is_away(asked) && !self.of_url.contains(&asked.sentinel);
                let Some(away) = asked.iter().position(may_go) else { return };
                asked.remove(away);
            }
            asked.push(Asked { sentinel, answer: Answer::NotYet });
            self.answered.notify_one();
        }
    }

    /// Notes what one said; no if it is forgotten.
    fn note(&self, sentinel: &Place, answer: Answer) -> bool {
        let mut asked = self.asked();
        let noted = asked.iter_mut().find(|asked| asked.sentinel == *sentinel);
        let is_known = noted.is_some();
        if let Some(noted) = noted
            && noted.answer != answer
        {
            noted.answer = answer;
            self.answered.notify_one();
        }
        is_known
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is followed, and what it says of itself.
struct Followed {
    choice: Choice,
    role: Role,
    asked_at: Option<Instant>,
}

impl Followed {
    fn new(choice: Choice) -> Followed {
        Followed { choice, role: Role::Unknown, asked_at: None }
    }

    /// Whether it is time to ask what it is. One that does not answer is followed meanwhile.
    fn is_due(&self) -> bool {
        let interval = if self.role == Role::Other { ROLE_INTERVAL } else { ASK_INTERVAL };
        self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= interval)
    }
}

/// What the log is told of sentinels that do not help: once a minute, and what is new sooner.
#[derive(Default)]
struct Line {
    told: Option<(String, Instant)>,
}

impl Line {
    fn say(&mut self, line: &str) {
        let is_due = self.told.as_ref().is_none_or(|(told, at)| {
            at.elapsed() >= if told == line { LINE_INTERVAL } else { NEW_LINE_INTERVAL }
        });
        if is_due {
            tracing::warn!("{line}");
            self.told = Some((line.to_owned(), Instant::now()));
        }
    }
}

const LINE_INTERVAL: Duration = Duration::from_secs(60);
const NEW_LINE_INTERVAL: Duration = Duration::from_secs(5);

const WITHOUT_MASTER: &str = "streams are silent and changes are answered 503";

const UNKNOWN_NAME: &str = "knows no master by the name that FANTAIL_REDIS_URL has after #";

/// Why nobody is named, as a sentence: each reason once, with the first sentinel that it is true of.
fn nobody_says(asked: &[Asked]) -> String {
    let mut whys: Vec<(&Place, &str)> = Vec::new();
    for Asked { sentinel, answer } in asked {
        let why = match answer {
            Answer::Nothing(why) => why,
            _ => "has not answered yet",
        };
        if !whys.iter().any(|(_, known)| *known == why) {
            whys.push((sentinel, why));
        }
    }
    let whys: Vec<String> = whys.iter().map(|(place, why)| format!("{place} {why}")).collect();
    format!("none of {} sentinels says which Redis is the master: {}", asked.len(), whys.join("; "))
}
