//! [`Follower`]: the cursor of one stream, and what comes next after it.
//!
//! Everything a stream says about its topics is decided here: where each starts, what follows,
//! when something was lost. Whether the stream is still alive is its
//! [connection](crate::connection)'s business.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Node, Request, Start};
use crate::frame::{self, Frame, Reset, ResetReason, SNAPSHOT_END};
use crate::hub::tail::{After, HANDOUT_BYTES_MAX};
use crate::hub::{Joined, Stage};
use crate::log::LogError;
use crate::position::{LogHistory, Position, ResumePoint, Verdict, write_cursor};
use crate::telemetry::metric;
use crate::topic::Topic;

/// How long to wait before asking a log again that did not answer.
const LOG_RETRY: Duration = Duration::from_millis(500);

/// The positions of one stream in its topics.
pub(super) struct Follower {
    node: Arc<Node>,
    subscriptions: Vec<Subscription>,
    pub(super) snapshot: bool,
    signal: Arc<Notify>,
    /// Blocks that are decided but not yet taken by the socket: at most one handout.
    pub(super) blocks: VecDeque<Bytes>,
    stage: Life,
    opened_at_milliseconds: u64,
    /// Asking the log failed: ask again then.
    retry_at: Option<Instant>,
    /// The first subscription to be asked next, so that a busy topic does not starve the others.
    turn: usize,
    slow: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Waiting for the topics to be open.
    Opening,
    /// Following them.
    Following,
    /// Nothing more to say: a board does not exist.
    Ended,
}

struct Subscription {
    joined: Joined,
    must_be_board: bool,
    start: Option<ResumePoint>,
    from_earliest: bool,
    place: Place,
    /// A snapshot is due before anything else.
    snapshot_due: bool,
    /// The log confirmed the position although the tail, renewed so often, did not know it: wait
    /// for its next renewal. Not for it to move: the log may have lost the position meanwhile, and
    /// stand where the tail does.
    confirmed_at: Option<u64>,
    /// It resumed, and nothing was caught up yet.
    resumed: bool,
}

/// Where a subscription stands.
enum Place {
    /// Before the topic is open.
    Undecided,
    /// After this position.
    At(Position),
    /// The client gave an id that is no position.
    Unreadable(String),
}

/// What one look at a subscription led to.
enum Step {
    /// Blocks were added.
    Sent,
    /// Nothing to send now.
    Idle,
    /// The stream must end: the board does not exist.
    NoSuchBoard,
}

impl Follower {
    /// Joins the topics. Sends nothing by itself.
    pub(super) fn new(node: Arc<Node>, request: &Request) -> Follower {
        let signal = Arc::new(Notify::new());
        let subscriptions = request.topics.iter().map(|wanted| {
            let start = match &request.start {
                Start::Resume(cursor) => cursor.resume_point(&wanted.topic).cloned(),
                Start::Now | Start::Earliest => None,
            };
            Subscription {
                joined: node.hub.join(&wanted.topic, signal.clone()),
                must_be_board: wanted.board,
                resumed: start.is_some(),
                start,
                from_earliest: matches!(request.start, Start::Earliest),
                place: Place::Undecided,
                snapshot_due: false,
                confirmed_at: None,
            }
        });
        let subscriptions = subscriptions.collect();
        let opened_at_milliseconds = node.probe.now_milliseconds().unwrap_or(u64::MAX);
        // The reconnection time goes out at once, before the topics are known to be open.
        let retry = Bytes::from(frame::retry_line(node.retry));
        Follower {
            node,
            subscriptions,
            snapshot: request.snapshot,
            signal,
            blocks: VecDeque::from([retry]),
            stage: Life::Opening,
            opened_at_milliseconds,
            retry_at: None,
            turn: 0,
            slow: false,
        }
    }

    /// Goes on in one topic from where the client was told that it stands.
    pub(super) fn go_on(
        node: Arc<Node>,
        topic: &Topic,
        position: Position,
        snapshot: bool,
    ) -> Follower {
        let signal = Arc::new(Notify::new());
        let subscription = Subscription {
            joined: node.hub.join(topic, signal.clone()),
            // It was one when the stream began.
            must_be_board: false,
            start: None,
            from_earliest: false,
            place: Place::At(position),
            snapshot_due: false,
            confirmed_at: None,
            resumed: false,
        };
        let opened_at_milliseconds = node.probe.now_milliseconds().unwrap_or(u64::MAX);
        Follower {
            node,
            subscriptions: vec![subscription],
            snapshot,
            signal,
            blocks: VecDeque::new(),
            stage: Life::Following,
            opened_at_milliseconds,
            retry_at: None,
            turn: 0,
            slow: false,
        }
    }

