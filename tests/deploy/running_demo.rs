//! `deploy/demo.sh`, running.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::files::top;
use crate::process::signal;

/// A running demo; it ends when this is dropped, however a test ends.
pub struct Demo {
    pub child: Child,
    pub http: String,
    pub https: String,
    pub nodes: Vec<u32>,
    pub urls: Vec<String>,
    pub nginx: u32,
    /// Each Redis, the first one the master at first; and the sentinels, if there are any.
    pub redis: Vec<u32>,
    pub sentinels: Vec<u32>,
    pub directory: PathBuf,
    /// What it says that one can try, line by line.
    pub hints: Vec<String>,
}

impl Demo {
    /// Starts one with these variables, on free ports.
    pub fn start(settings: &[(&str, &str)]) -> Demo {
        Demo::start_with(&[], settings)
    }

    /// The same with arguments.
    pub fn start_with(arguments: &[&str], settings: &[(&str, &str)]) -> Demo {
        let mut child = Command::new(top().join("deploy/demo.sh"))
            .args(arguments)
            .env("FANTAIL_BINARY", env!("CARGO_BIN_EXE_fantail"))
            // Even if this process is killed, the demo ends some time.
            .env("FANTAIL_DEMO_SECONDS", "120")
            .env("FANTAIL_DEMO_PORTS", "free")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.next().expect("the demo starts");
        let hints = lines.take_while(|line| !line.contains("Ctrl-C")).collect();
        let words: Vec<&str> = ready.split_whitespace().collect();
        let word = |name: &str| {
            let value = words.iter().find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("the demo did not say {name} but {ready:?}"))
        };
        let id = |text: &str| text.rsplit(':').next().unwrap().parse().unwrap();
        Demo {
            http: words[1].to_owned(),
            https: words[2].to_owned(),
            nodes: word("pids=").split(',').map(id).collect(),
            urls: word("nodes=").split(',').map(str::to_owned).collect(),
            nginx: id(word("nginx=")),
            redis: word("redis=").split(',').map(id).collect(),
            sentinels: words
                .iter()
                .find_map(|word| word.strip_prefix("sentinels="))
                .map_or_else(Vec::new, |all| all.split(',').map(id).collect()),
            directory: word("directory=").into(),
            hints,
            child,
        }
    }

    pub fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let began_at = Instant::now();
        while began_at.elapsed() < time {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        signal(self.child.id(), Signal::TERM);
        if self.ended_within(Duration::from_secs(10)).is_none() {
            // It hangs, so it cannot do this itself.
            let redis = self.sentinels.iter().chain(&self.redis);
            for &pid in self.nodes.iter().chain([&self.nginx]).chain(redis) {
                signal(pid, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
