//! A server that speaks as much RESP3 as redis-rs asks for, and otherwise answers what a test wants.
//! It shows what no real Redis shows on demand: silence, a connection that is cut before a reply, a
//! message at a chosen moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Beyond this time a test has failed, however slow the machine is.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What becomes of a command.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// This is sent as it is.
    Sent(String),
    /// Nothing is sent, now or later.
    Silence,
    /// The connection is cut.
    Cut,
}

impl Reply {
    /// A simple string.
    pub(super) fn line(text: &str) -> Reply {
        Reply::Sent(format!("+{text}\r\n"))
    }

    /// An error.
    pub(super) fn error(text: &str) -> Reply {
        Reply::Sent(format!("-{text}\r\n"))
    }
}

type Script = dyn Fn(&str) -> Reply + Send + Sync;

/// A server on a port of its own; it ends with its last reference.
pub(super) struct ScriptedServer {
    port: u16,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    /// For each connection, in the order in which they came, its commands so far.
    commands: watch::Sender<Vec<Vec<String>>>,
    /// What is still to happen to each, unasked.
    pushes: Mutex<Vec<VecDeque<Reply>>>,
    pushed: watch::Sender<u64>,
}

impl ScriptedServer {
    /// Answers each command (its words, divided by spaces) but those of a connection's beginning and
    /// of subscribing with what `script` says.
    pub(super) async fn start(
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> ScriptedServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            commands: watch::Sender::new(Vec::new()),
            pushes: Mutex::default(),
            pushed: watch::Sender::new(0),
        });
        let mut accepting = JoinSet::new();
        let serving = shared.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let mut number = 0;
                serving.pushes.lock().unwrap().push(VecDeque::new());
                serving.commands.send_modify(|commands| {
                    number = commands.len();
                    commands.push(Vec::new());
                });
                connections.spawn(serve(serving.clone(), socket, number));
            }
        });
        ScriptedServer { port, shared, _accepting: accepting }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The commands of each connection so far.
    pub(super) fn commands(&self) -> Vec<Vec<String>> {
        self.shared.commands.borrow().clone()
    }

    /// Waits until the commands so far are as wanted.
    pub(super) async fn until(&self, wanted: impl FnMut(&Vec<Vec<String>>) -> bool) {
        let mut commands = self.shared.commands.subscribe();
        let came = tokio::time::timeout(TEST_TIMEOUT, commands.wait_for(wanted)).await.is_ok();
        assert!(came, "the wanted commands did not come: {:?}", self.commands());
    }

    /// Sends the message of a channel to a connection.
    pub(super) fn push(&self, connection: usize, channel: &str, payload: &str) {
        let message = format!(">3\r\n{}{}{}", bulk("message"), bulk(channel), bulk(payload));
        self.unasked(connection, Reply::Sent(message));
    }

    /// Cuts a connection.
    pub(super) fn cut(&self, connection: usize) {
        self.unasked(connection, Reply::Cut);
    }

    /// Answers what comes from now on with what `script` says.
    pub(super) fn answer(&self, script: impl Fn(&str) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    fn unasked(&self, connection: usize, reply: Reply) {
        self.shared.pushes.lock().unwrap()[connection].push_back(reply);
        self.shared.pushed.send_modify(|pushed| *pushed += 1);
    }
}

async fn serve(shared: Arc<Shared>, socket: TcpStream, number: usize) {
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    let mut pushed = shared.pushed.subscribe();
    loop {
        let next = shared.pushes.lock().unwrap()[number].pop_front();
        let reply = match next {
            Some(push) => push,
            None => tokio::select! {
                _ = pushed.changed() => continue,
                words = command(&mut read) => {
                    let Some(words) = words else { return };
                    let text = words.join(" ");
                    shared.commands.send_modify(|commands| commands[number].push(text.clone()));
                    match words[0].as_str() {
                        "HELLO" => Reply::Sent("%1\r\n+proto\r\n:3\r\n".to_owned()),
                        "CLIENT" => Reply::line("OK"),
                        "SUBSCRIBE" | "UNSUBSCRIBE" => confirmations(&words),
                        _ => {
                            let script = shared.script.lock().unwrap().clone();
                            script(&text)
                        }
                    }
                }
            },
        };
        match reply {
            Reply::Sent(bytes) if write.write_all(bytes.as_bytes()).await.is_ok() => {}
            Reply::Silence => {}
            Reply::Sent(_) | Reply::Cut => return,
        }
    }
}

/// One confirmation for each channel.
fn confirmations(words: &[String]) -> Reply {
    let kind = words[0].to_lowercase();
    let confirm = |channel: &String| format!(">3\r\n{}{}:1\r\n", bulk(&kind), bulk(channel));
    Reply::Sent(words[1..].iter().map(confirm).collect())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// The words of the next command; `None` at the end of the connection.
async fn command(read: &mut BufReader<OwnedReadHalf>) -> Option<Vec<String>> {
    let count = line(read).await?.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let bytes: usize = line(read).await?.strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; bytes + 2];
        read.read_exact(&mut word).await.ok()?;
        word.truncate(bytes);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

async fn line(read: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = String::new();
    read.read_line(&mut line).await.ok().filter(|&bytes| bytes > 0)?;
    Some(line.trim_end().to_owned())
}
