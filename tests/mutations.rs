//! Deliberate mistakes, each of which a test must catch.
//!
//! `tests/mutations` has a file for each: what the mistake breaks, the tests that must catch it,
//! and which text of which file is replaced by which. Whitespace does not count, so that a
//! mutation outlives a change of indentation. The first two tests see to it that the table does not
//! rot. The last one is `make mutations`: it makes one mistake after the other in copies of the
//! project, and fails if a test does not mind.
//!
//! - `MUTATIONS="no-audit gap-ignored"` makes these alone.
//! - `WORKERS=1` works in one copy only. They are under `target/mutations`, and stay there so that
//!   the next run builds less.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a test may see nothing before a mutation is called missed.
const RUNS_MAX: usize = 3;

/// A test that takes longer hangs, which is a way of noticing, too.
const SECONDS_MAX: &str = "300";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// The name of its file.
    #[serde(skip)]
    name: String,
    breaks: String,
    /// What stands behind `cargo test` to run each of the tests.
    #[serde(rename = "caught by")]
    caught_by: Vec<String>,
    file: PathBuf,
    before: String,
    after: String,
}

impl Mutation {
    /// All in `tests/mutations`, in the order of their names.
    fn all() -> Vec<Mutation> {
        let files = fs::read_dir(root().join("tests/mutations")).unwrap();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let read = yaml_serde::from_str(&text);
            let mutation: Mutation = read.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            Mutation { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), ..mutation }
        };
        let mut all: Vec<_> = files.map(|file| read(file.unwrap().path())).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The text of its file with the mistake in it.
    fn apply(&self, source: &str) -> Result<String, String> {
        let compared: Vec<(usize, char)> =
            source.char_indices().filter(|(_, c)| !c.is_whitespace()).collect();
        let before: Vec<char> = self.before.chars().filter(|c| !c.is_whitespace()).collect();
        assert!(!before.is_empty(), "{}: nothing to replace", self.name);
        let found: Vec<_> = compared
            .windows(before.len())
            .filter(|window| window.iter().map(|(_, c)| c).eq(&before))
            .collect();
        let [window] = found[..] else {
            return Err(format!("its text is there {} times, not once", found.len()));
        };
        let (start, (last, c)) = (window[0].0, window[before.len() - 1]);
        Ok([&source[..start], &self.after, &source[last + c.len_utf8()..]].concat())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_mutation_can_still_be_made() {
    let mut broken = Vec::new();
    for mutation in Mutation::all() {
        let made = match fs::read_to_string(root().join(&mutation.file)) {
            Ok(source) => mutation.apply(&source).map(|mutated| assert_ne!(mutated, source)),
            Err(error) => Err(error.to_string()),
        };
        broken.extend(made.err().map(|error| {
            format!("tests/mutations/{}.yaml: {}: {error}", mutation.name, mutation.file.display())
        }));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_mutation_says_what_it_breaks_and_names_tests_that_exist() {
    for Mutation { name, breaks, caught_by, .. } in Mutation::all() {
        assert!(breaks.ends_with('.'), "{name}: {breaks:?}");
        assert!(!caught_by.is_empty(), "{name} names no test");
        for test in caught_by {
            let (sources, filter) = match test.split(' ').collect::<Vec<_>>()[..] {
                ["--lib", filter] => (sources(&root().join("src")), filter),
                ["-p", package, "--lib", filter] => {
                    let package = package.trim_start_matches("fantail-");
                    (sources(&root().join(package).join("src")), filter)
                }
                ["--test", program, filter] => {
                    (sources(&root().join("tests").join(program)), filter)
                }
                _ => panic!("{name}: {test:?} is not understood"),
            };
            assert!(has_test(sources, filter), "{name}: there is no test for {test:?}");
        }
    }
}

/// Whether one of these files has a test or a module with tests whose path contains `filter`, of
/// which the last part may be the beginning of a name.
fn has_test(mut sources: Vec<(PathBuf, String)>, filter: &str) -> bool {
    let (modules, last) = filter.rsplit_once("::").unwrap_or(("", filter));
    for module in modules.split("::").filter(|module| !module.is_empty()) {
        let is_file = |path: &Path| path.with_extension("").iter().any(|part| part == module);
        // Otherwise it stands within a file: `mod tests`.
        let inline = format!("mod {module} {{");
        sources.retain(|(path, text)| is_file(path) || text.contains(&inline));
    }
    let is_module = |path: &Path| path.file_stem().is_some_and(|stem| stem == last);
    let names = ["fn ", "mod "].map(|keyword| format!("{keyword}{last}"));
    let has_name = |text: &str| names.iter().any(|name| text.contains(name));
    sources.iter().any(|(path, text)| has_name(text) || is_module(path))
}

/// All Rust files under `dir`, or the one that has its name.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let file = dir.with_extension("rs");
    if !dir.is_dir() {
        return vec![(file.clone(), fs::read_to_string(file).unwrap())];
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            all.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    all
}

// --- Making them -----------------------------------------------------------------------------

#[test]
#[ignore = "builds the gateway anew for each of them: make mutations"]
fn every_mutation_is_caught() {
    let mut mutations = Mutation::all();
    if let Ok(names) = std::env::var("MUTATIONS") {
        let names: Vec<&str> = names.split_whitespace().collect();
        if !names.is_empty() {
            mutations.retain(|mutation| names.contains(&mutation.name.as_str()));
            assert_eq!(mutations.len(), names.len(), "not all of these exist: {names:?}");
        }
    }
    let workers = std::env::var("WORKERS").map_or(2, |workers| workers.parse().unwrap());
    let began_at = Instant::now();
    let queue = Mutex::new(VecDeque::from(mutations));
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (queue, results) = (&queue, &results);
            scope.spawn(move || {
                let copy = Copy::make(worker);
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(mutation) = next else { return };
                    for result in copy.make_mutation(&mutation) {
                        println!("{result}");
                        results.lock().unwrap().push(result);
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by(|one, other| (&one.mutation, &one.test).cmp(&(&other.mutation, &other.test)));
    println!("\n{:<33} {:<8} {:>5} {:>5}  test", "mutation", "outcome", "build", "test");
    results.iter().for_each(|result| println!("{result}"));
    println!("{} seconds", began_at.elapsed().as_secs());
    let missed: Vec<_> = results.iter().filter(|result| !result.outcome.is_good()).collect();
    assert!(missed.is_empty(), "{} were not caught", missed.len());
}

/// What became of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Caught,
    Hangs,
    /// The test passes.
    Missed,
    /// The text to replace is not there once.
    Stale,
    /// It does not compile.
    Broken,
    /// There is no such test.
    Untested,
}

impl Outcome {
    fn is_good(self) -> bool {
        matches!(self, Outcome::Caught | Outcome::Hangs)
    }
}

struct TestResult {
    mutation: String,
    test: String,
    outcome: Outcome,
    build_time: Duration,
    test_time: Duration,
}

impl std::fmt::Display for TestResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = format!("{:?}", self.outcome).to_lowercase();
        let (build, test) = (self.build_time.as_secs_f32(), self.test_time.as_secs_f32());
        write!(f, "{:<33} {outcome:<8} {build:>5.1} {test:>5.1}  {}", self.mutation, self.test)
    }
}

/// A copy of the project, with a target directory of its own.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
    logs: PathBuf,
}

impl Copy {
    fn make(worker: usize) -> Copy {
        let here = root().join(format!("target/mutations/{worker}"));
        let copy = Copy {
            tree: here.join("tree"),
            target: here.join("target"),
            logs: root().join("target/mutations/logs"),
        };
        fs::create_dir_all(&copy.logs).unwrap();
        let _ = fs::remove_dir_all(&copy.tree);
        fs::create_dir_all(&copy.tree).unwrap();
        // With their times, so that what has not changed is not built again.
        let pack =
            "tar -C \"$0\" --exclude=./target --exclude=./.git -cf - . | tar -C \"$1\" -xf -";
        sh(pack, [root(), &copy.tree]);
        // The dependencies are built already as a rule. Nobody writes to them, so links will do; test
        // programs are left out.
        if !copy.target.exists() {
            fs::create_dir_all(copy.target.join("debug/deps")).unwrap();
            let seed = "[ -d \"$0/debug/deps\" ] || exit 0; \
                        cp -a \"$0/debug/.fingerprint\" \"$0/debug/build\" \"$1/debug\"; \
                        find \"$0/debug/deps\" -name '*.*' -exec cp -al -t \"$1/debug/deps\" {} +";
            sh(seed, [&root().join("target"), &copy.target]);
        }
        // The time of a file that an earlier run has mutated must not be the one of before.
        for Mutation { file, .. } in Mutation::all() {
            let path = copy.tree.join(file);
            if let Ok(source) = fs::read(&path) {
                fs::write(path, source).unwrap();
            }
        }
        copy
    }

    fn make_mutation(&self, mutation: &Mutation) -> Vec<TestResult> {
        let path = self.tree.join(&mutation.file);
        let source = fs::read_to_string(&path).unwrap();
        let result = |test: &str, outcome| TestResult {
            mutation: mutation.name.clone(),
            test: test.to_owned(),
            outcome,
            build_time: Duration::ZERO,
            test_time: Duration::ZERO,
        };
        let Ok(mutated) = mutation.apply(&source) else { return vec![result("", Outcome::Stale)] };
        fs::write(&path, mutated).unwrap();
        let test = |test: &String| self.test(&mutation.name, test, result(test, Outcome::Missed));
        let results = mutation.caught_by.iter().map(test).collect();
        fs::write(&path, source).unwrap();
        results
    }

    fn test(&self, name: &str, test: &str, mut result: TestResult) -> TestResult {
        let words: Vec<&str> = test.split(' ').collect();
        let log = self.logs.join(format!("{name}.log"));
        let run = |program: &[&str], words: &[&str]| {
            let began_at = Instant::now();
            let output = fs::File::create(&log).unwrap();
            let status = Command::new(program[0])
                .args(&program[1..])
                .args(words)
                .current_dir(&self.tree)
                .env("CARGO_TARGET_DIR", &self.target)
                .env("RUST_BACKTRACE", "0")
                // What would never happen is not waited for as long as on a busy machine.
                .env("TIMEOUT_SECONDS", "15")
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output)
                .status()
                .unwrap();
            (status.code(), began_at.elapsed())
        };
        // The last word is the filter, the ones before say which program.
        let build = ["cargo", "test", "-q", "--no-run"];
        let (built, build_time) = run(&build, &words[..words.len() - 1]);
        result.build_time = build_time;
        if built != Some(0) {
            result.outcome = Outcome::Broken;
            return result;
        }
        // Simulations and property tests look elsewhere each time, so one that sees nothing once is
        // asked again.
        let mut status = Some(0);
        for _ in 0..RUNS_MAX {
            let (ended, took) = run(&["timeout", SECONDS_MAX, "cargo", "test", "-q"], &words);
            status = ended;
            result.test_time += took;
            if status != Some(0) {
                break;
            }
        }
        let said = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        let has_tested = said.lines().any(|line| {
            line.strip_prefix("running ").is_some_and(|count| !count.starts_with("0 "))
        });
        result.outcome = match status {
            Some(124) => Outcome::Hangs,
            _ if !has_tested => Outcome::Untested,
            Some(0) => Outcome::Missed,
            _ => Outcome::Caught,
        };
        result
    }
}

fn sh(script: &str, arguments: [&Path; 2]) {
    let status = Command::new("sh").arg("-c").arg(script).args(arguments).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}
