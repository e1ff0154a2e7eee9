//! What stands around the gateway: the container, the load balancers, the dashboards, the demo.
//!
//! There is no container engine here, so the files are read as their readers would read them, and
//! whatever can run as a plain process does: nginx, HAProxy, Caddy, and the whole demo.

#![allow(unreachable_pub, reason = "rooms inside one program")]

mod configuration;
mod demo;
mod files;
mod image;
mod node;
mod process;
mod proxies;
mod proxy;
mod references;
mod running_demo;
