#!/usr/bin/env bash
# Runs checks and tests and says how long each test program took.
#
# usage: tests/run.sh quick    what one runs after a change (make test): ten minutes of tests at most
#        tests/run.sh all      then longer explorations, every carriage of streams, and all mutations
#                              (make test-all): 45 minutes at most
#
# A run whose tests take longer than that has failed: move what is long to "all", or make it shorter.
# LIMIT_MINUTES=0 lifts the limit, for a machine that is busy with something else. What is built
# before the tests does not count; what mutations build does.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1-} in
    quick) limit_minutes=${LIMIT_MINUTES:-10} ;;
    all) limit_minutes=${LIMIT_MINUTES:-45} ;;
    *) sed -n 's/^# \(usage\|  \)/\1/p' "$0" >&2; exit 2 ;;
esac

# Tests wait far more than they work. Many at a time wait together.
threads=$((3 * $(nproc)))
[[ $threads -le 16 ]] || threads=16

# Lines of the table at the end, how many tests have failed, and milliseconds that count.
table=()
failed=0
counted_ms=0

# Runs a command and notes what it took: step build|test NAME COMMAND…
step() {
    local kind=$1 name=$2 times outcome=ok began_ms
    shift 2
    echo
    echo "=== $name: $*"
    began_ms=$(now_ms)
    times=$(mktemp)
    TIMEFORMAT='%R %U %S'
    { time "$@" 2>&3; } 3>&2 2>"$times" || outcome=FAILED
    read -r real user sys < <(tail -1 "$times")
    rm -f "$times"
    if [[ $kind == test ]]; then counted_ms=$((counted_ms + $(now_ms) - began_ms)); fi
    table+=("$(printf '%-34s %-5s %7.1f %8.1f  %s' "$name" "$kind" "$real" "$(add "$user" "$sys")" "$outcome")")
    if [[ $outcome == FAILED ]]; then
        failed=$((failed + 1))
        # What does not build cannot be tested.
        if [[ $kind == build ]]; then exit 1; fi
    fi
}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

add() { awk "BEGIN { print $1 + $2 }"; }

