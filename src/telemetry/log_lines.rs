//! [`LogLines`]: log lines on their way to standard error.
//!
//! Nobody who logs may be held up or ended by whoever reads the log: a pipe that nobody empties, a
//! reader that is gone, a full disk. Lines go into a queue that is bounded, one thread takes them
//! out and writes them, and what finds no room or cannot be written is counted and forgotten.

use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::metric;

/// Lines that may wait, and the bytes of each: 8 MiB at most while nobody reads.
const LINES_MAX: usize = 1_024;
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long to wait for a standard error that does not block and has no room.
const WRITE_RETRY: Duration = Duration::from_millis(10);

/// How long the end of the process may wait for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The writing end of the queue: each write is one line. Never fails and never waits.
#[derive(Clone)]
pub(super) struct LogLines(SyncSender<Message>);

/// What goes through the queue.
enum Message {
    Line(Vec<u8>),
    /// Told when everything before it was written, or given up.
    Flush(SyncSender<()>),
}

/// That of this process; there is one standard error.
static LINES: OnceLock<LogLines> = OnceLock::new();

impl LogLines {
    /// The queue of this process.
    pub(super) fn get() -> &'static LogLines {
        LINES.get_or_init(|| LogLines::start(io::stderr()))
    }

    fn start(out: impl Write + Send + 'static) -> LogLines {
        let (lines, waiting) = sync_channel(LINES_MAX);
        // Without a thread the queue has no other end, and every line is one that is dropped.
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&waiting, out));
        LogLines(lines)
    }

    /// Waits until what was logged is written, for a bounded time: before the process ends.
    pub(super) fn flush(&self) {
        let give_up_at = Instant::now() + FLUSH_TIMEOUT;
        let (tell, told) = sync_channel(1);
        let mut message = Message::Flush(tell);
        while let Err(TrySendError::Full(back)) = self.0.try_send(message) {
            if Instant::now() >= give_up_at {
                return;
            }
            message = back;
            std::thread::sleep(WRITE_RETRY);
        }
        let _ = told.recv_timeout(give_up_at.saturating_duration_since(Instant::now()));
    }
}

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(LINE_BYTES_MAX)].to_vec();
        if kept.len() < line.len() {
            kept.extend_from_slice("…\n".as_bytes());
        }
        if self.0.try_send(Message::Line(kept)).is_err() {
            metric::log_line_dropped();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes out of the queue, for ever.
fn write_lines(waiting: &Receiver<Message>, mut out: impl Write) {
    // The last line broke off in the middle: the next one begins on a line of its own.
    let mut torn = false;
    for message in waiting {
        match message {
            Message::Line(mut line) => {
                if torn {
                    line.insert(0, b'\n');
                }
                match write_line(&mut out, &line) {
                    Ok(()) => torn = false,
                    Err(written) => {
                        torn |= written > 0;
                        metric::log_line_dropped();
                    }
                }
            }
            Message::Flush(tell) => {
                let _ = out.flush();
                let _ = tell.try_send(());
            }
        }
    }
}

/// Writes a line; if that cannot be, how many of its bytes were written.
fn write_line(out: &mut impl Write, line: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < line.len() {
        match out.write(&line[written..]) {
            Ok(0) => return Err(written),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Shared with somebody who wants it so. Meanwhile the queue is what waits.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(WRITE_RETRY),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written, or how that fails, in this order; then everything is taken.
    struct Out {
        results: Vec<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken =
                if self.results.is_empty() { Ok(bytes.len()) } else { self.results.remove(0) };
            let taken = taken?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }

    fn written_through(results: Vec<io::Result<usize>>, lines: &[&str]) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut queue = LogLines::start(Out { results, written: written.clone() });
        for line in lines {
            queue.write_all(line.as_bytes()).unwrap();
        }
        LogLines::flush(&queue);
        let written = written.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn a_line_that_cannot_be_written_is_left_out_and_the_next_one_is_written() {
        let gone = || Err(ErrorKind::BrokenPipe.into());
        assert_eq!(written_through(vec![gone(), gone()], &["a\n", "b\n", "c\n"]), "c\n");
        let full = || Err(ErrorKind::StorageFull.into());
        let torn = vec![Ok(2), full(), full()];
        assert_eq!(written_through(torn, &["line\n", "b\n", "c\n", "d\n"]), "li\nc\nd\n");
        let busy = || Err(ErrorKind::WouldBlock.into());
        let slow = vec![Ok(1), busy(), Err(ErrorKind::Interrupted.into())];
        assert_eq!(written_through(slow, &["ab\n", "c\n"]), "ab\nc\n");
        assert_eq!(written_through(vec![Ok(0)], &["a\n", "b\n"]), "b\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let long = format!("{}\n", "x".repeat(3 * LINE_BYTES_MAX));
        let written = written_through(Vec::new(), &[&long, "b\n"]);
        assert_eq!(written, format!("{}…\nb\n", "x".repeat(LINE_BYTES_MAX)));
    }

    #[test]
    fn who_logs_waits_for_nobody() {
        /// Takes nothing and does not say so.
        struct Stuck;
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    std::thread::park();
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = LogLines::start(Stuck);
        let began_at = Instant::now();
        for _ in 0..2 * LINES_MAX {
            queue.write_all(b"a line\n").unwrap();
        }
        LogLines::flush(&queue);
        assert!(began_at.elapsed() < 20 * FLUSH_TIMEOUT, "{:?}", began_at.elapsed());
    }
}
