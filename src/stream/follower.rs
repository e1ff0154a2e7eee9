//! [`Follower`]: the cursor of one stream, and what comes next after it.
//!
//! Everything a stream says about its topics is decided here: where each starts, what follows,
//! when something was lost. Whether the stream is still alive is the business of whoever carries it.
//! A stream that has caught up needs no follower any more, only its [`Place`]s.

mod patience;
mod topic_place;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::decide::{self, Judgement, Step};
use super::slow::{Slow, SlowReason};
use super::{Node, Request, StartAt};
use crate::backoff::Backoff;
use crate::frame::Frame;
use crate::hub::TopicState;
use crate::hub::tail::BATCH_BYTES_MAX;
use crate::log::{LogError, Snapshot};
use crate::position::{LogHistory, Position, ResumePoint, write_cursor};
use crate::said::{Reset, ResetReason, Said};
use crate::telemetry::metric;
use topic_place::{PlaceState, TopicPlace};

pub use topic_place::Place;

/// The first and the longest wait before a stream is opened again whose topics cannot be asked.
const OPEN_DELAY_MIN: Duration = Duration::from_millis(500);
const OPEN_DELAY_MAX: Duration = Duration::from_secs(4);

/// The positions of one stream in its topics.
pub struct Follower {
    node: Arc<Node>,
    places: Vec<TopicPlace>,
    /// Whether resets are answered with a snapshot.
    pub(crate) snapshot: bool,
    named_connected: bool,
    signal: Arc<Notify>,
    /// What is decided and not yet taken: at most one batch.
    said: Vec<Said>,
    state: FollowerState,
    opened_at_milliseconds: u64,
    /// How long it waits while its topics cannot be asked where they are.
    opening: Backoff,
    /// The first place to be asked next, so that a busy topic does not starve the others.
    turn: usize,
    slow: Arc<Slow>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FollowerState {
    /// Waiting for the topics to be open.
    Opening,
    /// Following them.
    Following,
    /// Nothing more to say: a state does not exist.
    Ended,
}

/// What asking one place led to.
enum Outcome {
    /// Something was said.
    Said,
    /// Nothing to say now.
    Idle,
    /// Nothing to say now, and the log is to be asked again then.
    Later(Instant),
    /// The stream must end: the state does not exist.
    NoState,
}

impl Follower {
    /// Joins the topics. Says nothing by itself.
    pub(super) fn new(node: Arc<Node>, request: &Request) -> Follower {
        let signal = Arc::new(Notify::new());
        let places = request.topics.iter().map(|requested| {
            let start = match &request.start {
                StartAt::Resume(cursor) => cursor.resume_point(&requested.topic).cloned(),
                StartAt::Now | StartAt::Earliest => None,
            };
            let joined = node.hub.join(&requested.topic, signal.clone());
            TopicPlace {
                must_have_state: requested.must_have_state,
                resumed: start.is_some(),
                start,
                from_earliest: matches!(request.start, StartAt::Earliest),
                ..TopicPlace::new(joined, PlaceState::Pending)
            }
        });
        let places = places.collect();
        // The reconnection time goes out at once, before the topics are known to be open.
        let said = vec![Said::Retry(node.retry)];
        let mut follower = Follower::of(node, places, request.snapshot, signal);
        follower.said = said;
        follower.named_connected = request.named_connected;
        follower.state = FollowerState::Opening;
        follower
    }

    /// Goes on from where a client was told that it stands.
    pub(crate) fn resume_from(node: Arc<Node>, places: &[Place], snapshot: bool) -> Follower {
        let signal = Arc::new(Notify::new());
        let places = places.iter().map(|place| {
            let joined = node.hub.join(place.topic.name(), signal.clone());
            // That it is a board was found out when the stream began.
            TopicPlace::new(joined, PlaceState::At(place.position))
        });
        let places = places.collect();
        Follower::of(node, places, snapshot, signal)
    }

    fn of(
        node: Arc<Node>,
        places: Vec<TopicPlace>,
        snapshot: bool,
        signal: Arc<Notify>,
    ) -> Follower {
        let opened_at_milliseconds = node.probe.now_milliseconds().unwrap_or(u64::MAX);
        Follower {
            node,
            places,
            snapshot,
            named_connected: false,
            signal,
            said: Vec::new(),
            state: FollowerState::Following,
            opened_at_milliseconds,
            opening: Backoff::new(OPEN_DELAY_MIN, OPEN_DELAY_MAX),
            turn: 0,
            slow: Arc::default(),
        }
    }

