#!/usr/bin/env bash
# Gives every target inputs that coverage guides, for some time each, and says how many there were.
#
# usage: fuzz/run.sh [TARGET…]      all of them, if none is named
#
# FUZZ_SECONDS=60 is the time for each. What reaches new code is kept in target/fuzz/corpus, so that
# the next run goes on from there. An input for which a property does not hold is in target/fuzz/found;
# FUZZ_TARGET=<target> target/fuzz/<host>/release/fantail-fuzz-guided <file> gives it again.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
targets=("$@")
[[ $# -gt 0 ]] || mapfile -t targets < <(ls fuzz/corpus)

# What libFuzzer needs to see, all of it on the stable toolchain. A target of its own keeps the flags
# from what runs while the rest is built.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
flags+=" -Cdebug-assertions -Coverflow-checks"
RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo build -q --release -p fantail-fuzz --features guided --bin fantail-fuzz-guided \
    --target "$host" --target-dir target/fuzz

mkdir -p target/fuzz/found
failed=0
for target in "${targets[@]}"; do
    mkdir -p "target/fuzz/corpus/$target"
    log=target/fuzz/$target.log
    FUZZ_TARGET=$target "target/fuzz/$host/release/fantail-fuzz-guided" \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/found/$target-" \
        "target/fuzz/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1 || {
        failed=$((failed + 1))
        tail -40 "$log" >&2
    }
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    reached=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    printf '%-16s %10s inputs, %s\n' "$target" "${inputs:-?}" "${reached:-cov: ?}"
done
if [[ $failed -gt 0 ]]; then
    echo "$failed failed" >&2
    exit 1
fi
