//! The protocol of delivery, tried out exhaustively within small bounds.
//!
//! `promises/` runs the real program and meets what happens to happen; this program writes down
//! what can happen, and tries all of it: every order in which announcements are heard, answers of
//! the log arrive, clients drop and come back, servers go back in time. Positions, histories, their
//! judgement and the tail are the real ones; relay ([`node`]), follower ([`client`]) and scripts
//! ([`server`]) are written again as steps, because what matters is what may happen between two
//! steps.
//!
//! [`harness::oracle`] knows what truly happened. By it, promises 1 to 3 (`docs/guarantees.md`) are four properties
//! ([`world::World`]): ids go up by one and are what they say; no reset is told in vain; when all
//! is quiet, everybody has seen everything; and calm heals. That a reset is told when it must be
//! follows: whoever is on a branch that was lost can neither be given the next entry of another
//! nor be called complete.
//!
//! A model that cannot fail proves nothing. Each [`broken::Break`] is a mistake that somebody could
//! make; the tests in [`broken`] make them all, and each must break a promise.
//!
//! Not in the model: several topics in one cursor (each has a position of its own), heartbeats and
//! drains, sharing of reads beyond one page, two servers that both take writes at a time, and a
//! log that is away (a question that is not answered is).

#![allow(unreachable_pub, reason = "rooms inside one program")]

mod broken;
mod client;
mod node;
mod server;
mod world;

/// What the simulation (`promises/simulation.rs`) has in common with the model.
#[path = "../promises/harness"]
mod harness {
    pub mod keyspace;
    pub mod oracle;
    pub mod server;
}

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use world::{Action, Bounds, Left, State, World};

fn keeps_all_promises(bounds: Bounds) {
    let began_at = Instant::now();
    let world = World { bounds, broken: None, seen: Arc::default() };
    let seen = world.seen.clone();
    let checker =
        world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    println!(
        "{} states, {} steps, up to {} in a row, {} quiet, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        seen.quiet.load(Ordering::Relaxed),
        began_at.elapsed()
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("not true: {property}\n{}", told(path));
    }
    assert!(seen.quiet.load(Ordering::Relaxed) > 0, "it never came to rest");
}

/// The way to a broken promise, step by step.
fn told(path: Path<State, Action>) -> String {
    let mut lines = Vec::new();
    for (state, action) in path.into_vec() {
        let nodes = state.nodes.iter().map(|node| format!("    {node:?}")).collect::<Vec<_>>();
        let clients =
            state.clients.iter().map(|client| format!("    {client:?}")).collect::<Vec<_>>();
        lines.push(format!("    {:?}\n{}\n{}", state.log, nodes.join("\n"), clients.join("\n")));
        lines.extend(action.map(|action| format!("{action:?}")));
    }
    lines.join("\n")
}

/// One node and one client that stays, and a log that is never trimmed and never goes back.
fn plain() -> Bounds {
    Bounds { nodes: 1, clients: 1, history_entries_max: 9, audits: true, ..Bounds::default() }
}

#[test]
fn announcements_may_be_lost_doubled_and_heard_in_any_order() {
    keeps_all_promises(Bounds {
        losses: true,
        disorder: true,
        left: Left { appends: 3, drops: 1, echoes: 1, failures: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn calm_heals_whatever_was_lost() {
    keeps_all_promises(Bounds {
        losses: true,
        calm: true,
        left: Left { appends: 3, drops: 1, cuts: 1, failures: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn without_losses_no_audit_is_needed_but_the_one_after_a_reconnect() {
    keeps_all_promises(Bounds {
        audits: false,
        disorder: true,
        sweeps: true,
        left: Left { appends: 3, drops: 1, cuts: 1, failures: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn servers_may_go_back_in_time() {
    keeps_all_promises(Bounds {
        sweeps: true,
        calm: true,
        left: Left { appends: 2, drops: 1, failovers: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn servers_may_go_back_in_time_with_a_log_that_has_no_entry() {
    keeps_all_promises(Bounds {
        sweeps: true,
        begun: true,
        left: Left { appends: 2, drops: 1, failovers: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
#[ignore = "takes long: make test-all"]
fn servers_may_go_back_in_time_twice() {
    keeps_all_promises(Bounds {
        history_entries_max: 1,
        left: Left { appends: 2, failovers: 2, ..Left::default() },
        ..plain()
    });
}

#[test]
fn clients_may_roam_between_nodes() {
    keeps_all_promises(Bounds {
        nodes: 2,
        losses: true,
        left: Left { appends: 2, drops: 2, ..Left::default() },
        ..plain()
    });
}

#[test]
#[ignore = "takes long: make test-all"]
fn clients_may_roam_while_servers_go_back_in_time() {
    keeps_all_promises(Bounds {
        nodes: 2,
        left: Left { appends: 1, drops: 1, failovers: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn keys_may_be_flushed_and_evicted() {
    keeps_all_promises(Bounds {
        history_entries_max: 1,
        left: Left { appends: 2, drops: 1, flushes: 1, evictions: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
#[ignore = "takes long: make test-all"]
fn streams_may_have_snapshots() {
    keeps_all_promises(Bounds {
        snapshots: true,
        history_entries_max: 1,
        left: Left { appends: 2, drops: 1, failovers: 1, ..Left::default() },
        ..plain()
    });
}

#[test]
fn topics_may_be_left_and_joined_again() {
    keeps_all_promises(Bounds {
        clients: 2,
        history_entries_max: 1,
        sweeps: true,
        losses: true,
        left: Left { appends: 2, drops: 2, ..Left::default() },
        ..plain()
    });
}
