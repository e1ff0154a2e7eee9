//! [`build`]: a board of so many tasks, made by concurrent requests as applications would.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::http::Client;
use crate::server::Server;

/// Clients that create tasks at the same time.
const CLIENTS: usize = 16;

/// A board that is there, and the bytes of `GET /boards/{board}`.
pub(crate) struct Board {
    /// Its id.
    pub id: String,
    /// Bytes of the answer with all of it.
    pub bytes: usize,
}

/// Makes a board with one list of `tasks` tasks, with titles of `title_bytes`.
///
/// # Errors
/// When the server refuses something.
pub(crate) fn build(
    server: &Server,
    run: &str,
    tasks: usize,
    title_bytes: usize,
) -> Result<Board, String> {
    let mut client = Client::connect(server.publishing)?;
    let list = format!("{run}-list");
    let board = format!(
        "{{\"id\":\"{run}\",\"name\":\"bench\",\"lists\":[{{\"id\":\"{list}\",\"title\":\"all\"}}]}}"
    );
    client.post("/boards", &board)?;
    let task = format!("{{\"title\":\"{}\",\"listId\":\"{list}\"}}", "x".repeat(title_bytes));
    let taken = AtomicUsize::new(0);
    let create = || {
        let mut client = Client::connect(server.publishing)?;
        while taken.fetch_add(1, Ordering::Relaxed) < tasks {
            client.post("/tasks", &task)?;
        }
        Ok::<(), String>(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(create)).collect();
        let joined = |client: std::thread::ScopedJoinHandle<'_, Result<(), String>>| {
            client.join().map_err(|_| "a client panicked".to_owned())?
        };
        clients.into_iter().try_for_each(joined)
    })?;
    let whole = client.get(&format!("/boards/{run}"))?;
    let found = whole.windows(8).filter(|eight| eight == b"\"title\":").count();
    // The list has a title of its own.
    if found != tasks + 1 {
        return Err(format!("a board of {tasks} tasks was answered with {found} titles"));
    }
    Ok(Board { id: run.to_owned(), bytes: whole.len() })
}