    /// Where it stands, if it has one topic and nothing to say there now.
    pub(super) fn rests(&self) -> Option<Position> {
        match self.subscriptions.as_slice() {
            [Subscription { joined, place: Place::At(position), snapshot_due: false, .. }]
                if self.stage == Life::Following
                    && self.blocks.is_empty()
                    && joined.topic.stands_at(*position) =>
            {
                Some(*position)
            }
            _ => None,
        }
    }

    /// Its place in its one topic; gives it back if it has several.
    pub(super) fn leave(mut self) -> Result<Joined, Box<Follower>> {
        match self.subscriptions.pop() {
            Some(only) if self.subscriptions.is_empty() => Ok(only.joined),
            last => {
                self.subscriptions.extend(last);
                Err(Box::new(self))
            }
        }
    }

    /// Waits until every topic is open or it is clear that the log cannot be asked now. `false`
    /// if a board does not exist.
    pub(super) async fn settle(&self) -> bool {
        loop {
            let mut opening = false;
            for subscription in &self.subscriptions {
                match subscription.joined.topic.stage() {
                    Stage::Opening => opening = true,
                    Stage::Waiting | Stage::Open { has_state: true } => {}
                    Stage::Open { has_state: false } => {
                        if matches!(subscription.check_board(&self.node).await, Ok(false)) {
                            return false;
                        }
                    }
                }
            }
            if !opening {
                return true;
            }
            self.signal.notified().await;
        }
    }

    /// Waits until there is something to say and puts it into `blocks`; `false` if the stream
    /// must end because a board does not exist. May be dropped at any `await`: until a block is
    /// there, nothing has changed.
    pub(super) async fn advance(&mut self) -> bool {
        loop {
            if let Some(retry_at) = self.retry_at {
                tokio::time::sleep_until(retry_at).await;
                self.retry_at = None;
            }
            let step = match self.stage {
                Life::Opening => self.open().await,
                Life::Following => self.follow().await,
                Life::Ended => return false,
            };
            match step {
                Ok(Step::Sent) => return true,
                Ok(Step::Idle) => self.signal.notified().await,
                Ok(Step::NoSuchBoard) => self.stage = Life::Ended,
                Err(error) => {
                    tracing::debug!(%error, "a stream waits for the log");
                    self.retry_at = Some(Instant::now() + LOG_RETRY);
                }
            }
        }
    }

    /// Decides where each subscription starts, and says hello when all are open.
    async fn open(&mut self) -> Result<Step, LogError> {
        for at in 0..self.subscriptions.len() {
            let subscription = &self.subscriptions[at];
            if !matches!(subscription.place, Place::Undecided) {
                continue;
            }
            let topic = subscription.joined.topic.clone();
            let Some(head) = topic.head() else { return Ok(Step::Idle) };
            if !subscription.check_board(&self.node).await? {
                return Ok(Step::NoSuchBoard);
            }
            let earliest = subscription.from_earliest;
            let place = match &subscription.start {
                Some(ResumePoint::Position(position)) => Place::At(*position),
                Some(ResumePoint::Seq(seq)) => Place::At(Position { seq: *seq, epoch: head.epoch }),
                Some(ResumePoint::Unreadable(text)) => Place::Unreadable(text.clone()),
                None if earliest => {
                    let history = self.node.replays.history(topic.name()).await?;
                    Place::At(history.map_or(head, |history| history.at(history.oldest - 1)))
                }
                None => Place::At(head),
            };
            let snapshot = self.snapshot && topic.stage() == Stage::Open { has_state: true };
            let subscription = &mut self.subscriptions[at];
            subscription.place = place;
            if snapshot && !subscription.from_earliest {
                // Position 0 is what the hello of a stream that has not had its snapshot yet
                // carries, so that a client that drops in between gets one when it comes back.
                let start = Position { seq: 0, epoch: head.epoch };
                let fresh = subscription.start.is_none();
                if fresh || matches!(subscription.place, Place::At(Position { seq: 0, .. })) {
                    subscription.place = Place::At(start);
                    subscription.snapshot_due = true;
                }
            }
        }
        let hello = frame::connected(&self.cursor(), &self.node.id);
        self.blocks.push_back(hello);
        self.stage = Life::Following;
        Ok(Step::Sent)
    }

