//! [`Notifier`] and [`Notifications`]: the two ends of the relay's inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::frame::Frame;
use crate::topic::Topic;

/// How many announcements may wait for the relay. When more do, the rest is dropped and
/// [`Notification::Dropped`] tells the relay to compare heads: a bound without a silent loss.
pub const INBOX_ENTRIES_MAX: usize = 8_192;

/// How many bytes the frames of waiting announcements may take; one that comes while nothing waits
/// may be larger.
pub const INBOX_BYTES_MAX: usize = 16 << 20;

/// Room for what tells of losses: each kind waits once at most.
const LOSSES_MAX: usize = 2;

/// What the relay is told by a log.
#[derive(Debug)]
pub enum Notification {
    /// An entry was appended to a topic. May come twice, late, or not at all.
    Entry(Topic, Frame),
    /// Something else than an entry happened to a topic's log: look what.
    Look(Topic),
    /// Announcements that came while this waited, or just before, were dropped: compare all heads.
    Dropped,
    /// The log is heard again, and announcements may have been lost before: compare all heads, and
    /// wait no longer for a log that did not answer.
    MaybeLost,
}

impl Notification {
    fn bytes(&self) -> usize {
        match self {
            Notification::Entry(_, frame) => frame.chunk().len(),
            Notification::Look(_) | Notification::Dropped | Notification::MaybeLost => 0,
        }
    }
}

/// Where a log's notifications come out.
#[derive(Debug)]
pub struct Notifications {
    inbox: mpsc::Receiver<Notification>,
    waiting: Arc<Waiting>,
}

/// What waits in an inbox.
#[derive(Debug, Default)]
struct Waiting {
    entries: AtomicUsize,
    /// What the frames of the entries take.
    bytes: AtomicUsize,
    /// Of what tells of losses: whether it waits. What is lost from now on until it is taken needs
    /// no other, since heads are compared only then.
    dropped: AtomicBool,
    maybe_lost: AtomicBool,
}

/// From somebody who bounds them otherwise.
impl From<mpsc::Receiver<Notification>> for Notifications {
    fn from(inbox: mpsc::Receiver<Notification>) -> Notifications {
        Notifications { inbox, waiting: Arc::default() }
    }
}

impl Notifications {
    /// The next one; `None` when the log is gone.
    pub async fn recv(&mut self) -> Option<Notification> {
        let next = self.inbox.recv().await?;
        self.taken(&next);
        Some(next)
    }

    /// The next one, if one waits.
    pub fn try_recv(&mut self) -> Option<Notification> {
        let next = self.inbox.try_recv().ok()?;
        self.taken(&next);
        Some(next)
    }

