//! [`explore()`]: gives a target its seeds, and then altered ones until the time is up.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Target;
use crate::mutate::mutate;

/// How many altered inputs are altered further, besides the seeds.
const KEPT_MAX: usize = 64;

/// Explores for this long; returns how many inputs it gave. `seed` decides which those are.
///
/// # Panics
/// A property does not hold. The input is in a file then, whose name is printed.
pub fn explore(target: &Target, seed: u64, time: Duration) -> u64 {
    let seeds = target.seeds().unwrap_or_else(|error| panic!("seeds of {}: {error}", target.name));
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let mut rng = Rng::with_seed(seed);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut inputs = 0;
    for input in &seeds {
        give(target, input);
        inputs += 1;
    }
    let until = Instant::now() + time;
    while Instant::now() < until {
        let chosen = rng.usize(..seeds.len() + kept.len());
        let mut input = seeds.get(chosen).unwrap_or_else(|| &kept[chosen - seeds.len()]).clone();
        mutate(&mut rng, &mut input, &seeds, target.words);
        give(target, &input);
        inputs += 1;
        // Short ones: long ones are made of them.
        if input.len() <= 1 << 10 && rng.u32(..16) == 0 {
            if kept.len() == KEPT_MAX {
                kept.swap_remove(rng.usize(..KEPT_MAX));
            }
            kept.push(input);
        }
    }
    inputs
}

fn give(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.check(input))) {
        let file = keep(target, input);
        println!("{}: the input is in {}", target.name, file.display());
        resume_unwind(panic);
    }
}

/// Writes an input down that a property does not hold for.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz/found");
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let file = dir.join(format!("{}-{hash:016x}", target.name));
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, input));
    if let Err(error) = written {
        println!("{error}; it is {:?}", String::from_utf8_lossy(input));
    }
    file
}
