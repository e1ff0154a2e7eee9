//! The documentation is true: every command of README.md and docs/ is run as it is printed, every
//! link leads somewhere, and what is named exists.

mod page;
mod session;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use page::{Page, Step, pages, text, top};
use session::Session;

/// Commands that this test does not run, and why.
const LEFT_OUT: [(&str, &str); 10] = [
    ("cargo run --release", "the test starts the program that is tested, on a free port"),
    ("make test", "is what runs this test"),
    ("make demo", "the test starts deploy/demo.sh on free ports where a page speaks of it"),
    ("make demo-sentinel", "the tests of deploy/ start it on free ports, and take its master away"),
    ("make load", "installs a load generator and takes minutes"),
    ("make soak", "takes more than half an hour"),
    ("make bench", "takes most of an hour"),
    ("make bench-peers", "takes hours and installs other servers"),
    (
        "cargo install --path . --locked",
        "builds for minutes and writes to the user's home; here the path leads to the program",
    ),
    (
        "fantail check https://events.example --seconds 600 --rate 1000 --publishers 32 --subscribers 500",
        "the host stands for the reader's own",
    ),
];

/// What a page may use between fences: shown, run, shown of the last stream, a page's code, and a part
/// of a settings file.
const LANGUAGES: [&str; 6] = ["", "sh", "console", "sse", "js", "toml"];

fn is_left_out(step: &Step) -> bool {
    LEFT_OUT.iter().any(|(command, _)| *command == step.without_settings().1)
}

#[test]
fn every_command_works_as_printed() {
    let run = |page: &Page| {
        let steps = page.blocks.iter().flat_map(|block| block.steps());
        if steps.filter(|step| !is_left_out(step)).count() == 0 {
            return;
        }
        let mut session = Session::of(page);
        for block in &page.blocks {
            session.run(block, is_left_out);
        }
    };
    std::thread::scope(|scope| {
        for page in pages() {
            scope.spawn(move || run(&page));
        }
    });
}

#[test]
fn what_is_not_run_is_in_the_pages_and_is_a_target_of_the_makefile() {
    let pages = pages();
    let steps: Vec<Step> =
        pages.iter().flat_map(|page| &page.blocks).flat_map(|block| block.steps()).collect();
    let makefile = text("Makefile");
    for (command, why) in LEFT_OUT {
        assert!(steps.iter().any(|step| step.without_comment() == command), "{command}: {why}");
        if let Some(target) = command.strip_prefix("make ") {
            assert!(makefile.contains(&format!("\n{target}:")), "make has no {target}");
        }
    }
    for block in pages.iter().flat_map(|page| &page.blocks) {
        assert!(LANGUAGES.contains(&block.language.as_str()), "{}: {}", block.at, block.language);
        let hidden = block.language != "console" && block.lines.iter().any(|l| l.starts_with("$ "));
        assert!(!hidden, "{}: a command that nobody runs", block.at);
    }
}

#[test]
fn what_is_shown_of_a_settings_file_can_be_read() {
    let settings = fantail::config::Config::reference();
    let variables: Vec<String> = settings.into_iter().map(|[_, variable, ..]| variable).collect();
    let pages = pages();
    let shown: Vec<_> = pages
        .iter()
        .flat_map(|page| &page.blocks)
        .filter(|block| block.language == "toml")
        .collect();
    assert!(!shown.is_empty());
    for block in shown {
        let read = fantail::config::SettingsFile::read(&block.lines.join("\n"), &variables);
        assert!(read.is_ok(), "{}: {read:?}", block.at);
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut relative = 0;
    for page in pages() {
        for target in page.links() {
            if target.starts_with("https://") {
                continue;
            }
            relative += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => page.path.clone().into(),
                path => page.resolve(path),
            };
            assert!(top().join(&path).exists(), "{}: {target} leads nowhere", page.path);
            let known = anchor.is_empty()
                || Page::read(&path.to_string_lossy()).anchors().iter().any(|a| a == anchor);
            assert!(known, "{}: {target} has no such heading", page.path);
        }
    }
    assert!(relative > 20, "only {relative} links were found");
}

#[test]
fn every_setting_that_is_named_exists() {
    let help = help(&["--help"]);
    for page in pages() {
        for variable in words(&text(&page.path), "FANTAIL_") {
            assert!(help.contains(&variable), "{}: there is no {variable}", page.path);
        }
    }
}

#[test]
fn the_table_of_metrics_is_what_the_gateway_measures() {
    let mut measured = BTreeMap::new();
    for source in sources() {
        for kind in ["gauge", "counter", "histogram"] {
            for rest in source.split(&format!("describe_{kind}!(")).skip(1) {
                let mut literals = rest.split('"').skip(1).step_by(2);
                let name = literals.next().unwrap().to_owned();
                let values = label_values(literals.next().unwrap());
                measured.insert(name, (kind.to_owned(), values));
            }
        }
    }
    let table = Page::read("docs/operations.md").table("Metrics");
    let documented = table.iter().map(|row| {
        // The first word of code is the label, the others are its values.
        let code = row[2].split('`').skip(1).step_by(2).skip(1).map(str::to_owned);
        (unquoted(&row[0]), (row[1].clone(), code.collect::<BTreeSet<String>>()))
    });
    let mut documented: BTreeMap<_, _> = documented.collect();
    for (name, (_, values)) in &mut documented {
        // Values of some labels are too many to name, or are named by their source alone.
        if measured.get(name).is_some_and(|(_, measured)| measured.is_empty()) {
            values.clear();
        }
    }
    assert_eq!(documented, measured);
    for page in pages() {
        for name in words(&text(&page.path), "fantail_") {
            assert!(measured.contains_key(&name), "{}: nobody measures {name}", page.path);
        }
    }
}

