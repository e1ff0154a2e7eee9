//! Every target for a moment: `FUZZ_SECONDS` for all of them together, and `SEED` to do it again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fantail_fuzz::{TARGETS, Target, explore};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn whatever_comes_every_reader_keeps_its_properties() {
    let seed = variable("SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(10)) / TARGETS.len() as u32;
    println!("SEED={seed}");
    for target in TARGETS {
        let inputs = explore(target, seed, time);
        println!("{:<16} {inputs:>9} inputs", target.name);
        assert!(inputs > 0);
    }
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets of one name");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let seeds: BTreeSet<String> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, seeds);
}

/// A reader that is wrong about one word in many, and slow with one kind of input.
#[test]
fn a_property_that_does_not_hold_is_found_from_seeds_that_are_well() {
    fn wrong(input: &[u8]) {
        assert!(!input.windows(4).any(|part| part == b"\r\n\r\n"), "found");
    }
    let target = Target { name: "host", run: wrong, words: &["\r\n", "a"] };
    let explored = std::panic::catch_unwind(|| explore(&target, 1, Duration::from_secs(20)));
    assert!(explored.is_err());
}
