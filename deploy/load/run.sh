#!/usr/bin/env bash
# A load test: thousands of streams, tasks posted meanwhile, and what the gateways say of it.
#
#   deploy/load/run.sh        against a topology of its own (deploy/demo.sh)
#
#   FANTAIL_LOAD_STREAMS=3000     streams of one board, opened and held by oha
#   FANTAIL_LOAD_RATE=10          tasks posted a second
#   FANTAIL_LOAD_SECONDS=20       for how long
#   FANTAIL_LOAD_URL=http://…     an installation that runs already, and
#   FANTAIL_LOAD_NODES=http://…,… the operators' door of each of its nodes, for their /metrics
#   FANTAIL_BINARY=path           as for deploy/demo.sh
#
# All traffic goes through the load balancer, as that of users does; each stream is there two
# connections. The load, the balancer, Redis and the gateways share this machine's processors, so
# the figures say what all of them together can do.
#
# Ends with status 1 if a stream was told of a loss, or an event did not reach every stream.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
streams=${FANTAIL_LOAD_STREAMS:-3000}
rate=${FANTAIL_LOAD_RATE:-10}
seconds=${FANTAIL_LOAD_SECONDS:-20}
url=${FANTAIL_LOAD_URL:-}
IFS=, read -r -a nodes <<<"${FANTAIL_LOAD_NODES:-}"
# Longer than any run: whatever goes wrong, oha ends by itself.
opening_seconds_max=30

directory=$(mktemp -d "${TMPDIR:-/tmp}/fantail-load.XXXXXX")
demo_pid='' witness_pid='' listeners_pid='' writer_pid=''

