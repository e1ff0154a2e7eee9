//! Broken on purpose: each [`Break`] must break a promise, or the model proves nothing.

use std::sync::Arc;

use stateright::{Checker, HasDiscoveries, Model};

use crate::plain;
use crate::world::{Bounds, Left, World};

/// A mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// An announced entry is taken although entries before it are missing.
    GapIgnored,
    /// What comes after a position includes the entry at it.
    DeliveredTwice,
    /// Watchers are not told of an announced entry.
    FeedDoesNotWake,
    /// The log is read before the topic is subscribed.
    ReadBeforeSubscribe,
    /// A new connection does not subscribe what the one before had.
    NotResubscribed,
    /// The relay is not told that the subscription was made anew.
    MissedNotTold,
    /// Heads are never compared.
    NoAudit,
    /// What is announced during a repair is dropped.
    NotParked,
    /// A repair that is wanted while one runs is not done, though what runs has read before.
    LookAbsorbed,
    /// A position is taken for one of the current epoch.
    EpochForgotten,
    /// A new epoch does not note the ones before.
    PastForgotten,
    /// The end of an epoch is noted one too high.
    EndNotedTooFar,
    /// The end of an epoch is noted one too low.
    EndNotedTooEarly,
    /// Who is behind the oldest entry goes on with the oldest.
    TrimmedNotTold,
    /// A position that the tail does not know is reset without asking the log.
    UnsureIsLost,
    /// A position that the log confirmed stays so until the tail moves.
    ConfirmedUntilMoved,
    /// A page that was read before is used although the log has become another one.
    AnyPageWillDo,
    /// A page that was read before is used although it knows more than the tail.
    PageAheadOfTail,
    /// The hello of a resumed stream carries where the log is, not where the client is.
    ConnectedCarriesHead,
    /// The reset before a snapshot carries the new position already.
    IdBeforeSnapshot,
}

fn explore(bounds: Bounds, broken: Option<Break>) -> impl Checker<World> {
    let world = World { bounds, broken, seen: Arc::default() };
    world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
}

/// Explores until a promise is broken, which must happen, and only because of this.
fn breaks_a_promise(broken: Break, bounds: Bounds) {
    let whole = explore(bounds.clone(), None);
    assert!(whole.discoveries().is_empty(), "unbroken, it fails within these bounds");
    is_found(broken, bounds);
}

fn is_found(broken: Break, bounds: Bounds) {
    let discoveries = explore(bounds, Some(broken)).discoveries();
    let (property, path) = discoveries.into_iter().next().expect("no promise is broken");
    println!("{broken:?}: not true: {property}, after {:?}", path.into_actions());
}

#[test]
fn taking_an_entry_whose_predecessors_are_missing() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::GapIgnored, Bounds { losses: true, begun: true, left, ..plain() });
}

#[test]
fn delivering_the_entry_at_a_position_again() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::DeliveredTwice, Bounds { left, ..plain() });
}

#[test]
fn not_waking_who_waits() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::FeedDoesNotWake, Bounds { audits: false, left, ..plain() });
}

#[test]
fn reading_before_subscribing() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::ReadBeforeSubscribe, Bounds { audits: false, left, ..plain() });
}

#[test]
fn not_subscribing_again_after_a_reconnect() {
    let left = Left { appends: 2, cuts: 1, ..Left::default() };
    breaks_a_promise(Break::NotResubscribed, Bounds { audits: false, left, ..plain() });
}

#[test]
fn not_comparing_heads_after_a_reconnect() {
    let left = Left { appends: 2, cuts: 1, ..Left::default() };
    breaks_a_promise(Break::MissedNotTold, Bounds { audits: false, left, ..plain() });
}

#[test]
fn never_comparing_heads() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::NoAudit, Bounds { losses: true, left, ..plain() });
}

#[test]
fn dropping_what_is_announced_during_a_repair() {
    let left = Left { appends: 2, ..Left::default() };
    breaks_a_promise(Break::NotParked, Bounds { audits: false, left, ..plain() });
}

#[test]
fn taking_a_running_repair_for_a_new_one() {
    let left = Left { appends: 2, cuts: 1, ..Left::default() };
    breaks_a_promise(Break::LookAbsorbed, Bounds { audits: false, left, ..plain() });
}

#[test]
fn judging_a_position_by_its_number_alone() {
    let left = Left { appends: 2, drops: 1, flushes: 1, ..Left::default() };
    breaks_a_promise(Break::EpochForgotten, Bounds { left, ..plain() });
}

#[test]
fn forgetting_the_past_reigns() {
    let left = Left { appends: 2, failovers: 1, ..Left::default() };
    breaks_a_promise(Break::PastForgotten, Bounds { left, ..plain() });
}

#[test]
fn noting_the_end_of_a_reign_too_high() {
    let left = Left { appends: 2, failovers: 1, ..Left::default() };
    breaks_a_promise(Break::EndNotedTooFar, Bounds { begun: true, left, ..plain() });
}

#[test]
fn noting_the_end_of_a_reign_too_low() {
    let left = Left { appends: 2, failovers: 1, ..Left::default() };
    breaks_a_promise(Break::EndNotedTooEarly, Bounds { left, ..plain() });
}

#[test]
fn going_on_with_the_oldest_entry() {
    let left = Left { appends: 3, drops: 1, ..Left::default() };
    breaks_a_promise(Break::TrimmedNotTold, Bounds { history_entries_max: 1, left, ..plain() });
}

#[test]
fn taking_the_verdict_of_a_node_that_is_late() {
    let left = Left { appends: 2, drops: 1, ..Left::default() };
    breaks_a_promise(Break::UnsureIsLost, Bounds { nodes: 2, left, ..plain() });
}

#[test]
fn taking_a_confirmation_for_good() {
    let left = Left { appends: 1, failovers: 1, ..Left::default() };
    breaks_a_promise(
        Break::ConfirmedUntilMoved,
        Bounds { snapshots: true, losses: true, left, ..plain() },
    );
}

#[test]
fn reading_pages_of_the_log_that_was() {
    let left = Left { appends: 2, drops: 1, flushes: 1, ..Left::default() };
    breaks_a_promise(Break::AnyPageWillDo, Bounds { sweeps: true, left, ..plain() });
}

#[test]
fn opening_with_the_head_of_the_log() {
    let left = Left { appends: 1, drops: 2, ..Left::default() };
    breaks_a_promise(Break::ConnectedCarriesHead, Bounds { left, ..plain() });
}

#[test]
fn giving_a_reset_the_id_of_the_snapshot_after_it() {
    let left = Left { appends: 2, drops: 1, flushes: 1, ..Left::default() };
    breaks_a_promise(
        Break::IdBeforeSnapshot,
        Bounds { snapshots: true, history_entries_max: 1, left, ..plain() },
    );
}

#[test]
fn reading_pages_that_know_more_than_the_tail() {
    let left = Left { appends: 2, drops: 1, failovers: 1, ..Left::default() };
    let bounds = Bounds { sweeps: true, calm: true, left, ..plain() };
    // Unbroken, these bounds are those of `servers_may_go_back_in_time`.
    is_found(Break::PageAheadOfTail, bounds);
}
