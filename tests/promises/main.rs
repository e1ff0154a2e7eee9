//! The promises of the design, checked from outside: real nodes, real Redis, real browsers.
//!
//! One program, so that the harness is built once; one file per promise or part of the wire.

#![allow(unreachable_pub, reason = "the harness is a room of its own inside one program")]

mod agreement;
mod bad_input;
mod browser;
mod cluster;
mod conditions;
mod crowd;
mod drain;
mod epochs;
mod harness;
mod held;
mod http2;
mod keyspaces;
mod operations;
mod resume;
mod slow;
mod tasks;
mod topics;
mod wire;
mod worlds;
