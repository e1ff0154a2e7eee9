//! [`Sample`]: one number that was measured.

use serde::{Deserialize, Serialize};

/// One number of one run of one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Which measure: a row's group in the table.
    pub measure: String,
    /// Its case, such as how many topics and streams.
    pub case: String,
    /// What was measured, with its unit.
    pub metric: String,
    /// Whose it is.
    pub server: String,
    /// Which repetition, from 1 on.
    pub run: usize,
    /// The number.
    pub value: f64,
}

/// Collects the samples of one measure of one server.
pub(crate) struct Samples {
    measure: &'static str,
    server: String,
    run: usize,
    /// What was collected.
    pub all: Vec<Sample>,
}

impl Samples {
    /// Nothing yet.
    pub(crate) fn new(measure: &'static str, server: &str, run: usize) -> Samples {
        Samples { measure, server: server.to_owned(), run, all: Vec::new() }
    }

    /// One more number; also said at once on standard error, since a run takes long.
    pub(crate) fn add(&mut self, case: &str, metric: &str, value: f64) {
        let Samples { measure, server, run, .. } = self;
        eprintln!("  {measure:10} {server:18} {case:32} {metric:40} {value:12.3}");
        self.all.push(Sample {
            measure: (*measure).to_owned(),
            case: case.to_owned(),
            metric: metric.to_owned(),
            server: server.clone(),
            run: *run,
            value,
        });
    }
}
