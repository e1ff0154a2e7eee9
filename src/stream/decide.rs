//! What follows a position, decided from what the tail or the log says of it. Pure.
//!
//! [Followers](super::Follower), [reactors](crate::net::reactor) and the model of the protocol
//! (`tests/model`) decide with these functions and with nothing else.

use crate::frame::Frame;
use crate::hub::tail::Next;
use crate::position::{LogHistory, Position};
use crate::replay::page::frames_after;
use crate::said::ResetReason;

/// What to do for a stream that stands at some position of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<F> {
    /// Nothing comes after the position yet.
    Wait,
    /// These come next.
    Say(F),
    /// The tail no longer reaches back: read on in the log.
    ReadLog,
    /// The tail cannot place the position: only the log as it is now can tell.
    AskLog,
}

/// What the tail says. `confirmed`: the log said that the position is right, and the tail was not
/// renewed since; then its next renewal will tell.
pub fn after_tail(next: Option<Next>, confirmed: bool) -> Step<Vec<Frame>> {
    match next {
        None | Some(Next::Nothing) => Step::Wait,
        Some(Next::Frames(frames)) => Step::Say(frames),
        Some(Next::Behind) => Step::ReadLog,
        Some(Next::Unsure) if confirmed => Step::Wait,
        Some(Next::Unsure) => Step::AskLog,
    }
}

/// What the log says, read after the tail could not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The position is right, and the tail is late: wait until it was renewed.
    Confirmed,
    /// The thread is lost.
    Reset(ResetReason),
}

/// Judges a position by the log as it is now.
pub fn by_log(history: &LogHistory, position: Position) -> Judgement {
    ResetReason::of(history.judge(position)).map_or(Judgement::Confirmed, Judgement::Reset)
}

/// What a page of the log has for a stream at `position`, or what the page's own view of the log
/// says of the position.
pub fn by_page<'a>(
    history: &LogHistory,
    frames: &'a [Frame],
    position: Position,
) -> Result<&'a [Frame], Judgement> {
    frames_after(history, frames, position).ok_or_else(|| by_log(history, position))
}

/// Where a stream goes on after a reset: before the oldest entry that can still be read.
pub fn after_reset(history: &LogHistory) -> Position {
    history.at(history.oldest - 1)
}
