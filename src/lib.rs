//! Fantail, a horizontally scalable Server-Sent Events gateway backed by Redis.
//!
//! The log is the truth; an announcement is only a hint; a stream is one cursor over the log.
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
//! 4. [`wire::sse::event_text`] has written the event as text by then; the log puts its
//!    [`position`] to it. In each node it becomes a [`frame`] once, and nobody encodes it again.
//! 5. Every node that has somebody watching hears the announcement through its [`relay`], which
//!    checks that nothing is missing in between and otherwise reads the log first.
//! 6. The relay gives it to the topic's tail in the [`hub`], which tells those who follow the topic.
//! 7. Each [`stream`] asks the tail for what comes after its own position. One that is further
//!    behind asks [`replay`], which reads the log for all who ask for the same. What it then says is
//!    a value ([`said`]).
//! 8. [`wire`] makes bytes of what is said.
//! 9. [`net`] carries them to a socket: reactors, thousands of streams in one thread, and over HTTP/2
//!    the HTTP server.
//!
//! Around it: [`config`] (every setting, as values; the program's `cli.rs` reads them), [`gateway`]
//! (start and drain), [`background`] (the node's own tasks, and what follows when one ends),
//! [`backoff`] (waits of all that tries again), [`admission`] (how many streams), [`stats`] (of
//! which topics, over all nodes), [`budget`] (how much is held for readers), [`canary`] (whether this node can deliver), [`telemetry`] (what
//! operators see), [`health`] (what a container engine asks). Outside of it, in a package of its own
//! under `check/`: a witness that asks gateways over HTTP whether they keep what is promised, and
//! knows nothing of this one.
//!
//! # Where to look
//!
//! - Where an event becomes text: [`wire::sse::event_text`]; where it is written to a socket:
//!   [`net::reactor`] (its `deliver.rs`), and `net/body.rs` for the HTTP server's streams.
//! - Where a stream is refused: `http/streams.rs`, and nowhere else; where one is ended from outside:
//!   [`stream::terms::Endings`].
//! - Where one more wire goes: [`wire::Wire`], a file beside [`wire::sse`], and an encoding in
//!   [`frame::Frame`].
//!
//! # Doors
//!
//! [`board`], [`topic`], [`position`], [`entry`], [`frame`], [`said`] and [`wire`] are pure. Only
//! [`log::redis`] knows Redis, only [`http`] and [`net`] know HTTP. [`hub`] never waits on the
//! network. [`stream`] knows no bytes, [`wire`] no sockets, [`net`] no events. [`relay`] and
//! [`stream`] know the log only as [`log::Log`].

pub mod topic;

pub mod position;

pub mod entry;

pub mod frame;

pub mod said;

pub mod wire;

pub mod board;

pub mod log;

pub mod relay;

pub mod hub;

pub mod stream;

pub mod replay;

pub mod budget;

pub mod net;

pub mod http;

pub mod gateway;

pub mod background;

pub mod backoff;

pub mod admission;

pub mod stats;

pub mod canary;

pub mod config;

pub mod telemetry;

pub mod json;

pub mod nearest;

pub mod health;
