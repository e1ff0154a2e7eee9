//! `fantail-bench`: what Fantail costs, beside the smallest server that says the same.
//!
//! `fantail-bench all` is the whole session of `make bench`. One measure by itself, against builds
//! that take turns or a server that runs already, is for whoever makes something faster:
//! `fantail-bench fanout --server reference --server fantail --topics 1 --subscribers 1000 --rate
//! 50000 --seconds 10`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::measure::fanout::{Shape, fanout};
use crate::measure::{Measured, Settings};
use crate::sample::Sample;
use crate::server::{Kind, NAMES};
use crate::session::Session;

mod chart;
mod clock;
mod compare;
mod histogram;
mod load;
mod measure;
mod process;
mod redis;
mod report;
mod sample;
mod server;
mod session;

/// Measures what Fantail costs, beside the smallest server that says the same.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(clap::Args)]
struct Common {
    #[arg(long = "server", help = server_help(), default_values = ["reference", "fantail", "fantail-embedded"])]
    servers: Vec<Kind>,
    /// The process of the server that runs already
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    load: Load,
}

/// How much of everything.
#[derive(clap::Args)]
struct Load {
    /// Repetitions
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Threads that read streams
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Shorter and smaller: does everything work?
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Commands {
    /// A whole session: every measure, a table and a chart
    All {
        #[command(flatten)]
        common: Common,
        /// Only these measures, divided by commas; all without a server that is not there
        #[arg(long, value_delimiter = ',')]
        only: Vec<session::Measure>,
        /// The path of the results, to which .json, .md and .svg are added
        #[arg(long, default_value = "target/bench/results")]
        into: std::path::PathBuf,
    },
    /// Two builds side by side: what a change did, on both logs
    Compare {
        /// The build before and, unless it is the one beside this program, the build after
        #[arg(long, required = true, num_args = 1)]
        fantail: Vec<std::path::PathBuf>,
        #[command(flatten)]
        load: Load,
        /// Only these measures, divided by commas
        #[arg(long, value_delimiter = ',')]
        only: Vec<session::Measure>,
        /// The path of the results, to which .json, .md and .svg are added
        #[arg(long, default_value = "target/bench/compare-results")]
        into: std::path::PathBuf,
    },
    /// Writes the table and the chart of sessions that were recorded
    Report {
        /// The records: JSON files of sessions
        #[arg(required = true)]
        records: Vec<std::path::PathBuf>,
        /// The directory for RESULTS.md and results.svg
        #[arg(long, default_value = "bench")]
        into: std::path::PathBuf,
    },
    /// One measure by itself, as in a session
    Measure {
        measure: session::Measure,
        #[command(flatten)]
        common: Common,
    },
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
        /// Topics of one stream; a divisor of --topics
        #[arg(long, default_value_t = 1)]
        topics_each: u32,
        /// Events that are due at the same moment
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        burst: u32,
        /// Deliveries a second, all together
        #[arg(long, default_value_t = 50_000.0)]
        rate: f64,
        /// For how long, after a second that does not count
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
}

fn server_help() -> String {
    format!(
        "{NAMES}, or http://127.0.0.1:PORT of a Fantail that runs; NAME= before it, \
         +SETTING=VALUE and @PATH of a binary behind it compare builds and settings, as in \
         old=fantail@PATH and fantail+reactors=0. Several take turns"
    )
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Commands) -> Result<(), String> {
    process::end_all_on_signals()?;
    let descriptors = process::raise_descriptor_limit();
    match command {
        Commands::All { common, only, into } => {
            let settings = common.settings(descriptors);
            let session = Session { settings, only, into, table: report::Record::markdown };
            session.run(common.present(), common.load.runs, descriptors)
        }
        Commands::Compare { fantail, load, only, into } => {
            let settings = load.settings(descriptors);
            let session = Session { settings, only, into, table: compare::table };
            session.run(compare::kinds(&fantail)?, load.runs, descriptors)
        }
        Commands::Report { records, into } => session::report(&records, &into),
        Commands::Measure { measure, common } => {
            let measure = |settings: &Settings, kind: &Kind| -> Measured {
                let parts = measure.parts(settings);
                let fitting = parts.iter().filter(|part| part.fits(kind));
                let all: Result<Vec<_>, _> = fitting.map(|part| part.run(settings, kind)).collect();
                Ok(all?.into_iter().flatten().collect())
            };
            common.take_turns(descriptors, measure).map(drop)
        }
        Commands::Fanout { common, topics, subscribers, topics_each, burst, rate, seconds } => {
            let shape =
                Shape { seconds, topics_each, burst, ..Shape::of(topics, subscribers, rate) };
            common.take_turns(descriptors, |settings, kind| fanout(settings, kind, shape)).map(drop)
        }
    }
}

impl Load {
    fn settings(&self, descriptors: usize) -> Settings {
        let Load { threads, bytes, quick, .. } = *self;
        // The gateway keeps 128 back for other things, and the publishers need some here.
        let streams_max = descriptors.saturating_sub(400);
        Settings { streams_max, threads, bytes, quick, pid: None, run: 1 }
    }
}

impl Common {
    fn settings(&self, descriptors: usize) -> Settings {
        Settings { pid: self.pid, ..self.load.settings(descriptors) }
    }

    /// The servers whose programs are there.
    fn present(&self) -> Vec<Kind> {
        let present = |kind: &&Kind| match kind.absent() {
            None => true,
            Some(why) => {
                eprintln!("bench: without {}: {why}", kind.name);
                false
            }
        };
        self.servers.iter().filter(present).cloned().collect()
    }

    fn take_turns(
        &self,
        descriptors: usize,
        measure: impl Fn(&Settings, &Kind) -> Measured,
    ) -> Result<Vec<Sample>, String> {
        let mut all = Vec::new();
        for run in 1..=self.load.runs {
            let settings = Settings { run, ..self.settings(descriptors) };
            for kind in &self.servers {
                let measured = measure(&settings, kind);
                all.extend(measured.map_err(|why| format!("{}: {why}", kind.name))?);
            }
        }
        Ok(all)
    }
}
