//! [`Redis`]: a redis-server of the test's own, and how nodes are let in there.
//!
//! `REDIS_ACL=1` runs the same tests with the user that docs/operations.md recommends and no other:
//! whatever a node does, that user may do. `REDIS_TLS=1` runs them over TLS, with a certificate that
//! Redis demands, except where a network that understands RESP lies between. A test that
//! administers Redis itself is another user. `TOPOLOGY=sentinel` runs them with nodes that are told of
//! a sentinel which watches the test's Redis, except where a network lies between.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::process::Signal;

use super::certificates::Authority;
use super::process::{Process, TempDir, free_port};
use super::sentinels::{self, Doors, Sentinel};

/// The password of the user that tests administer Redis with, where there is more than one.
const ADMINISTRATORS_PASSWORD: &str = "of-the-tests-alone";

/// The user of the documentation, where nodes have to be that one.
static DOCUMENTED: LazyLock<Option<User>> =
    LazyLock::new(|| is_set("REDIS_ACL").then(documented_user));

/// Who signs, and what is signed, where nodes have to speak TLS.
static TLS: LazyLock<Option<Tls>> = LazyLock::new(|| {
    is_set("REDIS_TLS").then(|| {
        // Nobody drops what is static: the files stay where whatever is built stays.
        let name = format!("redis-tls-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let authority = Authority::new();
        authority.write(&dir, "ca");
        authority.server(&["localhost"]).write(&dir, "server");
        authority.client("node").write(&dir, "client");
        Tls { dir }
    })
});

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value != "0")
}

/// A user of Redis, as `ACL SETUSER` makes it.
pub struct User {
    /// Name and rules.
    words: Vec<String>,
}

impl User {
    fn name(&self) -> &str {
        &self.words[0]
    }

    fn password(&self) -> &str {
        self.words.iter().find_map(|word| word.strip_prefix('>')).expect("it has a password")
    }
}

/// The one user that docs/operations.md recommends: what is written there is what is tested.
pub fn documented_user() -> User {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(file).unwrap();
    let users: Vec<&str> = text.split("`ACL SETUSER ").skip(1).collect();
    let [user] = users[..] else { panic!("docs/operations.md recommends {} users", users.len()) };
    let rules = user.split('`').next().unwrap();
    User { words: rules.split(' ').map(ToOwned::to_owned).collect() }
}

/// Certificates and keys in files.
struct Tls {
    dir: PathBuf,
}

impl Tls {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }
}

/// The settings that a node needs besides the URL of a Redis of these tests.
pub fn settings_for(url: &str) -> HashMap<&'static str, String> {
    match &*TLS {
        Some(tls) if url.starts_with("rediss://") => HashMap::from([
            ("FANTAIL_REDIS_CA", tls.file("ca.pem")),
            ("FANTAIL_REDIS_CERT", tls.file("client.pem")),
            ("FANTAIL_REDIS_KEY", tls.file("client.key")),
        ]),
        _ => HashMap::new(),
    }
}

/// The URL with which nodes find a Redis of these tests at this address, without TLS.
pub fn url_of(address: impl std::fmt::Display) -> String {
    match &*DOCUMENTED {
        Some(user) => format!("redis://{}:{}@{address}", user.name(), user.password()),
        None => format!("redis://{address}"),
    }
}

/// With which password sentinels ask, where there is one.
pub fn sentinels_password() -> Option<&'static str> {
    DOCUMENTED.as_ref().map(|_| ADMINISTRATORS_PASSWORD)
}

/// A redis-server of the test's own.
pub struct Redis {
    process: Option<Process>,
    port: u16,
    tls_port: Option<u16>,
    dir: TempDir,
    arguments: Vec<String>,
    /// Asked too early, it has said so.
    refused_loading: bool,
    /// Who tells nodes where it is, if they are to ask.
    sentinel: Option<Sentinel>,
}