    /// Looks at every subscription once.
    async fn follow(&mut self) -> Result<Step, LogError> {
        let count = self.subscriptions.len();
        let mut failed = None;
        for n in 0..count {
            let at = (self.turn + n) % count;
            match self.look(at).await {
                Ok(Step::Idle) => {}
                Ok(step) => {
                    self.turn = (at + 1) % count;
                    return Ok(step);
                }
                // One topic waits for the log; the others may have something in their tails.
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                self.set_slow(false);
                Ok(Step::Idle)
            }
        }
    }

    async fn look(&mut self, at: usize) -> Result<Step, LogError> {
        let subscription = &self.subscriptions[at];
        if subscription.snapshot_due {
            return self.send_snapshot(at).await;
        }
        let topic = subscription.joined.topic.clone();
        let position = match &subscription.place {
            Place::At(position) => *position,
            Place::Unreadable(text) => {
                let from = text.clone();
                let Some(history) = self.node.replays.history(topic.name()).await? else {
                    return self.log_is_gone(at);
                };
                return Ok(self.send_reset(at, ResetReason::Unreadable, from, &history));
            }
            Place::Undecided => return Ok(Step::Idle),
        };
        match topic.after(position) {
            None | Some(After::Nothing) => Ok(Step::Idle),
            Some(After::Frames(frames)) => {
                self.send_frames(at, &frames, "tail");
                Ok(Step::Sent)
            }
            Some(After::Behind) => {
                self.set_slow(true);
                let renewals = topic.renewals();
                let tail_head = topic.head().unwrap_or(position);
                let page = self.node.replays.after(topic.name(), position, tail_head).await?;
                let Some(page) = page else { return self.log_is_gone(at) };
                // The log may have become another one since the tail looked.
                if page.history.judge(position) == Verdict::Continues {
                    let next = page.frames.iter().position(|f| f.position.seq == position.seq + 1);
                    if let Some(next) = next {
                        self.send_frames(at, &page.frames[next..], "log");
                        return Ok(Step::Sent);
                    }
                }
                self.judge(at, position, &page.history, renewals)
            }
            Some(After::Unsure) if self.subscriptions[at].is_confirmed() => Ok(Step::Idle),
            Some(After::Unsure) => {
                let renewals = topic.renewals();
                let history = self.node.replays.history(topic.name()).await?;
                let Some(history) = history else { return self.log_is_gone(at) };
                self.judge(at, position, &history, renewals)
            }
        }
    }

    /// Lets a fresh history decide about a position that the tail could not place after so many
    /// `renewals`, counted before the history was read.
    fn judge(
        &mut self,
        at: usize,
        position: Position,
        history: &LogHistory,
        renewals: u64,
    ) -> Result<Step, LogError> {
        match ResetReason::of(history.judge(position)) {
            Some(reason) => Ok(self.send_reset(at, reason, position.to_string(), history)),
            None => {
                // The client is right and this node is late: let the tail catch up.
                let subscription = &mut self.subscriptions[at];
                subscription.confirmed_at = Some(renewals);
                self.node.relay.look(&subscription.joined.topic);
                Ok(Step::Idle)
            }
        }
    }

    /// The topic has no log any more: the relay makes it anew, and wakes us.
    fn log_is_gone(&mut self, at: usize) -> Result<Step, LogError> {
        self.node.relay.look(&self.subscriptions[at].joined.topic);
        Err(LogError::Unavailable("the topic's log is gone".to_owned()))
    }

