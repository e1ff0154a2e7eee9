//! libFuzzer over one target, the one that `FUZZ_TARGET` names: what reaches new code is kept and
//! altered further. `fuzz/run.sh` builds it so that it can see what is reached.

#![no_main]
#![allow(unsafe_code, reason = "libFuzzer finds what it calls by its name")]

use std::sync::LazyLock;

use fantail_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is no target"))
});

fuzz_target!(|input: &[u8]| TARGET.check(input));
