//! [`Mailbox`]: what reaches a reactor from other threads, and whether it has to be woken for it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ReactorSocket;
use super::poller::Poller;
use super::streams::Adoption;
use super::timer_wheel::Id;
use crate::said::EndReason;
use crate::stream::Follower;
use crate::wire::{Encoding, Parts};

/// Messages for which a mailbox keeps room from turn to turn.
const MESSAGES_KEPT: usize = 256;

/// What a reactor is told by other threads. Each kind has a bound: adoptions come one a socket,
/// answers one a stream, orders one each, and a topic is flagged once until it is served.
pub(super) struct Mailbox {
    unread: Mutex<Unread>,
    /// The reactor waits, or is about to, and has seen no message: the next to leave one wakes it.
    is_asleep: AtomicBool,
    pub(super) poller: Poller,
}

#[derive(Default)]
pub(super) struct Unread {
    /// Keys of topics that changed, each once.
    changed: Vec<u32>,
    /// By key: whether it is in `changed`.
    is_flagged: Vec<bool>,
    messages: Vec<Message>,
}

pub(super) enum Message {
    Adopt(Box<Adoption<ReactorSocket>>),
    Answered {
        id: Id,
        follower: Box<Follower>,
        parts: Parts,
        end: Option<EndReason>,
    },
    /// A question that will never be answered: whoever was asked panicked.
    Failed(Id),
    /// What was large of a topic is compressed for streams of this encoding.
    Compressed {
        key: u32,
        encoding: Encoding,
    },
    /// Terms were given an order.
    OrdersGiven,
    Stop,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Mailbox> {
        let poller = Poller::new()?;
        Ok(Mailbox { unread: Mutex::default(), is_asleep: AtomicBool::new(false), poller })
    }

    /// Leaves a message; says whether the reactor has to be woken to see it.
    pub(super) fn push(&self, message: Message) -> bool {
        self.unread().messages.push(message);
        self.is_asleep.swap(false, Ordering::AcqRel)
    }

    /// Flags a topic; says whether the reactor has to be woken to see it.
    pub(super) fn flag(&self, key: u32) -> bool {
        let mut unread = self.unread();
        let at = key as usize;
        if unread.is_flagged.len() <= at {
            unread.is_flagged.resize(at + 1, false);
        }
        if !std::mem::replace(&mut unread.is_flagged[at], true) {
            unread.changed.push(key);
        }
        drop(unread);
        self.is_asleep.swap(false, Ordering::AcqRel)
    }

    /// Whether the reactor may wait now. If so, whoever leaves the next message has to wake it.
    pub(super) fn try_sleep(&self) -> bool {
        self.is_asleep.store(true, Ordering::Release);
        // Whoever takes the lock after this sees that it sleeps; whoever had it before was seen.
        let unread = self.unread();
        let is_empty = unread.changed.is_empty() && unread.messages.is_empty();
        drop(unread);
        if !is_empty {
            self.is_asleep.store(false, Ordering::Release);
        }
        is_empty
    }

    pub(super) fn woke(&self) {
        self.is_asleep.store(false, Ordering::Release);
    }

    /// Takes everything, in exchange for empty room.
    pub(super) fn take(&self, changed: &mut Vec<u32>, messages: &mut Vec<Message>) {
        changed.clear();
        // Room is kept from turn to turn, but not that of a stampede.
        messages.shrink_to(MESSAGES_KEPT);
        let unread = &mut *self.unread();
        std::mem::swap(&mut unread.changed, changed);
        std::mem::swap(&mut unread.messages, messages);
        for key in changed {
            unread.is_flagged[*key as usize] = false;
        }
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_changes_a_million_times_is_one_letter() {
        let mailbox = Mailbox::new().unwrap();
        assert!(mailbox.try_sleep());
        let wakes = (0..1_000_000).filter(|n| mailbox.flag(n % 3)).count();
        assert_eq!(wakes, 1);
        assert!(!mailbox.try_sleep());
        let (mut changed, mut messages) = (Vec::new(), Vec::new());
        mailbox.take(&mut changed, &mut messages);
        assert_eq!(changed, [0, 1, 2]);
        assert!(messages.is_empty());
        mailbox.flag(1);
        mailbox.take(&mut changed, &mut messages);
        assert_eq!(changed, [1]);
        assert!(mailbox.try_sleep());
    }
}