report() {
    local seconds=$((counted_ms / 1000))
    echo
    printf '%-34s %-5s %7s %8s  %s\n' program kind seconds cpu outcome
    [[ ${#table[@]} -eq 0 ]] || printf '%s\n' "${table[@]}"
    printf 'tests took %d:%02d minutes' $((seconds / 60)) $((seconds % 60))
    [[ $limit_minutes -eq 0 ]] && echo || echo " of $limit_minutes"
}

end() {
    trap - EXIT
    report
    if [[ $failed -gt 0 ]]; then
        echo "$failed failed" >&2
        exit 1
    fi
    if [[ $limit_minutes -gt 0 && $counted_ms -gt $((limit_minutes * 60000)) ]]; then
        echo "too long" >&2
        exit 1
    fi
}
trap report EXIT

# Runs the tests of a program of the gateway: its name in the table, its name, what goes to the tests.
program() {
    local name=$1 program=$2
    shift 2
    step test "$name" cargo test -q --test "$program" -- "$@"
}

# --- Quick -----------------------------------------------------------------------------------

step build fmt cargo fmt --all --check
step build clippy cargo clippy -q --workspace --all-targets -- -D warnings
step build doc env RUSTDOCFLAGS="-D warnings" cargo doc -q --no-deps --workspace
step build "build, gateway" cargo test -q --no-run
step build "build, members" cargo test -q --no-run --workspace --exclude fantail

step test "unit tests" cargo test -q --lib --bins
step test "documentation tests" cargo test -q --doc
step test "members" cargo test -q --workspace --exclude fantail
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    case $name in
        promises) program promises promises --test-threads "$threads" ;;
        *) program "$name" "$name" ;;
    esac
done

if [[ $1 == quick || $failed -gt 0 ]]; then
    end
    exit
fi

# --- All -------------------------------------------------------------------------------------

# What has no sockets, or is about servers of Redis, is not run again for them, nor what looks at every
# carriage by itself.
not_about_sockets=(
    --skip simulation --skip script_model_equivalence --skip backend_equivalence --skip compression
    --skip sentinel --skip moving --skip board_index --skip attacks
)
# HTTP/2 is spoken by a proxy of the test's own between client and node, which hides the client's
# socket; a connection of HTTP/2 that sends no more is over. The nginx that ships takes HTTP/2 over TLS
# alone.
not_over_http_2=(
    --skip takeover --skip many_streams::ten_thousand --skip unread_answers
    --skip half_closed::a_stream_goes_on --skip half_closed::a_client_that_sent_no_more
    --skip slow::counts_go_back_to_zero
    --skip drain::a_rolling_restart --skip drain::when_no_node_is_left
)

# With TLS nothing goes to a reactor. A proxy of the test's own speaks it with the node: what is about
# a client's socket, its first bytes or its address is not seen (tls.rs has what there is to see), and
# a node that comes again finds its address taken. Whoever has only come when the node stops has no
# handshake behind it, and comes again. A certificate of today serves no clock of 1966.
not_over_tls=(
    --skip takeover --skip many_streams::ten_thousand --skip client_address
    --skip slow::counts_go_back_to_zero --skip refusals::the_answer_can_be_read
    --skip anonymous --skip operators_door::the_door_stays_open
    --skip drain::a_rolling_restart --skip drain::while_draining --skip drain::whoever_had_come
    --skip faults::a_killed_node --skip faults::a_rolling_restart
    --skip clocks
)
# What has no Redis, or has browsers and proxies before the node, is not run again for its users; nor
# is a Redis with a password of the test's own.
not_about_redis=(
    --skip cluster::nodes_speak_tls
    --skip simulation --skip browser --skip embedded --skip http2 --skip takeover --skip half_closed
    --skip many_streams --skip unread_answers
)

# What finds Redis by an address of its own all the same (a network lies between, its certificate or
# password is looked at, or sentinels are what is tested), counts what is said to it, or makes another
# master by hand.
not_by_sentinels=(
    --skip dead_connections --skip faults --skip redis_identity --skip sentinel
    --skip conditional_writes::writers_that_wait_for_a_replica_in_vain
)

# What speaks about streams, for those that are compressed.
about_streams=(
    access:: cluster:: drain:: epochs:: expiry:: half_closed:: redis_outage:: renewal:: resume::
    revocation:: slow:: stream_age:: tasks:: tickets:: topics:: trickle::
)

step test "simulation, long" env SIMULATIONS=10000 cargo test -q --test promises simulation::whatever
program "model, long" model --ignored
program "logins, a minute" promises browser_login --ignored
step test "promises, without reactors" env REACTORS=0 cargo test -q --test promises -- \
    --test-threads "$threads" "${not_about_sockets[@]}"
step test "promises, over HTTP/2" env HTTP2=1 cargo test -q --test promises -- \
    --test-threads "$threads" "${not_about_sockets[@]}" "${not_over_http_2[@]}"
step test "promises, over TLS" env TLS=1 cargo test -q --test promises -- \
    --test-threads "$threads" "${not_about_sockets[@]}" "${not_over_tls[@]}"
step test "promises, compressed" env COMPRESSION=gzip cargo test -q --test promises -- \
    --test-threads "$threads" "${about_streams[@]}"
# Nodes are the user that docs/operations.md recommends, and may do no more than that.
step test "promises, as the user of the docs" env REDIS_ACL=1 cargo test -q --test promises -- \
    --test-threads "$threads" "${not_about_redis[@]}"
# Nodes are told of a sentinel that knows the Redis.
step test "promises, by a sentinel" env TOPOLOGY=sentinel cargo test -q --test promises -- \
    --test-threads "$threads" "${not_about_redis[@]}" "${not_by_sentinels[@]}"
# Advisories need a database from the network; the rest holds without.
if cargo deny --version >/dev/null 2>&1; then
    step test "cargo deny" cargo deny --log-level error check licenses bans sources
fi
step test "client libraries, installation" tests/clients/install.sh
program "client libraries" clients --ignored --nocapture
step test mutations env MUTATIONS= cargo test -q --test mutations -- --ignored --nocapture
end
