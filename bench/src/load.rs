//! The load: what subscribes, publishes and downloads while a server is measured.
//!
//! It shares the machine with what it measures, so it is made to cost little, and its own processor
//! time is in the table.

pub(crate) mod board;
pub(crate) mod download;
pub(crate) mod http;
pub(crate) mod publisher;
pub(crate) mod scanner;
pub(crate) mod socket;
pub(crate) mod subscribers;
