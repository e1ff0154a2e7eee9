//! The table of deliberate breaks (`tests/breaks`, `make breaks`) does not rot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All breaks: where they are and what they say.
fn breaks() -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/breaks");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_break_can_still_be_made() {
    for (path, _) in breaks() {
        let tried = Command::new("patch")
            .args(["-p1", "--dry-run", "--force", "--fuzz=0", "-i"])
            .arg(&path)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .expect("patch is installed");
        let said = String::from_utf8_lossy(&tried.stdout);
        assert!(tried.status.success(), "{}: {said}", path.display());
    }
}

#[test]
fn every_break_says_what_it_breaks_and_names_a_test_that_exists() {
    let tests = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    for (path, text) in breaks() {
        let name = path.display();
        assert!(text.starts_with("breaks: "), "{name}");
        let caught: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("caught by: ")).collect();
        assert!(!caught.is_empty(), "{name} names no test");
        for test in caught.into_iter().filter(|test| test.starts_with("--test ")) {
            let filter = test.rsplit([' ', ':']).next().unwrap_or_default();
            let is_there = tests.contains(&format!("fn {filter}"))
                || tests.contains(&format!("mod {filter};"));
            assert!(is_there, "{name}: there is no test {filter}");
        }
    }
}

/// The text of all tests.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}
