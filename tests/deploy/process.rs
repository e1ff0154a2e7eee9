//! Processes that end with a test, and what one asks them over HTTP.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

/// A process that ends when this is dropped, and with it those that it started if it leads a group.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // A master that is killed leaves its workers.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that is removed when this is dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("fantail-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// More than anything here takes on a machine that is busy with other things.
pub const A_MINUTE: Duration = Duration::from_secs(60);

/// Reads a stream until it has said `part`; a minute at most.
pub async fn read_until(stream: &mut reqwest::Response, part: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(part) {
            match stream.chunk().await.unwrap() {
                Some(chunk) => text.push_str(&String::from_utf8_lossy(&chunk)),
                None => break,
            }
        }
    };
    let in_time = tokio::time::timeout(A_MINUTE, read).await.is_ok();
    assert!(in_time && text.contains(part), "no {part:?} in {text:?}");
    text
}

pub async fn post(url: &str, path: &str, body: &str) -> u16 {
    let request = reqwest::Client::new().post(format!("{url}{path}"));
    let request = request.header("Content-Type", "application/json").body(body.to_owned());
    request.send().await.unwrap().status().as_u16()
}

/// Asks again and again, for a minute at most.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began_at = Instant::now();
    while !is_so().await {
        assert!(began_at.elapsed() < A_MINUTE, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

pub fn signal(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

pub fn exists(id: u32) -> bool {
    pid(id).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Fails at once where a program is missing: a test that is left out in silence proves nothing.
pub fn need(programs: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    for program in programs {
        let mut places = path.split(':').chain(["/usr/sbin"]);
        let there = places.any(|at| Path::new(at).join(program).is_file());
        assert!(there, "{program} is not installed: tests/require.sh says how");
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
