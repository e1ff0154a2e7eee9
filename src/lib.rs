//! Fantail, a horizontally scalable Server-Sent Events gateway backed by Redis.
//!
//! The log is the truth; an announcement is only a hint; a connection is one cursor over the log.
//!
//! # The road of an event
//!
//! Somebody posts a task to any node:
//!
//! 1. [`http`] reads the request and makes it a [`board::Command`], or an [`entry::Event`] for a
//!    [`topic`].
//! 2. [`board`] says what may happen then, and which event tells of it. Pure.
//! 3. [`log`] is the promise that state, sequence number, entry and announcement change as one
//!    step. [`log::redis`] keeps it with Lua scripts, for all nodes; [`log::memory`] with a lock, for
//!    one.
//! 4. [`frame`] has turned the event into SSE text by then; the log puts its [`position`] before
//!    it. Nobody encodes it again.
//! 5. Every node that has somebody watching hears the announcement through its [`relay`], which
//!    checks that nothing is missing in between and otherwise reads the log first.
//! 6. The relay feeds the topic's tail in the [`hub`], which wakes the connections.
//! 7. Each [`connection`] asks the tail for what comes after its own position. One that is further
//!    behind asks [`replay`], which reads the log for all who ask for the same.
//! 8. What the connection says becomes the body of an HTTP response, and so bytes on a socket. A
//!    plain stream that has caught up leaves the HTTP server: a [`reactor`] carries it, thousands in
//!    one thread, until there is something else to say than the next entry.
//!
//! Around it: [`config`] (every setting, as values; the program's `cli.rs` reads them), [`gateway`]
//! (start and drain), [`admission`] (how many streams), [`canary`] (whether this node can deliver),
//! [`telemetry`] (what operators see), [`health`] (what a container engine asks). Outside of it, in
//! a package of its own under `check/`: a witness that asks gateways over HTTP whether they keep
//! what is promised, and knows nothing of this one.
//!
//! # Doors
//!
//! [`board`], [`topic`], [`position`], [`entry`] and [`frame`] are pure. Only [`log::redis`] knows
//! Redis, only [`http`] knows axum. [`hub`] never waits on the network. [`relay`] and
//! [`connection`] know the log only as [`log::Log`].

pub mod topic;

pub mod position;

pub mod entry;

pub mod frame;

pub mod board;

pub mod log;

pub mod relay;

pub mod hub;

pub mod connection;

pub mod replay;

pub mod reactor;

pub mod http;

pub mod gateway;

pub mod admission;

pub mod canary;

pub mod config;

pub mod telemetry;

pub mod health;
