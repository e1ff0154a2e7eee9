//! [`ConnectionGeneration`]: which connections to a server may still be used.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long commands may still be answered on a connection that is being replaced. Where one
/// connection died without a word the others did too, and who waits for them waits in vain.
const LAST_REPLIES_TIMEOUT: Duration = Duration::from_millis(250);

/// Numbers the generations of the connections to one server. Every connection remembers in which one
/// it was made; when one breaks its generation ends, and connections of an earlier generation are
/// replaced before anything is sent on them. A server that is left has no generation any more.
pub(in crate::log::redis) struct ConnectionGeneration(watch::Sender<Current>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Current {
    number: usize,
    /// Whatever this server says from now on, nobody hears it.
    is_left: bool,
}

/// Why nobody waits for an answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::redis) enum GivenUp {
    /// The connection is being replaced, and had its time.
    Replaced,
    /// The server was left.
    Left,
}

impl ConnectionGeneration {
    pub(in crate::log::redis) fn new() -> Arc<ConnectionGeneration> {
        let first = Current { number: 0, is_left: false };
        Arc::new(ConnectionGeneration(watch::Sender::new(first)))
    }

    /// A connection is dead that nobody has closed; so all others may be.
    pub(in crate::log::redis) fn invalidate_all(&self) {
        self.0.send_modify(|current| current.number += 1);
    }

    /// The server is not to be used any more: nothing is sent there, and no answer counts that has
    /// not been passed on before this returns.
    pub(in crate::log::redis) fn leave(&self) {
        self.0.send_modify(|current| current.is_left = true);
    }

    pub(in crate::log::redis) fn is_left(&self) -> bool {
        self.0.borrow().is_left
    }

    /// Waits until the server is left.
    pub(in crate::log::redis) async fn left(&self) {
        let left = self.0.subscribe().wait_for(|current| current.is_left).await.is_ok();
        if !left {
            std::future::pending::<()>().await;
        }
    }

    /// The number that a connection remembers which is made now.
    pub(in crate::log::redis) fn current(&self) -> usize {
        self.0.borrow().number
    }

    /// A connection of this generation broke. Ends the generation once: the next commands to fail
    /// on such a connection were sent before.
    pub(super) fn invalidate(&self, generation: usize) {
        self.0.send_if_modified(|current| {
            let first = current.number == generation;
            current.number += usize::from(first);
            first
        });
    }

    /// Waits until something goes wrong with a connection.
    pub(in crate::log::redis) async fn troubled(&self) {
        let mut current = self.0.subscribe();
        if current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until this generation has ended and its connections have had their time, or the server
    /// is left.
    pub(super) async fn given_up(&self, generation: usize) -> GivenUp {
        let mut current = self.0.subscribe();
        let ended = |current: &Current| current.number != generation || current.is_left;
        let Ok(is_left) = current.wait_for(ended).await.map(|current| current.is_left) else {
            return std::future::pending().await;
        };
        if is_left {
            return GivenUp::Left;
        }
        tokio::select! {
            Ok(_) = current.wait_for(|current| current.is_left) => GivenUp::Left,
            () = tokio::time::sleep(LAST_REPLIES_TIMEOUT) => GivenUp::Replaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_generation_ends_once_however_many_commands_fail_in_it() {
        let generations = ConnectionGeneration::new();
        let first = generations.current();
        for _ in 0..100 {
            generations.invalidate(first);
        }
        let second = generations.current();
        assert_eq!(second, first + 1);
        // What fails late in the first one says nothing about the second.
        generations.invalidate(first);
        assert_eq!(generations.current(), second);
        generations.invalidate(second);
        assert_eq!(generations.current(), second + 1);
    }

    #[test]
    fn a_connection_that_died_without_a_word_ends_the_generation_of_all() {
        let generations = ConnectionGeneration::new();
        let first = generations.current();
        generations.invalidate_all();
        assert_ne!(generations.current(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_connection_that_was_given_up_waits_a_moment_longer_and_not_for_ever() {
        let generations = ConnectionGeneration::new();
        let first = generations.current();
        let waiting = {
            let generations = generations.clone();
            tokio::spawn(async move {
                assert_eq!(generations.given_up(first).await, GivenUp::Replaced);
                Instant::now()
            })
        };
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished(), "nothing broke");
        let broke_at = Instant::now();
        generations.invalidate(first);
        assert_eq!(waiting.await.unwrap(), broke_at + LAST_REPLIES_TIMEOUT);
        // In a generation that has ended before, too.
        let began_at = Instant::now();
        generations.given_up(first).await;
        assert_eq!(began_at.elapsed(), LAST_REPLIES_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_server_that_is_left_waits_no_longer() {
        let generations = ConnectionGeneration::new();
        let generation = generations.current();
        let waiting = async { (generations.given_up(generation).await, Instant::now()) };
        let left_at = Instant::now() + Duration::from_secs(60);
        let leave = async {
            tokio::time::sleep_until(left_at).await;
            generations.leave();
        };
        assert_eq!(tokio::join!(waiting, leave).0, (GivenUp::Left, left_at));
        // Nor does who comes afterwards, or whose connection was being replaced.
        generations.invalidate(generation);
        assert_eq!(generations.given_up(generation).await, GivenUp::Left);
        assert_eq!(Instant::now(), left_at);
    }
}
