//! The same bytes: sessions and request heads are played to two gateways, and every byte of their
//! answers is compared, but for what differs by nature ([`normal`]: times, epochs, jitter).
//!
//! As a test it compares both ways in which one gateway carries streams (`FANTAIL_REACTORS=1` and
//! `=0`), over HTTP/1.1 and HTTP/2: where a stream is carried is nobody's business but the node's.
//!
//! As a tool it compares a program of before a change with that of now, to the byte:
//!
//! ```sh
//! FANTAIL_BEFORE=/path/to/fantail cargo test --test same_bytes
//! ```
//!
//! `FANTAIL_CHUNKS=any` then lets them divide event streams into other chunks. Request heads are
//! drawn at random: `HEADS=100000` takes so many, `SEED=…` the same as before, `HEAD=17` that one.

#![allow(unreachable_pub, reason = "modules of one program")]

mod compare;
mod connections;
mod frames;
mod gateway;
mod heads;
mod http1;
mod normal;
mod player;
mod sessions;
mod starts;
