//! Runs the commands of one page, from top to bottom, as somebody who reads it would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::page::{Block, Page, Step, top};
use crate::shape::{Numbers, matches};

/// How long a stream may take until it has said what the page shows.
const STREAM_WITHIN: Duration = Duration::from_secs(20);

/// How long all commands of one block may take.
const BLOCK_SECONDS: &str = "120";

/// The gateway that a page tells its readers to start, and what they have open.
pub(crate) struct Session {
    gateway: Ended,
    address: String,
    /// Started if the page speaks of it.
    demo: Option<Demo>,
    /// The stream that was opened last; `sse` blocks show what follows on it.
    stream: Option<Stream>,
}

impl Session {
    pub(crate) fn of(page: &Page) -> Session {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FANTAIL_")) {
            command.env_remove(name);
        }
        command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        // With the settings that the page starts it with.
        for step in page.blocks.iter().flat_map(Block::steps) {
            let (settings, started) = step.without_settings();
            if started == "cargo run --release" {
                command.envs(settings);
            }
        }
        let mut gateway = Ended(command.spawn().unwrap());
        let said = lines_of(gateway.0.stderr.take().unwrap());
        let address = said.iter().find_map(|line| {
            let (_, rest) = line.split_once("listening on http://")?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        let address = address.expect("the gateway says where it listens");
        let commands = page.blocks.iter().flat_map(Block::steps).map(|step| step.command);
        let needs_demo = commands.into_iter().any(|command| command.contains("127.0.0.1:8080"));
        Session { gateway, address, demo: needs_demo.then(Demo::start), stream: None }
    }

    /// Runs the commands of a block but those of which `is_left_out` says so, and compares their
    /// output with what is shown.
    pub(crate) fn run(&mut self, block: &Block, is_left_out: impl Fn(&Step) -> bool) {
        if block.language == "sse" {
            let stream = self.stream.as_ref().unwrap_or_else(|| panic!("{}: no stream", block.at));
            return stream.says(&block.lines, &block.at);
        }
        let steps: Vec<Step> = block.steps().into_iter().filter(|s| !is_left_out(s)).collect();
        match steps.as_slice() {
            [] => {}
            [Step { command, output: Some(shown) }] if command.starts_with("curl -N") => {
                let stream = Stream::open(&self.here(command));
                stream.says(shown, &block.at);
                self.stream = Some(stream);
            }
            steps => self.run_commands(steps, &block.at),
        }
    }

    /// One shell for all, so that what one remembers the next one knows.
    fn run_commands(&self, steps: &[Step], at: &str) {
        let mut script = String::new();
        for step in steps {
            script.push_str(&self.here(&step.command));
            script.push_str("\nprintf '\\036%s\\n' \"$?\"\n");
        }
        let words = ["timeout", BLOCK_SECONDS, "bash", "-c", &script];
        let output = with_fantail(&words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8(output.stdout).unwrap();
        // The output of each, and behind it its status, which begins a line.
        let mut rest = printed.as_str();
        for step in steps {
            let command = &step.command;
            let ended = rest.split_once('\x1e').and_then(|(out, rest)| {
                let (status, rest) = rest.split_once('\n')?;
                Some((out, status, rest))
            });
            let Some((out, status, others)) = ended else {
                panic!("{at}: {command}\ndid not end\n{rest}\n{errors}");
            };
            rest = others;
            assert_eq!(status, "0", "{at}: {command}\n{out}\n{errors}");
            let Some(shown) = &step.output else { continue };
            let is_check = command.starts_with("fantail check");
            let numbers = if is_check { Numbers::Measured } else { Numbers::Exact };
            let out: Vec<String> = out.lines().map(str::to_owned).collect();
            assert!(
                matches(shown, &out, numbers),
                "{at}: {command}\nprints {out:#?}\nnot {shown:#?}"
            );
        }
    }

    /// A command with the addresses of what runs here, and nothing else changed.
    fn here(&self, command: &str) -> String {
        let mut command = command.replace("127.0.0.1:3000", &self.address);
        if let Some(demo) = &self.demo {
            command = command.replace("127.0.0.1:8080", &demo.http);
            command = command.replace("127.0.0.1:8443", &demo.https);
        }
        command
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Streams first: their clients would complain of a gateway that is gone.
        self.stream = None;
        let _ = self.gateway.0.kill();
    }
}

/// A command in whose environment `fantail` is the program that is tested.
fn with_fantail(words: &[&str]) -> Command {
    let ours = Path::new(env!("CARGO_BIN_EXE_fantail")).parent().unwrap();
    let path = format!("{}:{}", ours.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", path).current_dir(top());
    command
}

/// A `curl -N` that goes on until this is dropped, as with Ctrl-C.
struct Stream {
    _curl: Ended,
    lines: Receiver<String>,
}

impl Stream {
    fn open(command: &str) -> Stream {
        // "exec", so that it is curl itself that is ended.
        let mut curl = with_fantail(&["bash", "-c", &format!("exec {command}")]);
        let curl = curl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut curl = Ended(curl);
        let lines = lines_of(curl.0.stdout.take().unwrap());
        Stream { _curl: curl, lines }
    }

    /// Waits until it has said what is shown, and nothing else.
    fn says(&self, shown: &[String], at: &str) {
        let deadline = Instant::now() + STREAM_WITHIN;
        let mut said = Vec::new();
        while !matches(shown, &said, Numbers::Exact) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                // It comes when it is quiet long enough, which nobody can show in a block.
                Ok(line) if line == ": heartbeat" => {}
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{at}: the stream says {said:#?}\nnot {shown:#?}")
                }
            }
        }
    }
}

/// `deploy/demo.sh` on free ports.
struct Demo {
    script: Child,
    http: String,
    https: String,
}

impl Demo {
    fn start() -> Demo {
        let mut script = Command::new(top().join("deploy/demo.sh"))
            .env("FANTAIL_BINARY", env!("CARGO_BIN_EXE_fantail"))
            // Even if this process is killed, the demo ends some time.
            .env("FANTAIL_DEMO_SECONDS", "120")
            .env("FANTAIL_DEMO_PORTS", "free")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = lines_of(script.stdout.take().unwrap());
        let ready = said.recv().expect("the demo starts");
        let words: Vec<&str> = ready.split_whitespace().collect();
        let ["ready", http, https, ..] = words[..] else { panic!("the demo says {ready}") };
        let authority = |url: &str| url.split_once("://").unwrap().1.to_owned();
        Demo { script, http: authority(http), https: authority(https) }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It ends its own processes before it ends.
        let pid = rustix::process::Pid::from_child(&self.script);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.script.wait();
    }
}

/// A process that ends when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process says, line by line, as long as it does.
fn lines_of(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Nobody listens any more: read on, so that the process does not stop for that.
            let _ = tell.send(line);
        }
    });
    told
}
