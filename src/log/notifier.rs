//! [`Notifier`] and [`Notifications`]: the two ends of the relay's inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::frame::Frame;
use crate::topic::Topic;

/// How many announcements may wait for the relay. When more do, the rest is dropped and
/// [`Notification::MaybeLost`] tells the relay to compare heads: a bound without a silent loss.
pub const INBOX_ENTRIES_MAX: usize = 8_192;

/// How many bytes the frames of waiting announcements may take; one that comes while nothing waits
/// may be larger.
pub const INBOX_BYTES_MAX: usize = 16 << 20;

/// What the relay is told by a log.
#[derive(Debug)]
pub enum Notification {
    /// An entry was appended to a topic. May come twice, late, or not at all.
    Entry(Topic, Frame),
    /// Announcements may have been lost: compare all heads.
    MaybeLost,
}

impl Notification {
    fn bytes(&self) -> usize {
        match self {
            Notification::Entry(_, frame) => frame.chunk().len(),
            Notification::MaybeLost => 0,
        }
    }
}

/// Where a log's notifications come out.
#[derive(Debug)]
pub struct Notifications {
    inbox: mpsc::Receiver<Notification>,
    /// What the frames take that wait in `inbox`.
    waiting_bytes: Arc<AtomicUsize>,
}

/// From somebody who bounds them otherwise.
impl From<mpsc::Receiver<Notification>> for Notifications {
    fn from(inbox: mpsc::Receiver<Notification>) -> Notifications {
        Notifications { inbox, waiting_bytes: Arc::default() }
    }
}

impl Notifications {
    /// The next one; `None` when the log is gone.
    pub async fn recv(&mut self) -> Option<Notification> {
        let next = self.inbox.recv().await?;
        // Wraps around where nobody has counted.
        self.waiting_bytes.fetch_sub(next.bytes(), Ordering::Relaxed);
        Some(next)
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Notifier {
    inbox: mpsc::Sender<Notification>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Something was dropped since the relay was last told so.
    dropped: AtomicBool,
}

impl Notifier {
    pub(crate) fn new() -> (Notifier, Notifications) {
        let (sender, receiver) = mpsc::channel(INBOX_ENTRIES_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let notifications = Notifications { inbox: receiver, waiting_bytes: waiting_bytes.clone() };
        let dropped = AtomicBool::new(false);
        (Notifier { inbox: sender, waiting_bytes, dropped }, notifications)
    }

    /// Passes on what was heard, or remembers that it could not. If nothing is announced after
    /// a drop, the relay's audit of heads finds it.
    pub(crate) fn notify(&self, topic: Topic, frame: Frame) {
        let notification = Notification::Entry(topic, frame);
        let bytes = notification.bytes();
        // Counted before it can be taken out again.
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= INBOX_BYTES_MAX;
        if fits && self.dropped.load(Ordering::Acquire) {
            self.maybe_lost();
        }
        if !fits || self.inbox.try_send(notification).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.store(true, Ordering::Release);
        }
    }

    /// Tells the relay that announcements may have been lost.
    pub(crate) fn maybe_lost(&self) {
        let told = self.inbox.try_send(Notification::MaybeLost).is_ok();
        self.dropped.store(!told, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Position;

    fn frame(seq: u64, bytes: usize) -> Frame {
        let position = Position { seq, epoch: "k3f9".parse().unwrap() };
        Frame::new(position, 0, Bytes::from(vec![b'x'; bytes]), 0..bytes, 0..bytes)
    }

    /// What waits: the numbers of entries, and nothing where some may be lost.
    fn waiting(notifications: &mut Notifications) -> Vec<Option<u64>> {
        let mut waiting = Vec::new();
        while !notifications.inbox.is_empty() {
            let next = futures_util::FutureExt::now_or_never(notifications.recv());
            waiting.push(match next.unwrap().unwrap() {
                Notification::Entry(_, frame) => Some(frame.position.seq),
                Notification::MaybeLost => None,
            });
        }
        waiting
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_what_was_dropped_is_told() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        let bytes = 1 << 20;
        for seq in 0..100 {
            notifier.notify(topic.clone(), frame(seq, bytes));
            assert!(notifier.waiting_bytes.load(Ordering::Relaxed) <= INBOX_BYTES_MAX);
        }
        let waited = waiting(&mut notifications);
        assert_eq!(waited, (0..16).map(Some).collect::<Vec<_>>());
        assert_eq!(notifier.waiting_bytes.load(Ordering::Relaxed), 0);
        // There is room again: before the next one it is told that others are missing.
        notifier.notify(topic.clone(), frame(100, bytes));
        assert_eq!(waiting(&mut notifications), [None, Some(100)]);
        notifier.notify(topic, frame(101, bytes));
        assert_eq!(waiting(&mut notifications), [Some(101)]);
    }

    #[test]
    fn one_that_is_larger_than_the_bound_passes_while_nothing_waits() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        notifier.notify(topic.clone(), frame(1, INBOX_BYTES_MAX + 1));
        notifier.notify(topic, frame(2, 1));
        assert_eq!(waiting(&mut notifications), [Some(1)]);
    }

    #[test]
    fn what_waits_is_bounded_in_number() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        for seq in 0..2 * INBOX_ENTRIES_MAX as u64 {
            notifier.notify(topic.clone(), frame(seq, 1));
        }
        assert_eq!(waiting(&mut notifications).len(), INBOX_ENTRIES_MAX);
        assert_eq!(notifier.waiting_bytes.load(Ordering::Relaxed), 0);
    }
}
