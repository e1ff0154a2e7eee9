//! [`Server`]: one of the programs that are measured, as a running process.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::process::{self, Process};
use crate::redis::Redis;

mod dialect;
mod kind;
mod peers;
mod tokens;

pub(crate) use dialect::Dialect;
pub(crate) use kind::{Kind, NAMES};
pub(crate) use peers::NginxInFront;

/// A server that runs.
pub(crate) struct Server {
    /// Where streams are opened.
    pub streams: SocketAddrV4,
    /// Where events are published.
    pub publishing: SocketAddrV4,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// The process that stands for it, with all its descendants.
    root: Option<u32>,
    // Dropped in this order: Redis after whoever uses it, files last.
    _processes: Vec<Process>,
    /// The Redis behind it.
    pub redis: Option<Redis>,
    _directory: Option<peers::Directory>,
}

impl Server {
    /// A Fantail that runs already, and goes on. `pid`: its process, if its costs are wanted.
    fn running(address: SocketAddrV4, pid: Option<u32>) -> Server {
        Server {
            streams: address,
            publishing: address,
            dialect: Dialect::Fantail,
            root: pid,
            redis: None,
            _processes: Vec::new(),
            _directory: None,
        }
    }

    /// Its processes, without Redis.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.root.map(process::family).unwrap_or_default()
    }

    /// Processor time of its processes and of Redis up to now, in seconds.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<[f64; 2], String> {
        let redis: Vec<u32> = self.redis.iter().map(Redis::pid).collect();
        Ok([process::cpu_seconds(&self.pids())?, process::cpu_seconds(&redis)?])
    }

    /// Memory of its processes, in bytes.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn memory_bytes(&self) -> Result<f64, String> {
        process::memory_bytes(&self.pids())
    }

    /// Ends the server and returns its Redis, which goes on.
    pub(crate) fn end(self) -> Option<Redis> {
        self.redis
    }

    /// Makes topics that must be there before they are used.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) fn prepare(&self, run: &str, topics: u32) -> Result<(), String> {
        if self.dialect == Dialect::DurableStreams {
            peers::create_streams(self, run, topics)?;
        }
        Ok(())
    }
}

/// 127.0.0.1 and a port.
fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}
