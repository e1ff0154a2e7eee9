//! [`Record`]: everything a session measured, with where and when, and its table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::process;
use crate::sample::Sample;
use crate::server::Kind;

/// One session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it began, in UTC.
    pub date: String,
    /// Facts about the machine and the programs: name, value.
    pub facts: Vec<(String, String)>,
    /// The servers in the order of the columns; the first is what others are compared with.
    pub servers: Vec<String>,
    /// All numbers.
    pub samples: Vec<Sample>,
    /// What went wrong: one sentence each.
    pub failures: Vec<String>,
}

impl Record {
    /// Nothing measured yet, on this machine.
    pub(crate) fn new(servers: &[Kind], descriptors: usize) -> Record {
        let mut facts = Vec::new();
        let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let model = model.map_or("unknown", |(_, model)| model);
        fact("processor", format!("{model}, {cores} cores"));
        let memory = read("/proc/meminfo");
        let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        fact("memory", format!("{:.1} GiB", memory.unwrap_or_default() / 1024.0 / 1024.0));
        let system = rustix::system::uname();
        fact("kernel", system.release().to_string_lossy().into_owned());
        let load: Vec<String> =
            read("/proc/loadavg").split(' ').take(3).map(str::to_owned).collect();
        fact("load before the session", load.join(" "));
        fact("open files a process", descriptors.to_string());
        fact("commit", process::first_line_of("git", &["describe", "--always", "--dirty"]));
        for server in servers {
            if let Some((program, version)) = server.version() {
                fact(&program, version);
            }
        }
        if servers.iter().any(Kind::has_redis) {
            fact("Redis", process::first_line_of("redis-server", &["--version"]));
        }
        for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("FANTAIL_")) {
            fact(&name, value);
        }
        facts.dedup();
        let servers = servers.iter().map(|server| server.name.clone()).collect();
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        Record { date, facts, servers, samples: Vec::new(), failures: Vec::new() }
    }

    /// The median of a server's numbers, with the least and the greatest.
    pub(crate) fn spread(&self, row: &Row, server: &str) -> Option<[f64; 3]> {
        let own =
            self.samples.iter().filter(|sample| sample.server == server && Row::of(sample) == *row);
        let mut values: Vec<f64> = own.map(|sample| sample.value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            length if length % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some([median, values[0], values[values.len() - 1]])
    }

    /// All rows, in the order in which they were measured.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut seen = BTreeMap::new();
        for sample in &self.samples {
            let row = Row::of(sample);
            if seen.insert(row.clone(), ()).is_none() {
                rows.push(row);
            }
        }
        // Rows that only some servers have come behind those of their measure.
        let first = |row: &Row| self.samples.iter().position(|s| s.measure == row.measure);
        rows.sort_by_key(first);
        rows
    }

    /// What was measured, as one Markdown table, with the machine below it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "| | {} |", self.servers.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|".repeat(self.servers.len()));
        for row in self.rows() {
            let _ = write!(text, "| {}: {}: {} |", row.measure, row.case, row.metric);
            let base = self.servers.first().and_then(|base| self.spread(&row, base));
            for (column, server) in self.servers.iter().enumerate() {
                let Some(spread) = self.spread(&row, server) else {
                    text += " – |";
                    continue;
                };
                let [median, least, most] = spread.map(number);
                let _ = write!(text, " **{median}**");
                if least != most {
                    let _ = write!(text, " ({least}–{most})");
                }
                if let Some([base, ..]) = base
                    && column > 0
                    && base > 0.0
                {
                    let _ = write!(text, " ×{:.2}", spread[0] / base);
                }
                text += " |";
            }
            text.push('\n');
        }
        text.push('\n');
        let runs = self.samples.iter().map(|sample| sample.run).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "Medians of {runs} run{}, in which the servers took turns; in brackets the least and \
             the greatest; behind × the median divided by that of {}.\n",
            if runs == 1 { "" } else { "s" },
            self.servers.first().map_or("the first", String::as_str)
        );
        text += &self.facts_and_failures();
        text
    }

    /// Where and when it was measured, and what went wrong, as Markdown lists.
    pub(crate) fn facts_and_failures(&self) -> String {
        let mut text = format!("- date: {}\n", self.date);
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        if !self.failures.is_empty() {
            text += "\nWhat failed, and is not in the table:\n\n";
            for failure in &self.failures {
                let _ = writeln!(text, "- {failure}");
            }
        }
        text
    }
}

/// What a row of the table is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The measure.
    pub measure: String,
    /// Its case.
    pub case: String,
    /// What was measured, with its unit.
    pub metric: String,
}

impl Row {
    fn of(sample: &Sample) -> Row {
        let Sample { measure, case, metric, .. } = sample;
        Row { measure: measure.clone(), case: case.clone(), metric: metric.clone() }
    }
}

/// Three significant digits, without an exponent.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        0.0 => 0,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    // Thousands apart, by a space that does not break.
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(w, r)| (w, r));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut spaced = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            spaced.push('\u{a0}');
        }
        spaced.push(digit);
    }
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{spaced}{point}{rest}")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_spreads_and_ratios_to_the_first_server() {
        let sample = |server: &str, run, value| Sample {
            measure: "fanout".to_owned(),
            case: "1 × 1000".to_owned(),
            metric: "CPU s".to_owned(),
            server: server.to_owned(),
            run,
            value,
        };
        let samples = vec![
            sample("a", 1, 2.0),
            sample("b", 1, 9.0),
            sample("a", 2, 4.0),
            sample("b", 2, 9.0),
        ];
        let servers = ["a", "b", "c"].map(str::to_owned).to_vec();
        let record = Record {
            date: "now".to_owned(),
            facts: Vec::new(),
            servers,
            samples,
            failures: vec!["c: gone".to_owned()],
        };
        let text = record.markdown();
        let row = "| fanout: 1 × 1000: CPU s | **3.00** (2.00–4.00) | **9.00** ×3.00 | – |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("- c: gone"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        for (value, text) in [
            (0.0, "0"),
            (0.12345, "0.123"),
            (5.678, "5.68"),
            (56.78, "56.8"),
            (567.8, "568"),
            (1_234_567.0, "1\u{a0}234\u{a0}567"),
            (-1234.0, "-1\u{a0}234"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