    /// The node it belongs to.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether it is behind, for whoever knows another reason.
    pub(super) fn slow(&self) -> &Arc<Slow> {
        &self.slow
    }

    /// Takes what was decided.
    pub(crate) fn take_said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Where it stands in its topics, if their tails have all that it says next: then whoever
    /// carries the stream can ask them itself.
    pub(crate) fn places(&self) -> Option<Vec<Place>> {
        if self.state != FollowerState::Following || !self.said.is_empty() {
            return None;
        }
        self.places.iter().map(TopicPlace::place).collect()
    }

    /// Waits until every topic is open or it is clear that the log cannot be asked now. `false`
    /// if a board does not exist.
    pub(super) async fn wait_until_open(&self) -> bool {
        loop {
            let mut opening = false;
            for place in &self.places {
                match place.joined.topic.state() {
                    TopicState::Opening => opening = true,
                    TopicState::Waiting | TopicState::Open { has_state: true } => {}
                    TopicState::Open { has_state: false } => {
                        if matches!(place.check_state(&self.node).await, Ok(false)) {
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

    /// Waits until there is something to say; `false` if the stream must end because a state does
    /// not exist. May be dropped at any `await`: until something is said, nothing has changed.
    pub(super) async fn advance(&mut self) -> bool {
        if !self.said.is_empty() {
            return true;
        }
        let mut heard_again = self.node.relay.heard_again();
        loop {
            let outcome = match self.state {
                FollowerState::Opening => self.open().await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a stream waits for the log");
                    Outcome::Later(Instant::now() + self.opening.wait())
                }),
                FollowerState::Following => self.follow().await,
                FollowerState::Ended => return false,
            };
            match outcome {
                Outcome::Said => return true,
                Outcome::NoState => self.state = FollowerState::Ended,
                Outcome::Idle => self.signal.notified().await,
                Outcome::Later(at) => {
                    tokio::select! {
                        biased;
                        () = self.signal.notified(), if self.state == FollowerState::Following => {}
                        Ok(()) = heard_again.changed() => {
                            self.opening.reset();
                            for place in &mut self.places {
                                place.patience.on_heard_again();
                            }
                        }
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// Decides where each place starts, and says so when all are open.
    async fn open(&mut self) -> Result<Outcome, LogError> {
        for at in 0..self.places.len() {
            let place = &self.places[at];
            if !matches!(place.state, PlaceState::Pending) {
                continue;
            }
            let topic = place.joined.topic.clone();
            let Some(head) = topic.head() else { return Ok(Outcome::Idle) };
            if !place.check_state(&self.node).await? {
                return Ok(Outcome::NoState);
            }
            let earliest = place.from_earliest;
            let state = match &place.start {
                Some(ResumePoint::Position(position)) => PlaceState::At(*position),
                Some(ResumePoint::Seq(seq)) => {
                    PlaceState::At(Position { seq: *seq, epoch: head.epoch })
                }
                Some(ResumePoint::Unreadable(text)) => PlaceState::Unreadable(text.clone()),
                None if earliest => {
                    let history = self.node.replays.history(topic.name()).await?;
                    let oldest = history.map_or(head, |history| decide::after_reset(&history));
                    PlaceState::At(oldest)
                }
                None => PlaceState::At(head),
            };
            let snapshot = self.snapshot && topic.state() == TopicState::Open { has_state: true };
            let place = &mut self.places[at];
            place.state = state;
            if snapshot && !place.from_earliest {
                // Position 0 is what the `connected` of a stream that has not had its snapshot yet
                // carries, so that a client that drops in between gets one when it comes back.
                let begin = PlaceState::At(Position { seq: 0, epoch: head.epoch });
                let fresh = place.start.is_none();
                let state = &mut place.state;
                if fresh || matches!(state, PlaceState::At(Position { seq: 0, .. })) {
                    *state = begin;
                    place.snapshot_due = true;
                }
            }
        }
        self.said.push(Said::Opened {
            cursor: self.cursor(),
            node: self.node.id.clone(),
            named: self.named_connected,
        });
        self.state = FollowerState::Following;
        Ok(Outcome::Said)
    }

    /// Asks every place once.
    async fn follow(&mut self) -> Outcome {
        let count = self.places.len();
        // One topic waits for the log; the others may have something in their tails.
        let mut later: Option<Instant> = None;
        for n in 0..count {
            let at = (self.turn + n) % count;
            let outcome = self.follow_one(at).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a stream waits for the log");
                let patience = &mut self.places[at].patience;
                patience.on_failure();
                patience.waits_until().map_or(Outcome::Idle, Outcome::Later)
            });
            match outcome {
                Outcome::Idle => {}
                Outcome::Later(then) => later = Some(later.map_or(then, |first| first.min(then))),
                Outcome::Said | Outcome::NoState => {
                    self.turn = (at + 1) % count;
                    return outcome;
                }
            }
        }
        match later {
            Some(at) => Outcome::Later(at),
            None => {
                self.slow.set(SlowReason::ReadsLog, false);
                Outcome::Idle
            }
        }
    }

    async fn follow_one(&mut self, at: usize) -> Result<Outcome, LogError> {
        let place = &self.places[at];
        let waits_until = place.patience.waits_until();
        if place.snapshot_due {
            return match waits_until {
                Some(then) => Ok(Outcome::Later(then)),
                None => self.say_snapshot(at).await,
            };
        }
        let topic = place.joined.topic.clone();
        let position = match &place.state {
            PlaceState::At(position) => *position,
            PlaceState::Unreadable(text) => {
                if let Some(then) = waits_until {
                    return Ok(Outcome::Later(then));
                }
                let from = text.clone();
                let Some(history) = self.node.replays.history(topic.name()).await? else {
                    return self.log_is_gone(at);
                };
                return Ok(self.say_reset(at, ResetReason::Unreadable, from, &history));
            }
            PlaceState::Pending => return Ok(Outcome::Idle),
        };
        // A tail may hold more than the log retains. Where a client resumes is judged by the log, the
        // same on every node; who reads on is served from memory.
        if place.resumed
            && topic.head().is_some_and(|head| {
                head.seq.saturating_sub(position.seq) > self.node.history_entries_max
            })
        {
            if let Some(then) = waits_until {
                return Ok(Outcome::Later(then));
            }
            let history = self.node.replays.history(topic.name()).await?;
            let Some(history) = history else { return self.log_is_gone(at) };
            if let Judgement::Reset(reason) = decide::by_log(&history, position) {
                return Ok(self.say_reset(at, reason, position.to_string(), &history));
            }
        }
        // Counted before the log is read: what it says may be older than the next refresh.
        let refreshes = topic.refreshes();
        let step = decide::after_tail(topic.after(position), place.is_confirmed());
        match (step, waits_until) {
            (Step::Wait, _) => Ok(Outcome::Idle),
            (Step::Say(frames), _) => {
                self.say_entries(at, &frames, "tail");
                Ok(Outcome::Said)
            }
            (Step::ReadLog | Step::AskLog, Some(then)) => Ok(Outcome::Later(then)),
            (Step::ReadLog, None) => {
                self.slow.set(SlowReason::ReadsLog, true);
                let tail_head = topic.head().unwrap_or(position);
                let page = self.node.replays.after(topic.name(), position, tail_head).await?;
                let Some(page) = page else { return self.log_is_gone(at) };
                match decide::by_page(&page.history, &page.frames, position) {
                    Ok(frames) => {
                        self.say_entries(at, frames, "log");
                        Ok(Outcome::Said)
                    }
                    Err(Judgement::Confirmed) if self.places[at].patience.is_tried() => {
                        self.look_beyond(at, position, refreshes).await
                    }
                    Err(judgement) => {
                        Ok(self.judged(at, position, judgement, &page.history, refreshes))
                    }
                }
            }
            (Step::AskLog, None) => {
                let history = self.node.replays.history(topic.name()).await?;
                let Some(history) = history else { return self.log_is_gone(at) };
                let judgement = decide::by_log(&history, position);
                Ok(self.judged(at, position, judgement, &history, refreshes))
            }
        }
    }

    /// Does what the log's judgement about a position asks for, which the tail could not place
    /// after so many `refreshes`, counted before the log was read.
    fn judged(
        &mut self,
        at: usize,
        position: Position,
        judgement: Judgement,
        history: &LogHistory,
        refreshes: u64,
    ) -> Outcome {
        match judgement {
            Judgement::Reset(reason) => self.say_reset(at, reason, position.to_string(), history),
            Judgement::Confirmed => {
                // The client is right and this node is late: let the tail catch up.
                let place = &mut self.places[at];
                place.confirmed_at = Some(refreshes);
                place.patience.on_confirmed();
                self.node.relay.request_repair(&place.joined.topic);
                place.patience.waits_until().map_or(Outcome::Idle, Outcome::Later)
            }
        }
    }

    /// The log says again and again that entries come after a position, and no page has the next
    /// one. No script leaves a log like that, but somebody may have deleted an entry by hand: what
    /// comes after the gap is told as after a loss.
    async fn look_beyond(
        &mut self,
        at: usize,
        position: Position,
        refreshes: u64,
    ) -> Result<Outcome, LogError> {
        let topic = self.places[at].joined.topic.name().clone();
        let Some((mut history, next)) = self.node.replays.next(&topic, position.seq).await? else {
            return self.log_is_gone(at);
        };
        let mut judgement = decide::by_log(&history, position);
        if judgement == Judgement::Confirmed
            && position.seq < history.head
            && next != Some(position.seq + 1)
        {
            history.oldest = next.unwrap_or(history.head + 1);
            judgement = Judgement::Reset(ResetReason::Trimmed);
        }
        Ok(self.judged(at, position, judgement, &history, refreshes))
    }

    /// The topic has no log any more: the relay makes it anew, and wakes us.
    fn log_is_gone(&mut self, at: usize) -> Result<Outcome, LogError> {
        self.node.relay.request_repair(&self.places[at].joined.topic);
        Err(LogError::Unavailable("the topic's log is gone".to_owned()))
    }

    /// At most one batch of frames.
    fn say_entries(&mut self, at: usize, frames: &[Frame], source: &'static str) {
        let single = self.places.len() == 1;
        let mut bytes = 0;
        let mut count = 0;
        for frame in frames {
            if bytes > BATCH_BYTES_MAX {
                break;
            }
            self.places[at].state = PlaceState::At(frame.position);
            let cursor = (!single).then(|| self.cursor());
            bytes += frame.size() + cursor.as_ref().map_or(0, String::len);
            self.said.push(Said::Entry { frame: frame.clone(), cursor });
            count += 1;
        }
        metric::delivered(count, bytes);
        let place = &mut self.places[at];
        place.confirmed_at = None;
        if let (PlaceState::At(position), Some(head)) = (&place.state, place.joined.topic.head()) {
            place.patience.on_said(head.epoch, position.seq);
        }
        if std::mem::take(&mut place.resumed) {
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

    fn say_reset(
        &mut self,
        at: usize,
        reason: ResetReason,
        from: String,
        history: &LogHistory,
    ) -> Outcome {
        let place = &mut self.places[at];
        if !place.patience.may_reset() {
            return place.patience.waits_until().map_or(Outcome::Idle, Outcome::Later);
        }
        place.reset_at = Some(history.head);
        let topic = &place.joined.topic;
        let snapshot = self.snapshot && topic.state() == (TopicState::Open { has_state: true });
        let reset = Reset::new(topic.name().as_str(), reason, from, history);
        tracing::debug!(topic = %reset.topic, ?reason, from = %reset.from, "reset");
        metric::reset(reason);
        place.resumed = false;
        place.confirmed_at = None;
        if snapshot {
            // Without an id: a client that drops before the snapshot is told again.
            place.snapshot_due = true;
            self.said.push(Said::Reset { reset, cursor: None });
        } else {
            place.state = PlaceState::At(decide::after_reset(history));
            let cursor = Some(self.cursor());
            self.said.push(Said::Reset { reset, cursor });
        }
        Outcome::Said
    }

    async fn say_snapshot(&mut self, at: usize) -> Result<Outcome, LogError> {
        let topic = self.places[at].joined.topic.clone();
        let Some(snapshot) = self.node.replays.snapshot(topic.name()).await? else {
            // It was there when the topic was opened. The next to ask for it are refused, instead of
            // being let in and ended like this one.
            topic.set_has_state(false);
            return Ok(Outcome::NoState);
        };
        let place = &mut self.places[at];
        place.state = PlaceState::At(snapshot.position);
        place.snapshot_due = false;
        place.resumed = false;
        place.confirmed_at = None;
        metric::delivered(0, snapshot.json.len());
        let Snapshot { json: state, pieces, .. } = snapshot;
        self.said.push(Said::Snapshot { cursor: self.cursor(), state, pieces });
        Ok(Outcome::Said)
    }

    /// The id of this stream: where it stands in all its topics.
    fn cursor(&self) -> String {
        let text = |state: &PlaceState| match state {
            PlaceState::At(position) => position.to_string(),
            PlaceState::Unreadable(text) => text.clone(),
            PlaceState::Pending => String::new(),
        };
        match self.places.as_slice() {
            [only] => text(&only.state),
            several => {
                write_cursor(several.iter().map(|one| (one.joined.topic.name(), text(&one.state))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
