//! Fantail, a horizontally scalable Server-Sent Events gateway backed by Redis.
//!
//! The log is the truth; an announcement is only a hint; a stream is one cursor over the log.
//!
//! # The road of an event
//!
//! Somebody posts a task, or an event of their own, to any node:
//!
//! 1. [`http`] reads the request and makes it a [`board::Command`], or an [`entry::Event`] for a
//!    [`topic`].
//! 2. [`board`] knows what a command may do and which event tells of it. Pure.
//! 3. The log is asked to take it, and first has [`wire::sse::event_text`] write the event as text,
//!    all of it but its id. Who calls it: `log/redis.rs` for topics, `log/redis/boards.rs` for
//!    boards, `log/memory/topics.rs` for both. That text is stored; nobody encodes the event again.
//! 4. [`log`] is the promise that state, sequence number, entry and announcement change as one
//!    step; here the entry gets its [`position`]. [`log::redis`] keeps the promise with Lua scripts,
//!    for all nodes; [`log::memory`] with a lock, for one.
//! 5. Every node that has somebody watching hears the announcement (`log/redis/subscription.rs`) and
//!    makes it a [`frame`], once. Its [`relay`] checks that nothing is missing in between, and
//!    otherwise reads the log first.
//! 6. The relay gives the frame to the topic's tail in the [`hub`], which tells those who follow the
//!    topic.
//! 7. Each [`stream`] asks the tail for what comes after its own position. One that is further
//!    behind asks [`replay`], which reads the log for all who ask for the same. What it then says is
//!    a value ([`said`]).
//! 8. [`wire`] makes bytes of what is said.
//! 9. [`net`] writes them to a socket, in one of two ways: a [reactor](net::reactor), which is
//!    thousands of streams in one thread, or the HTTP server.
//!
//! # The road of a stream
//!
//! 1. `net/server.rs` accepts a connection, and `net/sniff.rs` looks at its first request head. One
//!    that is an ordinary `GET` of a stream is put to the routes at once; all others go to the HTTP
//!    server (`net/http.rs`), which puts them to the same routes.
//! 2. `http/streams.rs` decides whether the stream may begin, and opens a
//!    [`Session`](stream::Session) for it. The answer carries the session in the extensions of its
//!    response (`net/body.rs`).
//! 3. If the request was looked at, the session is taken out of the response, and goes with the
//!    socket to a reactor, for good. Otherwise the response's body is the stream.
//! 4. A reactor asks the tails by itself. What they do not know a task of the runtime finds out,
//!    with the stream's [`Follower`](stream::Follower), and the reactor writes what it is answered.
//!    A body has its follower all the time.
//!
//! Who may do what is asked on both roads, before anything is read from the log or written to it:
//! [`access`] knows tokens and what they grant, `http/access.rs` asks for every route.
//!
//! Around it: [`config`] (every setting, as values; the program's `cli.rs` reads them), [`gateway`]
//! (start and drain), [`background`] (the node's own tasks, and what follows when one ends),
//! [`backoff`] (waits of all that tries again), [`address`] (whose
//! a connection is, behind proxies too), [`admission`] (how many streams), [`stats`] (of
//! which topics, over all nodes), [`budget`] (how much is held for readers), [`canary`] (whether
//! this node can deliver), [`telemetry`] (what operators see), [`health`] (what a container engine
//! asks), [`nearest`] (which name a misspelt one means). Outside of it, in a package of its own
//! under `check/`: a witness that asks gateways over HTTP whether they keep what is promised, and
//! knows nothing of this one. What is promised stands in `docs/guarantees.md`.
//!
//! # Where to look
//!
//! - Where an event becomes text: [`wire::sse::event_text`]. Where it is written to a socket: in a
//!   reactor `net/reactor/deliver.rs` (what the tails have) and `net/reactor/streams.rs` (all else),
//!   for the HTTP server `net/body.rs`, through `net/socket.rs`, which gives up slow peers.
//! - Where a stream is refused: `http/streams.rs`, by what its caller was granted
//!   ([`access::Grant`]). What every request needs is asked for before, in `http/request/`, and first
//!   whether its host and its page are let in, in `http/door.rs`; what every connection needs in
//!   `net/server.rs`. Where a stream is ended from outside: [`stream::terms::Endings`].
//! - What one more wire changes: a variant of [`wire::Wire`] with its arms there, and a file beside
//!   [`wire::sse`]; the bytes that a [`frame::Frame`] keeps of an entry, which are those of the event
//!   stream, and `net/reactor/deliver.rs`, which sends them as they are; who asks for the wire and
//!   gets which headers, in `http/streams.rs`; its own [`stream::Terms`], in
//!   [`stream::terms::Endings`]. The log stores the text of the event stream, which another wire
//!   reads with [`wire::sse::read_event_text`].
//!
//! # Doors
//!
//! [`board`], [`topic`], [`position`], [`entry`], [`frame`], [`said`] and [`wire`] are pure. Only
//! [`log::redis`] knows Redis; only [`http`] and [`net`] serve HTTP. [`hub`] never waits on the
//! network. [`stream`] decides and encodes nothing (it counts bytes, to say no more at a time than a
//! client can take); [`wire`] knows no streams; [`net`] decides by [`stream::decide`] alone and has
//! [`wire`] encode. [`relay`] and [`stream`] know the log only as [`log::Log`]. `tests/imports.rs`
//! holds the rooms to it.

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

pub mod access;

pub mod gateway;

pub mod background;

pub mod backoff;

pub mod address;

pub mod admission;

pub mod stats;

pub mod canary;

pub mod config;

pub mod telemetry;

pub mod json;

pub mod nearest;

pub mod health;
