//! [`ConnectionGeneration`]: which connections may still be used.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long commands may still be answered on a connection that is being replaced. Where one
/// connection died without a word the others did too, and who waits for them waits in vain.
const LAST_REPLIES_TIMEOUT: Duration = Duration::from_millis(250);

/// Numbers the generations of a node's connections. Every connection remembers in which one it was
/// made; when one breaks its generation ends, and connections of an earlier generation are replaced
/// before anything is sent on them.
pub(in crate::log::redis) struct ConnectionGeneration(watch::Sender<usize>);

impl ConnectionGeneration {
    pub(in crate::log::redis) fn new() -> Arc<ConnectionGeneration> {
        Arc::new(ConnectionGeneration(watch::Sender::new(0)))
    }

    /// A connection is dead that nobody has closed; so all others may be.
    pub(in crate::log::redis) fn invalidate_all(&self) {
        self.0.send_modify(|generation| *generation += 1);
    }

    /// The number that a connection remembers which is made now.
    pub(in crate::log::redis) fn current(&self) -> usize {
        *self.0.borrow()
    }

    /// A connection of this generation broke. Ends the generation once: the next commands to fail
    /// on such a connection were sent before.
    pub(super) fn invalidate(&self, generation: usize) {
        self.0.send_if_modified(|current| {
            let first = *current == generation;
            *current += usize::from(first);
            first
        });
    }

    /// Waits until this generation has ended and its connections have had their time.
    pub(super) async fn invalidated(&self, generation: usize) {
        let ended = self.0.subscribe().wait_for(|current| *current != generation).await.is_ok();
        if !ended {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LAST_REPLIES_TIMEOUT).await;
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
                generations.invalidated(first).await;
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
        generations.invalidated(first).await;
        assert_eq!(began_at.elapsed(), LAST_REPLIES_TIMEOUT);
    }
}
