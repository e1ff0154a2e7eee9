//! [`Background`]: the tasks that live as long as the node does, and what follows when one does not.
//!
//! Nobody waits for such a task, so nobody would notice its end: a node whose relay is gone answers
//! as before and delivers nothing. Tasks that can begin anew are begun anew. Without any other the
//! node is of no use: it has a fault then, `/healthz` says so, and the program drains and ends.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::telemetry::metric;

/// The waits before a task is begun anew; one that held for longer than the longest is sound again.
const RESTART_FIRST: Duration = Duration::from_millis(50);
const RESTART_LONGEST: Duration = Duration::from_secs(5);

/// The long-lived tasks of one node, and its fault.
#[derive(Clone)]
pub struct Background(Arc<State>);

struct State {
    tasks: Mutex<Vec<JoinHandle<()>>>,
    fault: watch::Sender<Option<String>>,
}

/// What the end of a task means that did not panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Fine,
    /// It had no right to.
    Fault,
}

impl Default for Background {
    fn default() -> Background {
        let fault = watch::Sender::new(None);
        Background(Arc::new(State { tasks: Mutex::default(), fault }))
    }
}

impl Background {
    /// Runs a task that can begin anew at any time, and does after a panic. Must be called within a
    /// runtime, as [`need`](Background::need).
    pub fn keep<F>(&self, name: &'static str, begin: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hold(tokio::spawn(restarting(name, begin)));
    }

    /// Runs a task without which the node is of no use: a panic is the node's fault, and if `ending`
    /// says so, any end is.
    pub fn need(
        &self,
        name: &'static str,
        ending: Ending,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let background = self.clone();
        self.hold(tokio::spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if ended.is_err() || ending == Ending::Fault {
                background.set_fault(format!("a part of this node has ended: {name}"));
            }
        }));
    }

    /// The node cannot go on, for this reason; the first one counts.
    pub fn set_fault(&self, why: String) {
        self.0.fault.send_if_modified(|fault| {
            let is_first = fault.is_none();
            if is_first {
                tracing::error!(%why, "this node cannot go on");
                *fault = Some(why);
            }
            is_first
        });
    }

    /// Why the node cannot go on, if it cannot.
    pub fn fault(&self) -> Option<String> {
        self.0.fault.borrow().clone()
    }

    /// Waits until there is a fault.
    pub async fn failed(&self) -> String {
        let mut fault = self.0.fault.subscribe();
        let failed = fault.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
        match failed {
            Some(why) => why,
            // Nobody is left who could report one.
            None => std::future::pending().await,
        }
    }

    /// Ends all tasks.
    pub fn abort_all(&self) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
    }

    fn hold(&self, task: JoinHandle<()>) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

/// Runs a task to its end; one that panics is begun anew after a while.
pub(crate) async fn restarting<F>(name: &'static str, mut begin: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let mut backoff = Backoff::new(RESTART_FIRST, RESTART_LONGEST);
    loop {
        let began_at = Instant::now();
        if AssertUnwindSafe(begin()).catch_unwind().await.is_ok() {
            return;
        }
        if began_at.elapsed() > RESTART_LONGEST {
            backoff.reset();
        }
        let wait = backoff.wait();
        metric::background_restarted(name);
        tracing::error!(task = name, ?wait, "a task of this node broke and begins anew");
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_can_begin_anew_does_and_waits_longer_each_time() {
        let background = Background::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = begun.clone();
        background.keep("broken", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("broken by the test") }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        let begun = begun.load(Ordering::Relaxed);
        assert!((20..60).contains(&begun), "{begun} times in 100 s");
        assert_eq!(background.fault(), None);
        background.abort_all();
    }

    #[tokio::test]
    async fn the_end_of_a_task_that_is_needed_is_a_fault_and_the_first_one_counts() {
        let background = Background::default();
        background.need("done", Ending::Fine, async {});
        background.need("deaf", Ending::Fault, async {});
        assert!(background.failed().await.contains("deaf"));
        background.need("broken", Ending::Fine, async { panic!("broken by the test") });
        tokio::task::yield_now().await;
        assert!(background.fault().unwrap().contains("deaf"));

        let background = Background::default();
        background.need("broken", Ending::Fine, async { panic!("broken by the test") });
        assert!(background.failed().await.contains("broken"));
    }
}
