#!/usr/bin/env bash
# Breaks the gateway on purpose, in one way after the other, and has each break caught by the tests
# that its patch names. Fails if a test passes all the same, and prints a table.
#
# usage: tests/breaks.sh [break…]        all in tests/breaks if none is named
#
# It works on a copy under target/breaks, which stays there so that the next run builds less.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/target/breaks
tree=$work/tree
export CARGO_TARGET_DIR=$work/target RUST_BACKTRACE=0
# A test that hangs has noticed something, too; but it should say so.
seconds_max=600

rm -rf "$tree"
mkdir -p "$tree"
# With their times, so that what has not changed is not built again.
tar -C "$root" --exclude=./target --exclude=./.git -cf - . | tar -C "$tree" -xf -
cd "$tree"

if [[ $# -gt 0 ]]; then
    patches=("${@/#/tests/breaks/}")
    patches=("${patches[@]/%/.patch}")
else
    patches=(tests/breaks/*.patch)
fi

table=()
missed=0

# What became of a break: its name, what happened, the test.
note() {
    table+=("$(printf '%-32s %-10s %s' "$1" "$2" "$3")")
    echo "${table[-1]}"
    [[ $2 == caught || $2 == hangs ]] || missed=$((missed + 1))
}

for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    if ! patch -p1 -s -f -F0 -i "$patch"; then
        note "$name" stale "the patch does not apply"
        continue
    fi
    while read -r -a test; do
        # The last word is the filter, the ones before say which program.
        program=("${test[@]:0:${#test[@]}-1}")
        log=$work/$name.log
        if ! cargo test -q --no-run "${program[@]}" >"$log" 2>&1; then
            note "$name" broken "it does not compile: $log"
            break
        fi
        status=0
        timeout "$seconds_max" cargo test -q "${test[@]}" >"$log" 2>&1 </dev/null || status=$?
        if [[ $status -eq 124 ]]; then
            note "$name" hangs "${test[*]}"
        elif [[ $status -ne 0 ]] && grep -q 'test result: FAILED' "$log"; then
            note "$name" caught "${test[*]}"
        elif grep -q 'running 0 tests' "$log" && ! grep -q 'running [1-9]' "$log"; then
            note "$name" untested "no such test: ${test[*]}"
        else
            note "$name" MISSED "${test[*]}"
        fi
    done < <(sed -n 's/^caught by: //p' "$patch")
    patch -p1 -s -f -F0 -R -i "$patch"
done

echo
echo "break                            outcome    test"
printf '%s\n' "${table[@]}"
if [[ $missed -gt 0 ]]; then
    echo "$missed not caught" >&2
    exit 1
fi
