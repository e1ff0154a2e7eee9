//! [`TopicPlace`]: a stream's place in one of its topics, and what is due before it goes on.

use std::sync::Arc;

use super::patience::Patience;
use crate::hub::{HubTopic, Joined, TopicState};
use crate::log::LogError;
use crate::position::{Position, ResumePoint};
use crate::stream::Node;

/// A stream's place in a topic that it has caught up with.
pub struct Place {
    /// The topic.
    pub topic: Arc<HubTopic>,
    /// After which entry it stands.
    pub position: Position,
}

/// A stream's place in one of its topics, from before the topic is open on.
pub(super) struct TopicPlace {
    pub(super) joined: Joined,
    pub(super) must_have_state: bool,
    pub(super) start: Option<ResumePoint>,
    pub(super) from_earliest: bool,
    pub(super) state: PlaceState,
    /// A snapshot is due before anything else.
    pub(super) snapshot_due: bool,
    /// The log confirmed the position although the tail, refreshed so often, did not know it: wait
    /// until it is refreshed again. Not until it moves: the log may have lost the position
    /// meanwhile, and stand where the tail does.
    pub(super) confirmed_at: Option<u64>,
    /// It resumed, and nothing was caught up yet.
    pub(super) resumed: bool,
    /// Where the log was when a reset was told. Until it is reached, nobody forgets that.
    pub(super) reset_at: Option<u64>,
    /// When the log may be asked again.
    pub(super) patience: Patience,
}

/// How far a stream has got in a topic.
pub(super) enum PlaceState {
    /// Before the topic is open.
    Pending,
    /// After this position.
    At(Position),
    /// The client gave an id that is no position.
    Unreadable(String),
}

impl TopicPlace {
    /// Before anything was asked.
    pub(super) fn new(joined: Joined, state: PlaceState) -> TopicPlace {
        TopicPlace {
            joined,
            must_have_state: false,
            start: None,
            from_earliest: false,
            state,
            snapshot_due: false,
            confirmed_at: None,
            resumed: false,
            reset_at: None,
            patience: Patience::default(),
        }
    }

    /// Whether the log confirmed the position and the tail was not refreshed since.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed_at == Some(self.joined.topic.refreshes())
    }

    /// Where it stands, if the topic's tail has all that is said next.
    pub(super) fn place(&self) -> Option<Place> {
        match self.state {
            PlaceState::At(position) if !self.snapshot_due => {
                let topic = &self.joined.topic;
                // What it catches up with after it resumed is counted here.
                let caught_up = !self.resumed || topic.is_head(position);
                // A log that leads from reset to reset is no log to follow without a memory of them.
                let settled = self.reset_at.is_none_or(|head| position.seq >= head);
                let reached = caught_up && settled && topic.reaches(position);
                reached.then(|| Place { topic: topic.clone(), position })
            }
            _ => None,
        }
    }

    /// Whether the topic may be streamed: a state that was asked for must exist.
    pub(super) async fn check_state(&self, node: &Node) -> Result<bool, LogError> {
        let topic = &self.joined.topic;
        if !self.must_have_state || topic.state() == (TopicState::Open { has_state: true }) {
            return Ok(true);
        }
        // It may have been made since the topic was opened.
        let exists = node.snapshots.exist(std::slice::from_ref(topic.name())).await?;
        if exists {
            topic.set_has_state(true);
        }
        Ok(exists)
    }
}
