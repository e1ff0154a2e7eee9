//! [`Process`]es that the bench starts and ends, and what the kernel says they use.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a program may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The processes that run, for the end that nobody planned.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Ends all processes that were started, and this one, when it is told to end.
///
/// # Errors
/// When signals cannot be awaited.
pub(crate) fn end_all_on_signals() -> Result<(), String> {
    let signals = [SIGINT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(signals).map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if let Some(number) = signals.forever().next() {
            for &pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                terminate(pid);
            }
            std::process::exit(128 + number);
        }
    });
    Ok(())
}

fn terminate(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// A child process; ends when it is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program that says nothing worth hearing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(command: &mut Command) -> Result<Process, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Process::spawn(command)
    }

    /// Starts a program that says on standard error where it listens, as `http://<address>`.
    ///
    /// # Errors
    /// When it cannot be started, or does not say so.
    pub(crate) fn start_listening(command: &mut Command) -> Result<(Process, String), String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let stderr = process.child.stderr.take().ok_or("no standard error")?;
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stderr);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    let _ = said.send(address.to_owned());
                } else if line.contains("ERROR") || line.starts_with("fantail:") {
                    eprint!("bench: {line}");
                }
                line.clear();
            }
            // Whatever else it says must not stop it.
            let _ = lines.read_to_end(&mut Vec::new());
        });
        let address = heard.recv_timeout(STARTS_WITHIN);
        let address = address.map_err(|_| format!("{command:?} does not say where it listens"))?;
        Ok((process, address))
    }

    fn spawn(command: &mut Command) -> Result<Process, String> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        running.push(child.id());
        Ok(Process { child })
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        terminate(self.pid());
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > ENDS_WITHIN {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Only now: the id may be given to another process.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|&pid| pid != self.pid());
    }
}

/// A loopback port that nobody has; below those that the kernel gives to outgoing connections, so
/// that none of them takes it before the server does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two sessions side by side begin at different ones.
    let first = (std::process::id() % 12_000) as u16;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (first + next % 12_000) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until something listens on a loopback port.
///
/// # Errors
/// When nothing does.
pub(crate) fn until_listening(what: &str, port: u16) -> Result<(), String> {
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    crate::clock::until(&format!("{what} to listen"), STARTS_WITHIN, listens)
}

/// A process and all its descendants.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut n = 0;
    while let Some(&member) = family.get(n) {
        let children = parents.iter().filter(|(_, parent)| *parent == member);
        family.extend(children.map(|(pid, _)| pid));
        n += 1;
    }
    family
}

/// The fields of `/proc/<pid>/stat` from the third (state) on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second is the name in brackets, which may have spaces.
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// Processor time of processes up to now, in seconds: in user space and in the kernel for them.
///
/// # Errors
/// When one of them is gone.
pub(crate) fn cpu_seconds(pids: &[u32]) -> Result<f64, String> {
    let mut ticks = 0;
    for &pid in pids {
        let fields = stat(pid).ok_or_else(|| format!("process {pid} is gone"))?;
        // utime and stime.
        for field in &fields[11..=12] {
            ticks += field.parse::<u64>().map_err(|_| "unreadable /proc/<pid>/stat".to_owned())?;
        }
    }
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of processes, in bytes: what is theirs alone, and their part of what they share.
///
/// # Errors
/// When one of them is gone.
pub(crate) fn memory_bytes(pids: &[u32]) -> Result<f64, String> {
    let mut bytes = 0.0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .map_err(|error| format!("memory of process {pid}: {error}"))?;
        bytes += kib(&text, "Pss:") * 1024.0;
    }
    Ok(bytes)
}

/// Memory of the kernel's own objects (sockets, epoll, files of all processes), in bytes.
pub(crate) fn kernel_bytes() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&text, "Slab:") * 1024.0
}

/// Memory of all TCP buffers, in bytes.
pub(crate) fn socket_buffer_bytes() -> f64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let pages = tcp.split_whitespace().last().and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as f64
}

/// Bytes that wait to be sent or to be acknowledged in all sockets of a local port.
pub(crate) fn unsent_bytes(port: u16) -> f64 {
    let text = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{port:04X}");
    let unsent = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        // Behind the other end and the state: <bytes to send>:<bytes to read>.
        let (unsent, _) = fields.nth(2)?.split_once(':')?;
        if local.ends_with(&port) { u64::from_str_radix(unsent, 16).ok() } else { None }
    };
    text.lines().filter_map(unsent).sum::<u64>() as f64
}

/// From now on counts the most memory that a process has had anew. Without effect where the system
/// does not let it; then the most is that since the start.
pub(crate) fn reset_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The memory that a process has, and the most that it has had, in bytes.
///
/// # Errors
/// When it is gone.
pub(crate) fn resident_and_peak(pid: u32) -> Result<[f64; 2], String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| format!("memory of process {pid}: {error}"))?;
    Ok(["VmRSS:", "VmHWM:"].map(|name| kib(&text, name) * 1024.0))
}

fn kib(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// The first line that a program says, or "unknown".
pub(crate) fn first_line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let line = output.ok().and_then(|output| {
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
    });
    line.unwrap_or_else(|| "unknown".to_owned())
}

/// Raises the limit of open files to what the system allows, for this process and those it starts.
/// Root may raise the hard limit too, where it is not fenced in. Returns the limit.
pub(crate) fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    for more in [1_048_576, 131_072] {
        if limit.maximum.is_some_and(|maximum| maximum < more) {
            (limit.current, limit.maximum) = (Some(more), Some(more));
            if setrlimit(Resource::Nofile, limit).is_ok() {
                break;
            }
        }
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}
