//! The chart of a [`Record`]: the few rows that say most, as bars.

use std::fmt::Write as _;

use crate::report::{Record, Row, number};

/// What is drawn, if it was measured: rows whose metric is one of these.
const METRICS: [(&str, &str); 4] = [
    ("fanout", "CPU s per million deliveries"),
    ("fanout", "latency p99 ms"),
    ("memory", "user memory bytes per stream"),
    ("limit", "highest rate, deliveries/s"),
];
const COLOURS: [&str; 10] = [
    "#8a8f98", "#b9bec7", "#d9480f", "#f2a65a", "#6b9f5b", "#3b7ea1", "#c9a227", "#8e6bbf",
    "#2a9d8f", "#c06c84",
];
const WIDTH: usize = 900;
const LABEL_WIDTH: usize = 230;
const BAR_WIDTH: usize = WIDTH - LABEL_WIDTH - 140;
/// Servers in a line of the legend.
const LEGEND_COLUMNS: usize = 4;
/// Bars of more than so many times the first server's are cut at the edge, so that the others can be
/// told apart.
const TIMES_MAX: f64 = 10.0;
const BAR_HEIGHT: usize = 14;

/// The chart as an SVG document. Bars end at the median, thin lines span the least and the
/// greatest of all runs; every panel has its own scale from 0.
pub(crate) fn svg(record: &Record) -> String {
    let rows = record.rows();
    let mut body = String::new();
    let mut y = 30;
    for (n, server) in record.servers.iter().enumerate() {
        if n > 0 && n % LEGEND_COLUMNS == 0 {
            y += 20;
        }
        let x = 10 + n % LEGEND_COLUMNS * (WIDTH - 20) / LEGEND_COLUMNS;
        let _ = writeln!(
            body,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"{y}\">{server}</text>",
            y - 11,
            COLOURS[n % COLOURS.len()],
            x + 18
        );
    }
    for (measure, metric) in METRICS {
        let rows: Vec<&Row> =
            rows.iter().filter(|row| row.measure == measure && row.metric == metric).collect();
        if rows.is_empty() {
            continue;
        }
        y += 36;
        let _ =
            writeln!(body, "<text x=\"10\" y=\"{y}\" class=\"title\">{measure}: {metric}</text>");
        y += 8;
        let all = rows.iter().flat_map(|row| {
            let medians = record.servers.iter().filter_map(|server| record.spread(row, server));
            let medians: Vec<f64> = medians.map(|[median, ..]| median).collect();
            let longest = medians.first().map_or(f64::MAX, |first| first * TIMES_MAX);
            medians.into_iter().filter(move |median| *median <= longest)
        });
        let most = all.fold(f64::MIN_POSITIVE, f64::max);
        // What one run had beyond all medians is cut at the edge.
        let scale = |value: f64| LABEL_WIDTH as f64 + (value / most).min(1.12) * BAR_WIDTH as f64;
        for row in rows {
            let _ = writeln!(body, "<text x=\"10\" y=\"{}\">{}</text>", y + BAR_HEIGHT, row.case);
            for (n, server) in record.servers.iter().enumerate() {
                let Some([median, least, greatest]) = record.spread(row, server) else { continue };
                let middle = y + BAR_HEIGHT / 2;
                let _ = writeln!(
                    body,
                    "<rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                     <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
                     <text x=\"{:.1}\" y=\"{}\">{}</text>",
                    scale(median) - LABEL_WIDTH as f64,
                    BAR_HEIGHT - 2,
                    COLOURS[n % COLOURS.len()],
                    scale(least),
                    scale(greatest),
                    scale(greatest) + 5.0,
                    y + BAR_HEIGHT - 3,
                    number(median)
                );
                y += BAR_HEIGHT;
            }
            y += 6;
        }
    }
    let height = y + 16;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>text {{ font: 12px sans-serif; fill: #222 }} .title {{ font-weight: bold }} \
         line {{ stroke: #222 }}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}
