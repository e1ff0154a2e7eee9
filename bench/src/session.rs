//! [`Session`]: all measures of all servers, in turns, and what is written of it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::chart;
use crate::measure::compression::{self, Way};
use crate::measure::fanout::{Shape, fanout};
use crate::measure::large_answers::{self, Readers};
use crate::measure::{
    Measured, Settings, connect, fairness, heartbeat, large_entries, limit, memory, publish,
    repair, replay, shared_topics, unread, watched_topics,
};
use crate::report::Record;
use crate::server::Kind;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Memory of idle streams
    Memory,
    /// Memory of idle streams of several topics
    SharedTopics,
    /// How fast many clients are taken
    Connect,
    /// Processor time and latency at fixed rates
    #[value(alias = "cpu", alias = "latency")]
    Fanout,
    /// The highest rate that a server keeps up with
    Limit,
    /// How many events a server takes
    Publish,
    /// Thousands of clients that resume at once
    Replay,
    /// Processor time of idle streams
    Heartbeat,
    /// A small topic beside a large one
    Fairness,
    /// Memory of many who ask for a large board, and read it or do not
    LargeAnswers,
    /// Bytes and processor time of streams that are compressed
    Compression,
    /// Memory of streams that are never read
    Unread,
    /// Memory of topics with a large entry each
    LargeEntries,
    /// 250,000 idle topics, and what one with events suffers from them
    WatchedTopics,
    /// How long it takes to find what Redis did not announce
    Repair,
}

/// Part of a measure: what one server does before it is the next one's turn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// With all streams on one topic?
    Memory(bool),
    /// Topics of a stream.
    SharedTopics(u32),
    /// One shape.
    Fanout(Shape),
    /// Who asks for the board.
    LargeAnswers(Readers),
    /// How streams are compressed.
    Compression(Way),
    /// Receive buffers of those who do not read, in bytes.
    Unread(Option<usize>),
    /// All of the measure.
    Whole(Measure),
}

impl Measure {
    /// The parts, in order.
    pub(crate) fn parts(self, settings: &Settings) -> Vec<Part> {
        let shape = |topics, subscribers, rate| {
            let shape = Shape::of(topics, settings.at_most(subscribers), rate);
            match settings.quick {
                true => Shape { seconds: 2.0, warm_up_seconds: 0.5, ..shape },
                false => shape,
            }
        };
        match self {
            Measure::Memory => vec![Part::Memory(true), Part::Memory(false)],
            Measure::SharedTopics => shared_topics::TOPICS.map(Part::SharedTopics).to_vec(),
            Measure::Fanout => {
                let small = shape(1_000, 1, 5_000.0);
                let shapes = [
                    shape(1, 1_000, 50_000.0),
                    shape(10, 100, 50_000.0),
                    small,
                    // Wakes everybody a thousand times a second instead of five thousand times.
                    Shape { burst: 5, ..small },
                    shape(1, 10_000, 50_000.0),
                    // What a second topic on a stream costs: shared by all of them, and of its own.
                    shape(1, 500, 5_000.0),
                    Shape { topics_each: 2, ..shape(2, 500, 5_000.0) },
                    Shape { topics_each: 2, ..small },
                ];
                shapes.map(Part::Fanout).to_vec()
            }
            Measure::LargeAnswers => large_answers::READERS.map(Part::LargeAnswers).to_vec(),
            Measure::Compression => compression::WAYS.map(Part::Compression).to_vec(),
            Measure::Unread => unread::RECEIVE_BUFFERS.map(Part::Unread).to_vec(),
            whole => vec![Part::Whole(whole)],
        }
    }
}

