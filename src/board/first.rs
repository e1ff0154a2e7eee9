//! The board that a new installation has, so that the first `curl` works.

use std::sync::Arc;
use std::time::Duration;

use super::{Boards, Command, NewList, Title};
use crate::backoff::Backoff;
use crate::topic::Topic;

/// How often it is made sure of: the log may lose everything at any time.
const INTERVAL: Duration = Duration::from_secs(2);

/// The first wait after the log could not be asked; [`INTERVAL`] is the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Makes the first board whenever there is none, for ever.
pub async fn keep_first_board(boards: Arc<dyn Boards>) {
    let mut backoff = Backoff::new(RETRY_FIRST, INTERVAL);
    loop {
        let wait = match boards.ensure_first_board().await {
            Ok(()) => {
                backoff.reset();
                INTERVAL
            }
            Err(error) => {
                tracing::debug!(%error, "cannot make the first board");
                backoff.wait()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// The board that a new installation has: id, name, and its lists as id and title.
pub fn first_board() -> Command {
    let topic = |id: &str| Topic::new(id).ok();
    let list = |id: &str, title: &str| NewList { id: topic(id), title: Title(title.to_owned()) };
    Command::CreateBoard {
        id: topic("board-1"),
        name: Title("First board".to_owned()),
        lists: vec![
            list("list-todo", "To do"),
            list("list-doing", "Doing"),
            list("list-done", "Done"),
        ],
    }
}