/// The values of a metric's label, as its description lists them: "…, by reason: a, b (why)".
fn label_values(description: &str) -> BTreeSet<String> {
    // In the source it may go on on the next line.
    let description = description.replace("\\\n", "");
    let Some((_, list)) = description.split_once(" by ").and_then(|(_, by)| by.split_once(": "))
    else {
        return BTreeSet::new();
    };
    let without_remarks = list.split(['(', ')']).step_by(2).collect::<String>();
    let values = without_remarks.split(',').map(|value| value.trim().to_owned());
    values.filter(|value| !value.is_empty()).collect()
}

#[test]
fn the_table_of_alerts_is_what_prometheus_is_told() {
    let rules = text("deploy/prometheus/alerts.yml");
    let rules: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let table = Page::read("docs/operations.md").table("Alerts");
    let documented: BTreeSet<String> = table.iter().map(|row| unquoted(&row[0])).collect();
    assert_eq!(documented.iter().map(String::as_str).collect::<BTreeSet<_>>(), rules);
}

#[test]
fn every_path_is_documented_and_every_documented_path_exists() {
    let mut routes = BTreeSet::new();
    for source in sources() {
        // Each by the one name that makes one, or by a shorter name for that.
        for begins in ["Route::new(\"/", " route(\"/"] {
            let paths = source.split(begins).skip(1);
            routes.extend(paths.map(|rest| format!("/{}", rest.split('"').next().unwrap())));
        }
    }
    for of_the_page in ["/", "/app.js", "/style.css", "/favicon.svg"] {
        assert!(routes.remove(of_the_page), "{of_the_page}");
    }
    let api = Page::read("docs/api.md");
    let documented = api.code().filter_map(|code| {
        let (method, path) = code.split_once(" /")?;
        let is_method = ["GET", "POST", "PATCH", "DELETE"].contains(&method);
        is_method.then(|| format!("/{}", path.split('?').next().unwrap_or_default()))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), routes);
}

#[test]
fn every_problem_that_is_documented_exists() {
    let sources = sources();
    let table = Page::read("docs/api.md").table("Errors");
    assert!(table.len() > 10);
    for row in table {
        for kind in row[1].split(", ").map(unquoted) {
            let literal = format!("\"{kind}\"");
            assert!(sources.iter().any(|source| source.contains(&literal)), "{kind}");
        }
    }
}

#[test]
fn every_key_that_is_documented_exists() {
    let sources: String = sources().concat();
    let table = Page::read("docs/operations.md").table("Redis");
    assert!(table.len() > 10);
    for row in table {
        for key in row[0].split(", ").map(unquoted) {
            // `…` stands for the beginning of the key before it.
            let name =
                key.rsplit_once("}:").map_or(key.trim_start_matches("…:"), |(_, name)| name);
            let name = name.split('<').next().unwrap_or_default();
            assert!(sources.contains(&format!("\"{name}")), "{key}: {name}");
        }
    }
}

#[test]
fn the_table_of_options_is_what_the_check_takes() {
    let help = help(&["check", "--help"]);
    let options: BTreeSet<String> = words(&help, "--").into_iter().collect();
    let table = Page::read("docs/check.md").table("Options");
    let mut documented: BTreeSet<String> = table.iter().map(|row| unquoted(&row[0])).collect();
    for row in &table {
        let default = format!("[default: {}]", unquoted(&row[1]));
        let line =
            help.lines().find(|line| line.trim().starts_with(&format!("{} ", unquoted(&row[0]))));
        let line = line.unwrap_or_default();
        let is_default = row[1].starts_with('`');
        assert!(!is_default || line.contains(&default), "{row:?}: {line}");
    }
    documented.insert("--help".to_owned());
    assert_eq!(documented, options);
}

#[test]
fn the_figures_are_those_that_were_measured() {
    let results = text("bench/RESULTS.md").replace('\u{a0}', " ");
    let mut figures = 0;
    let page = Page::read("docs/benchmarks.md");
    let tables = ["Benchmarks", "How many reactors", "Compression", "With a token for each stream"];
    for row in tables.iter().flat_map(|heading| page.table(heading)) {
        for figure in row[1..].iter().filter(|figure| !figure.is_empty()) {
            let measured = results.contains(&format!("**{figure}**"));
            assert!(measured, "{figure} ({}) is not in bench/RESULTS.md (any more)", row[0]);
            figures += 1;
        }
    }
    assert!(figures > 40);
}

/// The source files of the gateway.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    let mut directories = vec![top().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "lua") {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

fn help(arguments: &[&str]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_fantail"));
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn unquoted(code: &str) -> String {
    code.trim().trim_matches('`').to_owned()
}

/// Words of `text` that begin with `prefix`.
fn words(text: &str, prefix: &str) -> Vec<String> {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let found = text.match_indices(prefix).filter(|(at, _)| !text[..*at].ends_with(belongs));
    let word = |(at, _): (usize, &str)| {
        let end = text[at..].find(|c: char| !belongs(c)).unwrap_or(text.len() - at);
        text[at..at + end].to_owned()
    };
    found.map(word).filter(|word| word.len() > prefix.len()).collect()
}