impl Part {
    /// Whether a server can do it at all.
    pub(crate) fn fits(&self, kind: &Kind) -> bool {
        match self {
            Part::Fanout(shape) if shape.topics_each > 1 => kind.carries_several_topics(),
            Part::SharedTopics(_) => kind.carries_several_topics(),
            Part::LargeAnswers(_) => kind.is_fantail(),
            Part::Compression(_) => kind.restarts(),
            Part::Unread(_) => kind.waits_for_readers(),
            Part::Whole(Measure::Replay) => kind.restarts(),
            Part::Whole(Measure::LargeEntries) => kind.is_fantail(),
            Part::Whole(Measure::Repair) => kind.is_fantail() && kind.has_redis(),
            Part::Whole(
                Measure::Heartbeat | Measure::Limit | Measure::Fairness | Measure::WatchedTopics,
            ) => kind.is_ours(),
            _ => true,
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// When something was lost, or did not work.
    pub(crate) fn run(&self, settings: &Settings, kind: &Kind) -> Measured {
        match *self {
            Part::Memory(one_topic) => memory::memory(settings, kind, one_topic),
            Part::SharedTopics(topics) => shared_topics::shared_topics(settings, kind, topics),
            Part::Fanout(shape) => fanout(settings, kind, shape),
            Part::LargeAnswers(readers) => large_answers::large_answers(settings, kind, readers),
            Part::Compression(way) => compression::compression(settings, kind, way),
            Part::Unread(receive_buffer) => unread::unread(settings, kind, receive_buffer),
            Part::Whole(measure) => match measure {
                Measure::Connect => connect::connect(settings, kind),
                Measure::Limit => limit::limit(settings, kind),
                Measure::Publish => publish::publishing(settings, kind),
                Measure::Replay => replay::replay(settings, kind),
                Measure::Heartbeat => heartbeat::heartbeat(settings, kind),
                Measure::Fairness => fairness::fairness(settings, kind),
                Measure::LargeEntries => large_entries::large_entries(settings, kind),
                Measure::WatchedTopics => watched_topics::watched_topics(settings, kind),
                Measure::Repair => repair::repair(settings, kind),
                // Those that have parts of their own.
                Measure::Memory
                | Measure::SharedTopics
                | Measure::Fanout
                | Measure::LargeAnswers
                | Measure::Compression
                | Measure::Unread => Ok(Vec::new()),
            },
        }
    }
}

/// What a session does, and where its results go.
pub(crate) struct Session {
    /// For all measures.
    pub settings: Settings,
    /// Which; none means all.
    pub only: Vec<Measure>,
    /// The files' path, without what comes behind the dot.
    pub into: PathBuf,
    /// Makes the table.
    pub table: fn(&Record) -> String,
}

impl Session {
    /// Measures everything; the servers take turns within every repetition of every part, so that
    /// what else happens on the machine meets all of them. Writes results after every part.
    ///
    /// # Errors
    /// When something was lost or did not work; everything else was measured.
    pub(crate) fn run(
        &self,
        kinds: Vec<Kind>,
        runs: usize,
        descriptors: usize,
    ) -> Result<(), String> {
        let mut record = Record::new(&kinds, descriptors);
        let all = Measure::value_variants();
        let quick = self.settings.quick;
        let chosen = all.iter().filter(|one| match self.only.as_slice() {
            // What takes longest is left out of a quick session, unless it was named.
            [] => !(quick && matches!(one, Measure::Limit | Measure::Heartbeat | Measure::Repair)),
            only => only.contains(one),
        });
        for part in chosen.flat_map(|measure| measure.parts(&self.settings)) {
            for run in 1..=runs {
                let settings = Settings { run, ..self.settings.clone() };
                for kind in kinds.iter().filter(|kind| part.fits(kind)) {
                    match part.run(&settings, kind) {
                        Ok(samples) => record.samples.extend(samples),
                        Err(why) => {
                            let failure = format!("{}, run {run} of {part:?}: {why}", kind.name);
                            eprintln!("bench: FAILED: {failure}");
                            record.failures.push(failure);
                        }
                    }
                }
            }
            self.write(&record)?;
        }
        print!("{}", (self.table)(&record));
        match record.failures.len() {
            0 => Ok(()),
            failures => Err(format!("{failures} runs failed, see above")),
        }
    }

    fn write(&self, record: &Record) -> Result<(), String> {
        if let Some(directory) = self.into.parent() {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        let json = serde_json::to_string_pretty(record).map_err(|error| error.to_string())?;
        write(&self.into.with_extension("json"), &json)?;
        write(&self.into.with_extension("md"), &(self.table)(record))?;
        write(&self.into.with_extension("svg"), &chart::svg(record))
    }
}

/// Writes `RESULTS.md` from all records and `results.svg` from the first.
///
/// # Errors
/// When a record cannot be read, or a file cannot be written.
pub(crate) fn report(records: &[PathBuf], into: &Path) -> Result<(), String> {
    let mut text = "# Results\n\n\
        What `make bench` and `make bench-peers` measured; [README.md](README.md) says how, and what \
        the rows mean.\n\n![Chart of the first table](results.svg)\n"
        .to_owned();
    for (n, path) in records.iter().enumerate() {
        let json = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let record: Record =
            serde_json::from_str(&json).map_err(|e| format!("{}: {e}", path.display()))?;
        if n == 0 {
            write(&into.join("results.svg"), &chart::svg(&record))?;
        }
        text += &format!("\n## {}\n\n{}", record.servers.join(", "), record.markdown());
    }
    write(&into.join("RESULTS.md"), &text)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
