//! Two builds of Fantail side by side: what a change did.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::report::{Record, number};
use crate::server::Kind;

/// The reference, and the two builds as columns on each log.
const PAIRS: [(&str, &str, &str); 2] =
    [("fantail", "before", "after"), ("fantail-embedded", "before, embedded", "after, embedded")];

/// The servers to compare: the reference, and both builds with Redis and with the embedded log.
///
/// # Errors
/// When a build is not there.
pub(crate) fn kinds(builds: &[PathBuf]) -> Result<Vec<Kind>, String> {
    let build = |n: usize| match builds.get(n).map(PathBuf::as_path).map(present).transpose()? {
        Some(path) => Ok::<_, String>(format!("@{}", path.display())),
        // The one beside this program.
        None => Ok(String::new()),
    };
    let (before, after) = (build(0)?, build(1)?);
    let mut kinds = vec!["reference".parse()?];
    for (server, name_before, name_after) in PAIRS {
        kinds.push(format!("{name_before}={server}{before}").parse()?);
        kinds.push(format!("{name_after}={server}{after}").parse()?);
    }
    Ok(kinds)
}

fn present(path: &Path) -> Result<&Path, String> {
    if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
}

/// The medians of both builds, the second's divided by the first's, and the first column's beside
/// them. A quotient is bold where the two spreads do not overlap.
pub(crate) fn table(record: &Record) -> String {
    let reference = "reference";
    let mut text = format!("| | {reference} |");
    for (_, before, after) in PAIRS {
        let _ = write!(text, " {before} | {after} | after ÷ before |");
    }
    text += "\n|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in record.rows() {
        let _ = write!(text, "| {}: {}: {} |", row.measure, row.case, row.metric);
        let cell = |spread: Option<[f64; 3]>| match spread.map(|spread| spread.map(number)) {
            None => " – |".to_owned(),
            Some([median, least, most]) if least == most => format!(" {median} |"),
            Some([median, least, most]) => format!(" {median} ({least}–{most}) |"),
        };
        text += &cell(record.spread(&row, reference));
        for (_, before, after) in PAIRS {
            let [before, after] = [before, after].map(|server| record.spread(&row, server));
            text += &cell(before);
            text += &cell(after);
            text += &match before.zip(after) {
                Some((before, after)) if before[0] > 0.0 => {
                    let quotient = format!("×{:.2}", after[0] / before[0]);
                    let apart = after[1] > before[2] || after[2] < before[1];
                    if apart { format!(" **{quotient}** |") } else { format!(" {quotient} |") }
                }
                _ => " – |".to_owned(),
            };
        }
        text.push('\n');
    }
    text += "\nMedians; in brackets the least and the greatest of all runs. A quotient is bold where \
             these do not overlap.\n\n";
    text += &record.facts_and_failures();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn quotients_are_bold_where_spreads_do_not_overlap() {
        let mut samples = Vec::new();
        for (server, values) in [
            ("before", [4.0, 6.0, 5.0]),
            ("after", [2.0, 3.0, 2.5]),
            ("before, embedded", [4.0, 6.0, 5.0]),
            ("after, embedded", [4.5, 7.0, 5.5]),
        ] {
            for (n, value) in values.into_iter().enumerate() {
                let [measure, case, metric] = ["m", "c", "ms"].map(str::to_owned);
                let server = server.to_owned();
                samples.push(Sample { measure, case, metric, server, run: n + 1, value });
            }
        }
        let record = Record {
            date: "now".to_owned(),
            facts: vec![("kernel".to_owned(), "6".to_owned())],
            servers: Vec::new(),
            samples,
            failures: vec!["after: gone".to_owned()],
        };
        let text = table(&record);
        let row = "| m: c: ms | – | 5.00 (4.00–6.00) | 2.50 (2.00–3.00) | **×0.50** | \
                   5.00 (4.00–6.00) | 5.50 (4.50–7.00) | ×1.10 |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("- kernel: 6") && text.contains("- after: gone"), "{text}");
    }

    #[test]
    fn a_build_that_is_not_there_is_named() {
        let why = kinds(&[PathBuf::from("/nowhere/fantail")]).unwrap_err();
        assert_eq!(why, "there is no /nowhere/fantail");
    }
}
