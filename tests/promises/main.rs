//! The promises of the design, checked from outside: real nodes, real Redis, real browsers.
//!
//! One program, so that the harness is built once; one file per promise or part of the wire.

#![allow(unreachable_pub, reason = "the harness is a room of its own inside one program")]

mod agreement;
mod bad_input;
mod browser;
mod check;
mod cluster;
mod conditions;
mod crowd;
mod deafness;
mod drain;
mod epochs;
mod faults;
mod harness;
mod held;
mod http2;
mod idle;
mod keyspaces;
mod operations;
mod resume;
mod slow;
mod takeover;
mod tasks;
mod topics;
mod wire;
mod worlds;