    fn taken(&self, notification: &Notification) {
        match notification {
            Notification::Entry(..) | Notification::Look(_) => {
                // Wraps around where nobody has counted.
                self.waiting.entries.fetch_sub(1, Ordering::Relaxed);
                self.waiting.bytes.fetch_sub(notification.bytes(), Ordering::Relaxed);
            }
            Notification::Dropped => self.waiting.dropped.store(false, Ordering::Release),
            Notification::MaybeLost => self.waiting.maybe_lost.store(false, Ordering::Release),
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Notifier {
    inbox: mpsc::Sender<Notification>,
    waiting: Arc<Waiting>,
}

impl Notifier {
    pub(crate) fn new() -> (Notifier, Notifications) {
        let (sender, receiver) = mpsc::channel(INBOX_ENTRIES_MAX + LOSSES_MAX);
        let waiting = Arc::new(Waiting::default());
        let notifications = Notifications { inbox: receiver, waiting: waiting.clone() };
        (Notifier { inbox: sender, waiting }, notifications)
    }

    /// Passes on an entry that was heard, or that it could not be.
    pub(crate) fn notify(&self, topic: Topic, frame: Frame) {
        self.pass_on(Notification::Entry(topic, frame));
    }

    /// Passes on that something else happened to a topic's log.
    pub(crate) fn look(&self, topic: Topic) {
        self.pass_on(Notification::Look(topic));
    }

    fn pass_on(&self, notification: Notification) {
        let Waiting { entries: waiting_entries, bytes: waiting_bytes, .. } = &*self.waiting;
        let bytes = notification.bytes();
        // Counted before it can be taken out again.
        let entries = waiting_entries.fetch_add(1, Ordering::Relaxed);
        let before = waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= INBOX_BYTES_MAX;
        // Of the room of the inbox, entries leave what losses need.
        let is_taken =
            entries < INBOX_ENTRIES_MAX && fits && self.inbox.try_send(notification).is_ok();
        if !is_taken {
            waiting_entries.fetch_sub(1, Ordering::Relaxed);
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped();
        }
    }

    /// Tells the relay that an announcement was dropped, if it is not about to be told so.
    pub(crate) fn dropped(&self) {
        if !self.waiting.dropped.swap(true, Ordering::AcqRel) {
            // There is room, unless nobody listens any more.
            let _ = self.inbox.try_send(Notification::Dropped);
        }
    }

    /// Tells the relay that the log is heard again, if it is not about to be told so.
    pub(crate) fn maybe_lost(&self) {
        if !self.waiting.maybe_lost.swap(true, Ordering::AcqRel) {
            let _ = self.inbox.try_send(Notification::MaybeLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Position;

    fn frame(seq: u64, bytes: usize) -> Frame {
        let position = Position { seq, epoch: "k3f9".parse().unwrap() };
        Frame::new(position, 0, Bytes::from(vec![b'x'; bytes.max(2)]), 0..0)
    }

    /// What waits: the numbers of entries, and nothing where some may be lost.
    fn waiting(notifications: &mut Notifications) -> Vec<Option<u64>> {
        let mut waiting = Vec::new();
        while !notifications.inbox.is_empty() {
            let next = futures_util::FutureExt::now_or_never(notifications.recv());
            waiting.push(match next.unwrap().unwrap() {
                Notification::Entry(_, frame) => Some(frame.position.seq),
                Notification::Look(_) | Notification::Dropped | Notification::MaybeLost => None,
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
            assert!(notifier.waiting.bytes.load(Ordering::Relaxed) <= INBOX_BYTES_MAX);
        }
        let waited = waiting(&mut notifications);
        // Those that came first, and after them a word that others are missing.
        assert_eq!(waited, (0..16).map(Some).chain([None]).collect::<Vec<_>>());
        assert_eq!(notifier.waiting.bytes.load(Ordering::Relaxed), 0);
        notifier.notify(topic, frame(100, bytes));
        assert_eq!(waiting(&mut notifications), [Some(100)]);
    }

    #[test]
    fn one_that_is_larger_than_the_bound_passes_while_nothing_waits() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        notifier.notify(topic.clone(), frame(1, INBOX_BYTES_MAX + 1));
        notifier.notify(topic, frame(2, 1));
        assert_eq!(waiting(&mut notifications), [Some(1), None]);
    }

    #[test]
    fn what_waits_is_bounded_in_number() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        for seq in 0..2 * INBOX_ENTRIES_MAX as u64 {
            notifier.notify(topic.clone(), frame(seq, 1));
        }
        assert_eq!(waiting(&mut notifications).len(), INBOX_ENTRIES_MAX + 1);
        assert_eq!(notifier.waiting.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(notifier.waiting.entries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn while_the_inbox_is_full_one_word_of_what_was_dropped_waits() {
        let topic = Topic::new("t").unwrap();
        let (notifier, mut notifications) = Notifier::new();
        // Twice as many come as are taken, for as long as it takes to empty the inbox ten times.
        let mut told = 0;
        for seq in 0..10 * INBOX_ENTRIES_MAX as u64 {
            notifier.notify(topic.clone(), frame(2 * seq, 1));
            notifier.notify(topic.clone(), frame(2 * seq + 1, 1));
            let next = futures_util::FutureExt::now_or_never(notifications.recv());
            told += usize::from(matches!(next, Some(Some(Notification::Dropped))));
        }
        assert!((5..=10).contains(&told), "{told}");
        // However often the connection breaks meanwhile.
        (0..10).for_each(|_| notifier.maybe_lost());
        let left = waiting(&mut notifications);
        assert_eq!(left.iter().filter(|seq| seq.is_none()).count(), 2);
        assert_eq!(left.last(), Some(&None));
    }
}
