//! `fantail-bench`: what Fantail costs, beside the smallest server that says the same.
//!
//! `fantail-bench fanout --server reference --server fantail --topics 1 --subscribers 1000
//! --rate 50000 --seconds 10` runs one measure; `--help` lists all.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::measure::fanout::{Shape, fanout};
use crate::measure::{Measured, Settings};
use crate::sample::Sample;
use crate::server::Kind;

mod clock;
mod crowd;
mod histogram;
mod measure;
mod process;
mod publisher;
mod redis;
mod sample;
mod scanner;
mod server;

/// Measures what Fantail costs, beside the smallest server that says the same.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    measure: Measures,
}

#[derive(clap::Args)]
struct Common {
    /// fantail, fantail-embedded, reference, nchan, nchan-redis, pushpin, durable-streams, or
    /// http://127.0.0.1:<port> of a Fantail that runs; `@<binary>` behind it and `<name>=` before
    /// it compare builds, as in new=fantail@target/release/fantail. Several take turns
    #[arg(long = "server", required = true)]
    servers: Vec<Kind>,
    /// The process of the server that runs already
    #[arg(long)]
    pid: Option<u32>,
    /// Repetitions
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Threads that read streams
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    bytes: usize,
}

#[derive(Subcommand)]
enum Measures {
    /// Processor time and latency at a fixed rate
    Fanout {
        #[command(flatten)]
        common: Common,
        /// Topics
        #[arg(long, default_value_t = 1)]
        topics: u32,
        /// Streams on each topic
        #[arg(long, default_value_t = 1000)]
        subscribers: usize,
        /// Deliveries a second, all together
        #[arg(long, default_value_t = 50_000.0)]
        rate: f64,
        /// For how long
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    let descriptors = process::raise_descriptor_limit();
    let settings = Settings {
        // The gateway keeps 128 back, and the publishers need some here.
        streams_max: descriptors.saturating_sub(400),
        threads: 1,
        bytes: 100,
        quick: false,
        pid: None,
        run: 1,
    };
    let result = match Arguments::parse().measure {
        Measures::Fanout { common, topics, subscribers, rate, seconds } => {
            let shape = Shape { topics, subscribers, rate, seconds };
            common.take_turns(&settings, |settings, kind| fanout(settings, kind, shape))
        }
    };
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

impl Common {
    fn take_turns(
        &self,
        settings: &Settings,
        measure: impl Fn(&Settings, &Kind) -> Measured,
    ) -> Result<Vec<Sample>, String> {
        let mut all = Vec::new();
        for run in 1..=self.runs {
            let Common { pid, threads, bytes, .. } = *self;
            let settings = Settings { pid, threads, bytes, run, ..settings.clone() };
            for kind in &self.servers {
                all.extend(
                    measure(&settings, kind).map_err(|why| format!("{}: {why}", kind.name))?,
                );
            }
        }
        Ok(all)
    }
}
