//! The promises of `docs/guarantees.md`, checked from outside: real nodes, real Redis, real browsers.
//!
//! One program, so that the harness is built once; one file per promise or part of the wire.

#![allow(unreachable_pub, reason = "the harness is a room of its own inside one program")]

mod access;
mod anonymous;
mod attacks;
mod backend_equivalence;
mod bad_input;
mod board_index;
mod board_texts;
mod browser;
mod browser_login;
mod catalogue;
mod check;
mod client_address;
mod clocks;
mod cluster;
mod compression;
mod conditional_writes;
mod cookies;
mod corrupt_logs;
mod dead_connections;
mod door;
mod drain;
mod epochs;
mod expiry;
mod faults;
mod get_costs;
mod half_closed;
mod harness;
mod history_in_bytes;
mod hostile_pages;
mod http2;
mod limits;
mod many_streams;
mod moving;
mod operations;
mod operators_door;
mod redis_identity;
mod redis_outage;
mod redis_refusals;
mod refusals;
mod renewal;
mod requests;
mod resume;
mod revocation;
mod script_model_equivalence;
mod secrets;
mod sentinel;
mod simulation;
mod slow;
mod stream_age;
mod surroundings;
mod takeover;
mod tasks;
mod tickets;
mod tls;
mod topics;
mod trickle;
mod unread_answers;
mod watching;
mod wire;
