//! [`Servers`]: which Redis takes the writes.
//!
//! One server is the [`Master`] of all topics: the one of the URL, or the one that [`Sentinels`]
//! name. When these name another, the one before is left in the same moment: whoever waits for an
//! answer of it waits no longer, and what it says from then on is not heard. So a master that was
//! frozen while another was made, and comes back and takes writes until it is told, acknowledges
//! none of ours.

mod master;
mod sentinels;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::address::Address;
use super::lane::CONNECT_TIMEOUT;
use super::server::Server;
use super::subscription::Listening;
use crate::background;
use crate::config::RedisFiles;
use crate::log::{Health, LogError};
use crate::telemetry::metric;
use crate::topic::Topic;
use master::Clock;
pub(super) use master::{Kind, Master};
use sentinels::{Named, Sentinels};

/// Which Redis takes the writes.
pub(super) struct Servers {
    listening: Arc<Listening>,
    master: watch::Sender<Now>,
    clock: Arc<Clock>,
    /// How many canaries were sent.
    canaries: AtomicU64,
}

/// Who takes the writes now.
#[derive(Clone)]
enum Now {
    Master(Arc<Master>),
    /// It is about to be known, and for this reason not yet.
    Soon(String),
    /// Nobody, for this reason.
    Nobody(String),
}

impl Servers {
    /// Starts following what is at `address`, whether or not it can be reached already. Must be
    /// called within a runtime.
    pub(super) fn start(
        address: Address,
        files: &RedisFiles,
        listening: Arc<Listening>,
    ) -> Arc<Servers> {
        let servers = Arc::new(Servers {
            listening,
            master: watch::Sender::new(Now::Soon("the sentinels were not asked yet".to_owned())),
            clock: Arc::default(),
            canaries: AtomicU64::new(0),
        });
        match address {
            Address::One(info) => servers.install(Server::new(info, files)),
            Address::Sentinels(of_url) => {
                let sentinels = Arc::new(Sentinels::new(of_url, files));
                let asking = sentinels.clone();
                let ask = move || asking.clone().run();
                tokio::spawn(background::restarting("the sentinels", ask));
                let followers = servers.clone();
                let follow = move || followers.clone().follow(sentinels.clone());
                tokio::spawn(background::restarting("the master that sentinels name", follow));
            }
        }
        servers
    }

    /// The one that takes the writes now. Where it is about to be known it is waited for as long as
    /// for a connection: between two masters, and at the beginning.
    ///
    /// # Errors
    /// There is none, as far as is known here.
    pub(super) async fn master(&self) -> Result<Arc<Master>, LogError> {
        let mut now = self.master.borrow().clone();
        if matches!(now, Now::Soon(_)) {
            let mut changes = self.master.subscribe();
            let known = changes.wait_for(|now| !matches!(now, Now::Soon(_)));
            if let Ok(Ok(known)) = tokio::time::timeout(CONNECT_TIMEOUT, known).await {
                now = known.clone();
            }
        }
        match now {
            Now::Master(master) => Ok(master),
            Now::Soon(why) | Now::Nobody(why) => Err(LogError::Unavailable(why)),
        }
    }

    /// From its return on, what is appended to these topics is announced to this node.
    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        // Before it is looked who the master is: who becomes it afterwards is asked for these, too.
        self.listening.want(topics);
        self.master().await?.subscription().subscribe(topics).await
    }

    /// Ends the announcements for these topics.
    pub(super) async fn unsubscribe(&self, topics: &[Topic]) {
        self.listening.leave(topics);
        let now = self.master.borrow().clone();
        if let Now::Master(master) = now {
            master.subscription().unsubscribe(topics).await;
        }
    }

    /// Sends a canary, and waits until it is heard.
    pub(super) async fn canary(&self) -> Result<(), LogError> {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed) + 1;
        self.master().await?.canary(number).await
    }

    /// Whether commands and announcements go through.
    pub(super) fn health(&self) -> Health {
        match &*self.master.borrow() {
            Now::Master(master) => master.health(),
            Now::Soon(why) | Now::Nobody(why) => Health::Down(why.clone()),
        }
    }

    /// The clock of the master, in milliseconds since 1970; `None` before it was read.
    pub(super) fn now_milliseconds(&self) -> Option<u64> {
        self.clock.now_milliseconds()
    }

    /// Leaves the master that there is, and follows this one.
    fn install(&self, server: Server) {
        self.replace(|| {
            let (listening, clock) = (self.listening.clone(), self.clock.clone());
            Now::Master(Arc::new(Master::start(server, listening, clock)))
        });
    }

    fn replace(&self, next: impl FnOnce() -> Now) {
        self.master.send_modify(|now| {
            if let Now::Master(before) = now {
                before.leave();
            }
            *now = next();
        });
    }

    /// Follows whoever the sentinels name.
    async fn follow(self: Arc<Servers>, sentinels: Arc<Sentinels>) {
        let mut named = sentinels.named();
        let mut has_followed = false;
        loop {
            let now = named.borrow_and_update().clone();
            match now {
                Named::Master(choice) => {
                    if std::mem::replace(&mut has_followed, true) {
                        metric::redis_failed_over();
                    }
                    self.install(sentinels.server(&choice));
                }
                Named::Soon(why) => self.replace(|| Now::Soon(why)),
                Named::Nobody(why) => self.replace(|| Now::Nobody(why)),
            }
            let now = self.master.borrow().clone();
            let troubled = async || match &now {
                Now::Master(master) => master.troubled().await,
                Now::Soon(_) | Now::Nobody(_) => std::future::pending().await,
            };
            loop {
                tokio::select! {
                    changed = named.changed() => match changed {
                        Ok(()) => break,
                        // Nobody is left who could name another.
                        Err(_) => return,
                    },
                    // The sentinels may know why.
                    () = troubled() => sentinels.ask(),
                }
            }
        }
    }
}