    /// At most one handout of frames, as the blocks of this connection.
    fn send_frames(&mut self, at: usize, frames: &[Frame], source: &'static str) {
        let single = self.subscriptions.len() == 1;
        let mut bytes = 0;
        let mut count = 0;
        for frame in frames {
            if bytes > HANDOUT_BYTES_MAX {
                break;
            }
            self.subscriptions[at].place = Place::At(frame.position);
            if single {
                self.blocks.push_back(frame.whole());
            } else {
                let id = frame::id_line(self.cursor());
                bytes += id.len();
                self.blocks.push_back(id.into());
                self.blocks.push_back(frame.rest());
            }
            bytes += frame.size();
            count += 1;
        }
        metric::delivered(count, bytes);
        let subscription = &mut self.subscriptions[at];
        subscription.confirmed_at = None;
        if std::mem::take(&mut subscription.resumed) {
            metric::replay(source);
        }
        if let Some(newest) = frames[..count].last()
            && newest.milliseconds >= self.opened_at_milliseconds
            && let Some(now) = self.node.probe.now_milliseconds()
        {
            let lag = now.saturating_sub(newest.milliseconds);
            metric::delivery_lag(Duration::from_millis(lag));
        }
    }

    fn send_reset(
        &mut self,
        at: usize,
        reason: ResetReason,
        from: String,
        history: &LogHistory,
    ) -> Step {
        let subscription = &mut self.subscriptions[at];
        let topic = &subscription.joined.topic;
        let snapshot = self.snapshot && topic.stage() == (Stage::Open { has_state: true });
        let told = Reset::new(topic.name().as_str(), reason, from, history);
        tracing::debug!(topic = %told.topic, ?reason, from = %told.from, "reset");
        metric::reset(reason);
        subscription.resumed = false;
        subscription.confirmed_at = None;
        if snapshot {
            // Without an id: a client that drops before the snapshot is told again.
            subscription.snapshot_due = true;
            self.blocks.push_back(frame::reset(None, &told));
        } else {
            subscription.place = Place::At(history.at(history.oldest - 1));
            let cursor = self.cursor();
            self.blocks.push_back(frame::reset(Some(&cursor), &told));
        }
        Step::Sent
    }

    async fn send_snapshot(&mut self, at: usize) -> Result<Step, LogError> {
        let topic = self.subscriptions[at].joined.topic.name().clone();
        let Some(snapshot) = self.node.replays.snapshot(&topic).await? else {
            return Ok(Step::NoSuchBoard);
        };
        let subscription = &mut self.subscriptions[at];
        subscription.place = Place::At(snapshot.position);
        subscription.snapshot_due = false;
        subscription.resumed = false;
        subscription.confirmed_at = None;
        let cursor = self.cursor();
        let head = frame::snapshot_head(&cursor);
        // The board itself is shared with everybody who asked at the same time.
        self.blocks.extend([
            head,
            snapshot.json.clone(),
            Bytes::from_static(SNAPSHOT_END.as_bytes()),
        ]);
        metric::delivered(0, snapshot.json.len());
        Ok(Step::Sent)
    }

    /// The id to resume from, once the client was told one.
    pub(super) fn told_cursor(&self) -> Option<String> {
        (self.stage == Life::Following).then(|| self.cursor())
    }

    /// The id of this stream: where it stands in all its topics.
    fn cursor(&self) -> String {
        let text = |place: &Place| match place {
            Place::At(position) => position.to_string(),
            Place::Unreadable(text) => text.clone(),
            Place::Undecided => String::new(),
        };
        match self.subscriptions.as_slice() {
            [only] => text(&only.place),
            several => {
                write_cursor(several.iter().map(|one| (one.joined.topic.name(), text(&one.place))))
            }
        }
    }

    fn set_slow(&mut self, slow: bool) {
        if self.slow != slow {
            self.slow = slow;
            metric::slow_connections(if slow { 1.0 } else { -1.0 });
        }
    }
}

impl Subscription {
    /// Whether the log confirmed the position and the tail was not renewed since.
    fn is_confirmed(&self) -> bool {
        self.confirmed_at == Some(self.joined.topic.renewals())
    }

    /// Whether the topic may be streamed: a board that was asked for must exist.
    async fn check_board(&self, node: &Node) -> Result<bool, LogError> {
        let topic = &self.joined.topic;
        if !self.must_be_board || topic.stage() == (Stage::Open { has_state: true }) {
            return Ok(true);
        }
        // It may have been made since the topic was opened.
        let exists = node.snapshots.exist(std::slice::from_ref(topic.name())).await?;
        if exists {
            topic.set_has_state();
        }
        Ok(exists)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.set_slow(false);
    }
}
