//! What many readers of the same large answer take of memory: those that do not read above all.

use std::time::{Duration, Instant};

use super::{Measured, Settings};
use crate::load::board::build;
use crate::load::download::Downloads;
use crate::load::http::Client;
use crate::process;
use crate::server::Kind;

/// Tasks of the board: the most that it can have.
const TASKS: usize = 20_000;
const TASKS_QUICK: usize = 2_000;
/// Bytes of a task's title. Makes a board of 22 MiB.
const TITLE_BYTES: usize = 960;
/// How long it may take until as much was prepared for silent readers as will be.
const REST_TIMEOUT: Duration = Duration::from_secs(30);
const MIB: f64 = (1 << 20) as f64;

/// Who asks for it, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readers {
    count: usize,
    /// As the first event of a stream, or as the answer to `GET /boards/{board}`?
    stream: bool,
    reads: bool,
}

/// In this order.
pub(crate) const READERS: [Readers; 4] = [
    Readers { count: 60, stream: true, reads: false },
    Readers { count: 60, stream: true, reads: true },
    Readers { count: 40, stream: false, reads: false },
    Readers { count: 40, stream: false, reads: true },
];

/// The most memory that the server has had more than before, in user space and in the kernel's
/// socket buffers, while so many ask for the board at once; and how long it took to give it to
/// those that read.
///
/// # Errors
/// When somebody who reads does not get all of it.
pub(crate) fn large_answers(settings: &Settings, kind: &Kind, readers: Readers) -> Measured {
    let mut samples = settings.samples("large-answers", kind);
    let Readers { count, stream, reads } = readers;
    let (server, run) = settings.start(kind)?;
    let tasks = if settings.quick { TASKS_QUICK } else { TASKS };
    let board = build(&server, &run, tasks, TITLE_BYTES)?;
    let path = match stream {
        true => format!("/boards/{}/events?snapshot=true", board.id),
        false => format!("/boards/{}", board.id),
    };
    std::thread::sleep(settings.rest());
    let pid = *server.pids().first().ok_or("whose memory? name its --pid")?;
    process::reset_peak(pid);
    let [before, _] = process::resident_and_peak(pid)?;
    let buffers_before = process::socket_buffer_bytes();

    let downloads = Downloads::ask(&server, &path, count)?;
    let took = match reads {
        true => Some(downloads.read_all(board.bytes)?),
        false => {
            until_at_rest(pid, settings.rest())?;
            None
        }
    };
    let [_, peak] = process::resident_and_peak(pid)?;
    let buffers = process::socket_buffer_bytes() - buffers_before;
    // Whoever does not read must not keep others from being answered.
    Client::connect(server.publishing)?.get("/healthz")?;
    drop(downloads);

    let who = if reads { "readers" } else { "silent readers" };
    let what = if stream { "snapshots of" } else { "answers with" };
    let case = format!("{count} {who}, {what} {:.0} MiB", board.bytes as f64 / MIB);
    samples.add(&case, "user memory MiB, most", (peak - before) / MIB);
    match took {
        Some(took) => {
            let bytes = (board.bytes * count) as f64;
            samples.add(&case, "all complete after ms", took.as_secs_f64() * 1e3);
            samples.add(&case, "MiB/s", bytes / MIB / took.as_secs_f64());
        }
        None => samples.add(&case, "socket buffers MiB, both ends", buffers / MIB),
    }
    Ok(samples.all)
}

/// Waits until the memory of a process has not changed by more than a MiB for so long.
fn until_at_rest(pid: u32, rest: Duration) -> Result<(), String> {
    let began = Instant::now();
    let [mut last, _] = process::resident_and_peak(pid)?;
    let mut since = Instant::now();
    while since.elapsed() < rest && began.elapsed() < REST_TIMEOUT {
        std::thread::sleep(Duration::from_millis(50));
        let [now, _] = process::resident_and_peak(pid)?;
        if (now - last).abs() > MIB {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}