say() { echo "load: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

finish() {
    trap - EXIT
    trap '' INT TERM
    local pid
    for pid in $writer_pid $listeners_pid $witness_pid $demo_pid; do
        kill "$pid" 2>/dev/null || true
    done
    # The demo ends its own processes before it ends.
    wait 2>/dev/null || true
    rm -rf "$directory"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

for number in "$streams" "$rate" "$seconds"; do
    [[ $number =~ ^[1-9][0-9]{0,5}$ ]] || fail "not a whole number, 1 or more: $number"
done
[[ -z $url || ${#nodes[@]} -gt 0 ]] ||
    fail "FANTAIL_LOAD_URL needs FANTAIL_LOAD_NODES too: metrics are each node's own"

# A stream is a descriptor, also for who opens it. The usual soft limit is 1024.
ulimit -n "$(ulimit -Hn)"
descriptors=$(ulimit -n)
[[ $descriptors == unlimited || $descriptors -gt $((streams + 100)) ]] ||
    fail "$streams streams need more than the $descriptors open files that are allowed here"

command -v curl >/dev/null || fail "please install: apt-get install curl"
oha=$(command -v oha || true)
if [[ -z $oha ]]; then
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/fantail"
    oha="$cache/bin/oha"
    if [[ ! -x $oha ]]; then
        say "installing oha into $cache (once; takes some minutes)"
        cargo install oha --locked --quiet --root "$cache" || fail "cannot install oha"
    fi
fi

pids=()
if [[ -z $url ]]; then
    "$here/../demo.sh" >"$directory/demo" &
    demo_pid=$!
    # As long as it takes: it may have to build first. It ends by itself if it cannot start.
    until grep -qs '^ready ' "$directory/demo"; do
        kill -0 "$demo_pid" 2>/dev/null || fail "the demo did not start"
        sleep 0.2
    done
    read -r _ url _ node_list pid_list _ <"$directory/demo"
    IFS=, read -r -a nodes <<<"${node_list#nodes=}"
    IFS=, read -r -a pids <<<"${pid_list#pids=}"
fi
stream_url="$url/boards/board-1/events"

# The metrics of all nodes: "<node number> <series> <value>".
scrape() {
    local index
    for index in "${!nodes[@]}"; do
        curl -sS -f -m 5 "${nodes[index]}/metrics" | sed -n "s/^fantail_/$((index + 1)) fantail_/p"
    done
}

# The sum of a gauge over all nodes, now.
total() { scrape | awk -v name="$1" '$2 == name { sum += $3 } END { print sum + 0 }'; }

rss_kib() { ps -o rss= -p "$1" 2>/dev/null | tr -d ' ' || echo 0; }

resting=()
for pid in "${pids[@]}"; do resting+=("$(rss_kib "$pid")"); done
open_before=$(total fantail_connections)

# One client that looks at what it gets, each line with the time at which it came.
curl -sS -N -m $((seconds + opening_seconds_max + 60)) "$stream_url" > >(
    while IFS= read -r line; do echo "$EPOCHREALTIME $line"; done >"$directory/witness"
) &
witness_pid=$!

# The many. A stream never ends, so that each of oha's connections makes one request and reads it
# until the time is up; oha then ends it and counts it as "aborted due to deadline". It measures
# nothing about streams, it holds them open and reads them, and the nodes do the counting.
"$oha" -z "$((seconds + opening_seconds_max + 10))s" -c "$streams" --no-tui \
    -H 'Accept: text/event-stream' "$stream_url" >"$directory/listeners" 2>&1 &
listeners_pid=$!

began=${EPOCHREALTIME/./}
wanted=$((open_before + streams + 1))
until [[ $(total fantail_connections) -ge $wanted ]]; do
    kill -0 "$listeners_pid" 2>/dev/null || fail "oha ended: $(tail -n 5 "$directory/listeners")"
    [[ $((${EPOCHREALTIME/./} - began)) -lt $((opening_seconds_max * 1000000)) ]] ||
        fail "only $(total fantail_connections) of $wanted streams are open"
    sleep 0.1
done
opened_milliseconds=$(((${EPOCHREALTIME/./} - began) / 1000))
say "$streams streams are open; posting $rate tasks a second for $seconds s"

scrape >"$directory/before"
"$oha" -z "${seconds}s" -q "$rate" -c 8 --no-tui --output-format json --latency-correction \
    -w -m POST -T application/json -d '{"title":"Load","listId":"list-todo"}' "$url/tasks" \
    >"$directory/writer" 2>&1 &
writer_pid=$!
wait "$writer_pid" || fail "oha: $(tail -n 5 "$directory/writer")"
writer_pid=''

# Until nothing more is delivered, and for ten seconds at most.
last=-1
for _ in {1..20}; do
    sleep 0.5
    now=$(total fantail_deliveries_total)
    [[ $now == "$last" ]] && break
    last=$now
done
scrape >"$directory/after"
loaded=()
for pid in "${pids[@]}"; do loaded+=("$(rss_kib "$pid")"); done
kill "$witness_pid" "$listeners_pid" 2>/dev/null || true
wait "$witness_pid" "$listeners_pid" 2>/dev/null || true
witness_pid='' listeners_pid=''

# oha's answer times in milliseconds, and how often it got which status.
quantile_of_posts() { sed -n "s/^ *\"$1\": \([0-9.]*\).*/\1/p" "$directory/writer" | head -n 1; }
statuses=$(sed -n '/"statusCodeDistribution"/,/}/s/^ *"\([0-9]*\)": \([0-9]*\).*/\2 answered \1/p' "$directory/writer")

echo
echo "streams      $streams through $url, all open after $opened_milliseconds ms"
echo "tasks        $rate a second for $seconds s: ${statuses//$'\n'/, }, after p50 $(quantile_of_posts p50) ms, p99 $(quantile_of_posts p99) ms"

# What the counters say has changed between the two scrapes.
verdict=0
awk -v seconds="$seconds" -v streams="$wanted" -v private="${#pids[@]}" '
    function value(name) { return after[name] - before[name] }
    # As histogram_quantile of Prometheus: linear within the bucket.
    function quantile(q,   rank, i, low, seen) {
        rank = q * value("fantail_delivery_lag_seconds_count")
        for (i = 1; i <= buckets; i++) {
            if (count[i] >= rank) {
                low = i > 1 ? bound[i - 1] : 0
                seen = i > 1 ? count[i - 1] : 0
                if (bound[i] == "+Inf") return "over " low * 1000
                return sprintf("%.1f", 1000 * (low + (bound[i] - low) * (rank - seen) / (count[i] - seen)))
            }
        }
        return "unknown"
    }
    FNR == NR { before[$2] += $3; next }
    {
        after[$2] += $3
        if ($1 == 1 && match($2, /^fantail_delivery_lag_seconds_bucket\{le="[^"]*"/)) {
            series[++buckets] = $2
            bound[buckets] = substr($2, 41, RLENGTH - 41)
        }
    }
    END {
        for (i = 1; i <= buckets; i++) count[i] = value(series[i])
        published = value("fantail_events_published_total")
        delivered = value("fantail_deliveries_total")
        printf "deliveries   %d of %d (%d events to %d streams); %d a second, %.1f MB a second\n", \
            delivered, published * streams, published, streams, delivered / seconds, \
            value("fantail_delivered_bytes_total") / seconds / 1e6
        printf "lag          p50 %s ms, p99 %s ms from Redis taking an event to a node handing it to a socket\n", \
            quantile(0.5), quantile(0.99)
        for (name in after) {
            if (name ~ /^fantail_resets_total/) resets += value(name)
            if (name ~ /^fantail_gaps_total/) gaps += value(name)
            if (name ~ /^fantail_connections_refused_total/) refused += value(name)
        }
        printf "losses       %d resets told, %d gaps in announcements (%d entries repaired), %d streams refused, %d slow now\n", \
            resets, gaps, value("fantail_gap_entries_repaired_total"), refused, after["fantail_slow_connections"]
        # Others may use an installation that is not ours, so that their events count too.
        exit resets > 0 || (private && delivered != published * streams)
    }
' "$directory/before" "$directory/after" || verdict=1

# Redis wrote its time into each task (createdAt); on one machine that is the same clock.
posted=$(awk '$2 == "fantail_events_published_total" { sum += FNR == NR ? -$3 : $3 } END { print sum + 0 }' \
    "$directory/before" "$directory/after")
awk -v posted="$posted" -v local="${#pids[@]}" '
    $2 == "id:" { id = $3 + 0 }
    $2 == "event:" && $3 == "task_created" {
        tasks++
        if (last && id != last + 1) holes++
        last = id
        arrived = $1
    }
    $2 == "data:" && match($0, /"createdAt":"[^"]*T[0-9:.]*Z/) {
        split(substr($0, RSTART + RLENGTH - 13, 12), clock, ":")
        lag = arrived % 86400 - (clock[1] * 3600 + clock[2] * 60 + clock[3])
        lags[++n] = lag
    }
    END {
        for (i = 2; i <= n; i++) {
            x = lags[i]
            for (j = i - 1; j > 0 && lags[j] > x; j--) lags[j + 1] = lags[j]
            lags[j + 1] = x
        }
        printf "witness      one client through the balancer got %d of %d tasks, %d holes", tasks, posted, holes
        if (local && n) printf "; p50 %.1f ms, p99 %.1f ms, at most %.1f ms after Redis took them", \
            1000 * lags[int(n * 0.5 + 0.5)], 1000 * lags[int(n * 0.99 + 0.5)], 1000 * lags[n]
        print ""
        exit tasks != posted || holes > 0
    }
' "$directory/witness" || verdict=1

for index in "${!nodes[@]}"; do
    open=$(awk -v node=$((index + 1)) '$1 == node && $2 == "fantail_connections" { print $3 }' "$directory/after")
    line="node-$((index + 1))       $open streams"
    if [[ ${#pids[@]} -gt 0 ]]; then
        line+=", resident $((loaded[index] / 1024)) MiB ($((resting[index] / 1024)) MiB at rest)"
    fi
    echo "$line"
done
exit "$verdict"