impl Redis {
    pub async fn start() -> Redis {
        Redis::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Redis {
        let mut redis = Redis::start_unwatched(arguments).await;
        let is_watched = std::env::var("TOPOLOGY").is_ok_and(|topology| topology == "sentinel");
        if is_watched {
            // Whatever a test does to it, no sentinel makes another master by itself.
            let never = Duration::from_secs(3_600);
            let sentinel = Sentinel::start(redis.port, 1, never, &Doors::default()).await;
            redis.sentinel = Some(sentinel);
        }
        redis
    }

    /// One that nodes find by its own address, whatever is wanted of the others.
    pub async fn start_unwatched(arguments: &[&str]) -> Redis {
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        let mut redis = Redis {
            process: None,
            port: 0,
            tls_port: None,
            dir: TempDir::new(),
            arguments,
            refused_loading: false,
            sentinel: None,
        };
        for _ in 0..10 {
            redis.port = free_port();
            redis.tls_port = TLS.as_ref().map(|_| free_port());
            if redis.launch().await {
                return redis;
            }
        }
        panic!("cannot start redis-server: is it installed?");
    }

    /// Where it is for nodes, or will be again.
    pub fn url(&self) -> String {
        if let Some(sentinel) = &self.sentinel {
            return sentinels::url(&[sentinel.port()]);
        }
        let plain = self.plain_url();
        match self.tls_port {
            Some(port) => {
                let secure = plain.replacen("redis://", "rediss://", 1);
                secure.replace(&format!("127.0.0.1:{}", self.port), &format!("localhost:{port}"))
            }
            None => plain,
        }
    }

    /// The same, without TLS in any case.
    pub fn plain_url(&self) -> String {
        url_of(format_args!("127.0.0.1:{}", self.port))
    }

    /// Where it is for tests, which may do anything there.
    pub fn administrators_url(&self) -> String {
        match &*DOCUMENTED {
            Some(_) => format!("redis://:{ADMINISTRATORS_PASSWORD}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// Lets nodes have this prefix, too.
    pub async fn allow_prefix(&self, prefix: &str) {
        if let Some(user) = &*DOCUMENTED {
            let (keys, channels) = (format!("~{prefix}:*"), format!("&{prefix}:*"));
            let _: String = self.ask(&["ACL", "SETUSER", user.name(), &keys, &channels]).await;
        }
    }

    /// What it is started with so that nodes must prove who they are.
    fn doors(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        if let Some(user) = &*DOCUMENTED {
            say(&["--requirepass", ADMINISTRATORS_PASSWORD]);
            say(&["--masterauth", ADMINISTRATORS_PASSWORD]);
            say(&["--user"]);
            user.words.iter().for_each(|word| say(&[word]));
        }
        if let (Some(tls), Some(port)) = (&*TLS, self.tls_port) {
            say(&["--tls-port", &port.to_string()]);
            say(&["--tls-cert-file", &tls.file("server.pem")]);
            say(&["--tls-key-file", &tls.file("server.key")]);
            say(&["--tls-ca-cert-file", &tls.file("ca.pem")]);
        }
        arguments
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again after [`Redis::kill`], on the same port and with its files.
    pub async fn restart(&mut self) {
        assert!(self.launch().await, "redis-server did not start again");
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Loses its disk, while it does not run.
    pub fn forget(&mut self) {
        assert!(self.process.is_none());
        self.dir = TempDir::new();
    }

    /// Starts it again after [`Redis::kill`]; to load each of its keys takes this many
    /// microseconds, and it answers nothing else meanwhile. Whether it was seen loading.
    pub async fn restart_slowly(&mut self, key_microseconds: u64) -> bool {
        let slowly = [
            "--key-load-delay",
            &key_microseconds.to_string(),
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        let count = self.arguments.len();
        self.arguments.extend(slowly.map(str::to_owned));
        self.refused_loading = false;
        self.restart().await;
        self.arguments.truncate(count);
        self.refused_loading
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    /// Starts the process; no if it ended at once.
    async fn launch(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", self.dir.0.to_str().unwrap(), "--logfile", "redis.log"])
            .args(self.doors())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(Process::new(child, Arc::default()));
        // Until it answers, or ended because somebody else took the port.
        for _ in 0..1_000 {
            if self.process.as_mut().is_some_and(Process::has_ended) {
                return false;
            }
            match self.connect().await {
                // One that asks for another password answers too.
                Err(error) if is_about_passwords(&error) => return true,
                Err(_) => {}
                Ok(mut connection) => {
                    let answer = redis::cmd("PING").query_async::<String>(&mut connection).await;
                    self.refused_loading |=
                        answer.as_ref().is_err_and(|error| error.to_string().contains("oading"));
                    if answer.map_or_else(|error| is_about_passwords(&error), |_| true) {
                        return true;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// The same for commands that take long; what they answer, also an error, is not wanted.
    pub async fn ask_patiently(&self, patience: Duration, words: &[&str]) {
        let client = redis::Client::open(self.administrators_url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(patience));
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let _ = command.query_async::<redis::Value>(&mut connection).await;
    }

    async fn connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.administrators_url())?.get_multiplexed_async_connection().await
    }

    /// Sends one command, given in words.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap()
    }

    /// The same where it may be refused.
    pub async fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = self.connect().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    /// How often a command was called since the statistics were reset.
    pub async fn calls(&self, command: &str) -> u64 {
        let info: String = self.ask(&["INFO", "commandstats"]).await;
        let start = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    }
}

fn is_about_passwords(error: &redis::RedisError) -> bool {
    let text = error.to_string();
    text.contains("NOAUTH") || text.contains("WRONGPASS")
}

#[test]
fn the_documentation_recommends_one_user_and_no_more_than_it_needs() {
    let user = documented_user();
    assert!(user.words.contains(&"on".to_owned()) && !user.password().is_empty());
    for broad in ["~*", "&*", "allkeys", "allchannels", "nopass"] {
        assert!(!user.words.contains(&broad.to_owned()), "{broad}");
    }
}
