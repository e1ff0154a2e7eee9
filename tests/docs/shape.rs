//! Whether an output is the one that a page shows. Epochs, times and names of nodes differ from run
//! to run; `…` stands for what a page leaves out, on a line of its own for any number of lines.

/// What a page writes in place of what it leaves out.
const LEFT_OUT: &str = "…";

/// What becomes of numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// They must be the same: they are what the gateway does.
    Exact,
    /// They are measured, and differ from run to run.
    Measured,
}

/// Whether `actual` is what a page shows as `shown`.
pub(crate) fn matches(shown: &[String], actual: &[String], numbers: Numbers) -> bool {
    match (shown, actual) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == LEFT_OUT => {
            (0..=actual.len()).any(|left_out| matches(rest, &actual[left_out..], numbers))
        }
        ([first, rest @ ..], [line, lines @ ..]) => {
            let (first, line) = (comparable(first, numbers), comparable(line, numbers));
            line_matches(&first, &line) && matches(rest, lines, numbers)
        }
        _ => false,
    }
}

fn line_matches(shown: &str, actual: &str) -> bool {
    match shown.split_once(LEFT_OUT) {
        None => shown == actual,
        Some((begin, rest)) => actual.strip_prefix(begin).is_some_and(|left| {
            left.char_indices()
                .map(|(at, _)| at)
                .chain([left.len()])
                .any(|at| line_matches(rest, &left[at..]))
        }),
    }
}

/// A line without what differs from run to run.
fn comparable(line: &str, numbers: Numbers) -> String {
    let mut line = line.trim_end_matches('\r').to_owned();
    for (before, after) in [
        (r#""node":""#, '"'),
        (r#""nodes":{""#, '"'),
        (r#""milliseconds":"#, '}'),
        (r#""canaryAgeSeconds":"#, ','),
        // The random name of a check.
        ("run          ", ':'),
    ] {
        line = without_value(&line, before, after);
    }
    let line = without_times_and_epochs(&line);
    if numbers == Numbers::Exact {
        return line;
    }
    let mut measured: Vec<char> =
        line.chars().map(|c| if c.is_ascii_digit() || c == '.' { '#' } else { c }).collect();
    measured.dedup_by(|a, b| *a == '#' && *b == '#');
    measured.into_iter().collect()
}

/// Takes out what stands between `before` and the next `after`, if it is there.
fn without_value(line: &str, before: &str, after: char) -> String {
    let Some((begin, rest)) = line.split_once(before) else { return line.to_owned() };
    match rest.find(after) {
        Some(end) => format!("{begin}{before}*{}", &rest[end..]),
        None => line.to_owned(),
    }
}

fn without_times_and_epochs(line: &str) -> String {
    let mut out = String::new();
    let mut left = line;
    while let Some(c) = left.chars().next() {
        let begins_word = !out.ends_with(|c: char| c.is_ascii_alphanumeric());
        if begins_word && let Some(rest) = after_time(left) {
            out.push_str("TIME");
            left = rest;
        } else if begins_word && let Some((seq, rest)) = after_position(left) {
            out.push_str(seq);
            out.push_str("-EPOCH");
            left = rest;
        } else {
            out.push(c);
            left = &left[c.len_utf8()..];
        }
    }
    out
}

/// What follows a time such as `2026-11-21T07:10:38.721Z`.
fn after_time(text: &str) -> Option<&str> {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    let time = text.get(..pattern.len())?;
    let fits = time.chars().zip(pattern.chars()).all(|(c, p)| match p {
        'd' => c.is_ascii_digit(),
        p => c == p,
    });
    fits.then(|| &text[pattern.len()..])
}

/// The number of a position such as `42-k3f9aa`, and what follows the position.
fn after_position(text: &str) -> Option<(&str, &str)> {
    let (seq, rest) = text.split_once('-')?;
    let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (epoch, rest) = rest.split_at(length);
    let fits = !seq.is_empty()
        && seq.bytes().all(|b| b.is_ascii_digit())
        && (4..=8).contains(&epoch.len())
        && epoch.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    fits.then_some((seq, rest))
}

#[test]
fn what_differs_from_run_to_run_does_not_count_and_everything_else_does() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let is = |shown, actual| matches(&lines(shown), &lines(actual), Numbers::Exact);
    assert!(is("id: 1-exu87a", "id: 1-k3f9aa\r"));
    assert!(!is("id: 1-exu87a", "id: 2-exu87a"));
    assert!(!is("id: 1-exu87a", "id: 1"));
    assert!(is("a:1-aaaa,b:2-bbbb", "a:1-cccc,b:2-dddd"));
    assert!(is(r#"{"at":"2026-11-21T07:10:38.721Z"}"#, r#"{"at":"2027-01-02T00:00:00.000Z"}"#));
    assert!(is(r#"{"node":"a"}"#, r#"{"node":"b-c"}"#));
    assert!(!is(r#"{"node":"a"}"#, r#"{"node":"b-c","more":1}"#));
    assert!(is("a…c…e\n…\nz", "abcde\n1\n2\nz"));
    assert!(is("a\n…\nz", "a\nz"));
    assert!(!is("a…c…e", "abde"));
    assert!(!is("a\n…\nz", "a\nz\nb"));
    assert!(!is("a", "a\nb"));
    let measured = |shown, actual| matches(&lines(shown), &lines(actual), Numbers::Measured);
    assert!(measured("lag p50 0.6 ms, 10 seen", "lag p50 12 ms, 9999 seen"));
    assert!(!measured("lag p50 0.6 ms", "lag p99 none"));
}
