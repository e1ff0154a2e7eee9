#!/usr/bin/env bash
# The topology of docker-compose.yml without containers: Redis, three gateways, and nginx in front
# with HTTP and with TLS and HTTP/2, as plain processes on loopback. Everything lives in a temporary
# directory and ends with this script.
#
#   deploy/demo.sh            start, print where everything is, run until Ctrl-C
#   deploy/demo.sh --sentinel the same with two replicas of Redis and three sentinels that watch it
#   deploy/demo.sh --check    only test nginx's configuration, as it would be used
#
#   FANTAIL_BINARY=path       use this binary; otherwise cargo builds one
#   FANTAIL_DEMO_PROFILE=dev  build profile, default release
#   FANTAIL_DEMO_SECONDS=20   end by itself after this time
#   FANTAIL_DEMO_NODES=3      number of gateways
#   FANTAIL_DEMO_PORTS=free   any free ports for nginx, instead of 8080 and 8443 if those are free
#   FANTAIL_DEMO_RESTART=3    seconds until what has ended is started again
#   FANTAIL_DRAIN=…           and every other setting of the gateway reaches all of them
#
# While it runs: kill one of the processes it names and watch what clients see. However it ended, it
# is started again at the same address: after FANTAIL_DEMO_RESTART seconds, twice as long each time
# while it keeps ending (half a minute at most), or at once by kill -USR1 <pid of this script>. What
# is still draining then starts when it has ended.
#
# Standard output begins, when everything is ready, with one line for programs:
#   ready http://… https://… nodes=http://…,… pids=…,… redis=port:pid,… nginx=pid directory=…
# with sentinels=port:pid,… at its end where there are any.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
node_count=${FANTAIL_DEMO_NODES:-3}
seconds=${FANTAIL_DEMO_SECONDS:-}
restart=${FANTAIL_DEMO_RESTART:-3}
for number in "$node_count" "${seconds:-1}" "$restart"; do
    if ! [[ $number =~ ^[1-9][0-9]{0,5}$ ]]; then
        echo "demo: FANTAIL_DEMO_NODES, _SECONDS and _RESTART must be whole numbers, 1 or more" >&2
        exit 2
    fi
done

directory=''
nginx_pid=''
http_port='' https_port=''
node_pids=() node_ports=()
# The first Redis is the master at first; sentinels may make another one of the others.
redis_count=1 sentinel_count=0
redis_pids=() redis_ports=() sentinel_pids=() sentinel_ports=()

say() { echo "demo: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Ends every process this script has started, by its id, and removes the directory.
finish() {
    trap - EXIT
    trap '' INT TERM USR1
    local pids=("${node_pids[@]}") pid round
    [[ -n $nginx_pid ]] && pids+=("$nginx_pid")
    # Redis last, so that the gateways can say goodbye to it.
    pids+=("${sentinel_pids[@]}" "${redis_pids[@]}")
    # The first signal begins a gateway's drain, the second cuts it short (if it comes a second later or
    # more): nobody waits for a demo.
    for round in TERM TERM KILL; do
        for pid in "${pids[@]}"; do
            kill -s "$round" "$pid" 2>/dev/null || true
        done
        for _ in {1..24}; do
            local alive=no
            for pid in "${pids[@]}"; do
                kill -0 "$pid" 2>/dev/null && alive=yes
            done
            [[ $alive == no ]] && break 2
            sleep 0.05
        done
    done
    wait 2>/dev/null || true
    [[ -n $directory ]] && rm -rf "$directory"
}
trap finish EXIT
# Exit, not finish: what runs at the moment is left first. The statuses are the customary ones.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What must be installed. As root in a Debian container the demo gets it by itself; where systemd
# would start the programs as services too, it only says how.
require() {
    local missing=() program
    for program in "$@"; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $(id -u) -eq 0 && ! -d /run/systemd/system ]] && command -v apt-get >/dev/null; then
        say "installing: ${missing[*]}"
        if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1; then
            fail "cannot install them; try: apt-get install ${missing[*]}"
        fi
    else
        fail "please install: apt-get install ${missing[*]}"
    fi
}

# Whether nobody listens on a port of loopback.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The wanted port if nobody has it, else another one; below the ports that the kernel gives to
# outgoing connections, so that none of those takes it before we listen.
free_port() {
    local port=${1:-}
    while [[ -z $port ]] || ! is_free "$port"; do
        port=$((RANDOM % 12000 + 20000))
    done
    echo "$port"
}

# Tries a command every tenth of a second, as long as the process lives and not for ever.
until_ok() {
    local pid=$1 tries
    shift
    for tries in {1..150}; do
        "$@" && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    say "still not so after ${tries} tries: $*"
    return 1
}

# The first line of an answer to GET, over bash's own sockets: curl need not be there.
status_of() {
    local line=
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
        printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3 || return 1
        IFS= read -r -t 3 line <&3 || true
        exec 3>&-
    } 2>/dev/null
    [[ $line == *" 200 "* ]]
}

# Whether the Redis or the sentinel at a port answers, the same way.
redis_answers() {
    local line=
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
        printf 'PING\r\n' >&3 || return 1
        IFS= read -r -t 1 line <&3 || true
        exec 3>&-
    } 2>/dev/null
    [[ $line == *PONG* ]]
}

# Whether all replicas follow the master at a port.
replicas_follow() {
    local line='' count=0
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
        printf 'INFO replication\r\nQUIT\r\n' >&3 || return 1
        while IFS= read -r -t 1 line <&3; do
            [[ $line == slave*state=online* ]] && count=$((count + 1))
        done
        exec 3>&-
    } 2>/dev/null
    [[ $count -eq $((redis_count - 1)) ]]
}

# Whether a sentinel knows all the others and all replicas, and so can do what it is there for.
sentinel_knows() {
    local line='' text=''
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
        printf 'INFO sentinel\r\nQUIT\r\n' >&3 || return 1
        while IFS= read -r -t 1 line <&3; do text+=$line; done
        exec 3>&-
    } 2>/dev/null
    [[ $text == *"slaves=$((redis_count - 1)),sentinels=$sentinel_count"* ]]
}

# A gateway takes a free port by itself the first time, and says which; later the same one.
launch_node() {
    local index=$1 port=${node_ports[$1]:-0}
    # Other settings of the caller's shell reach the nodes (FANTAIL_DRAIN=1m make demo), but a quiet
    # log would not say where a node listens.
    env -u FANTAIL_LOG \
        "$binary" serve --listen "127.0.0.1:$port" --redis-url "$(redis_url)" \
        --node-id "node-$((index + 1))" 2>>"$directory/node-$((index + 1)).log" &
    node_pids[index]=$!
    disown "$!"
}

start_node() {
    local index=$1 name="node-$(($1 + 1))" log
    log="$directory/$name.log"
    launch_node "$index"
    until_ok "${node_pids[index]}" grep -qs 'listening on http://' "$log" ||
        fail "$name does not start: $(tail -n 3 "$log")"
    node_ports[index]=$(sed -n 's#.*listening on http://127\.0\.0\.1:\([0-9]*\).*#\1#p' "$log" | tail -n 1)
    until_ok "${node_pids[index]}" status_of "${node_ports[index]}" /readyz ||
        fail "$name does not become ready: $(tail -n 3 "$log")"
}

# Where the gateways find Redis.
redis_url() {
    if [[ $sentinel_count -gt 0 ]]; then
        echo "redis-sentinel://$(join "${sentinel_ports[@]/#/127.0.0.1:}")/0#demo"
    else
        echo "redis://127.0.0.1:${redis_ports[0]}"
    fi
}

# What it is started with is in a file: sentinels write there whose replica it is.
launch_redis() {
    redis-server "$directory/redis-$(($1 + 1)).conf" >/dev/null 2>&1 &
    redis_pids[$1]=$!
    disown "$!"
}

start_redis() {
    local index=$1 name="redis-$(($1 + 1))" port
    port=$(free_port)
    mkdir -p "$directory/$name"
    {
        printf '%s\n' "port $port" 'bind 127.0.0.1' "dir $directory/$name" 'appendonly yes' \
            'save ""' "logfile $directory/$name.log" 'repl-diskless-sync-delay 0'
        [[ $index -gt 0 ]] && printf 'replicaof 127.0.0.1 %s\n' "${redis_ports[0]}"
    } >"$directory/$name.conf"
    redis_ports[index]=$port
    launch_redis "$index"
    until_ok "${redis_pids[index]}" redis_answers "$port"
}

launch_sentinel() {
    redis-server "$directory/sentinel-$(($1 + 1)).conf" --sentinel >/dev/null 2>&1 &
    sentinel_pids[$1]=$!
    disown "$!"
}

start_sentinel() {
    local index=$1 name="sentinel-$(($1 + 1))" port
    port=$(free_port)
    mkdir -p "$directory/$name"
    printf '%s\n' "port $port" 'bind 127.0.0.1' "dir $directory/$name" \
        "logfile $directory/$name.log" "sentinel monitor demo 127.0.0.1 ${redis_ports[0]} 2" \
        'sentinel down-after-milliseconds demo 2000' 'sentinel failover-timeout demo 10000' \
        >"$directory/$name.conf"
    sentinel_ports[index]=$port
    launch_sentinel "$index"
    until_ok "${sentinel_pids[index]}" redis_answers "$port"
}

# Fills in nginx's configuration. A worker needs two connections a stream, and may have no more
# descriptors than the system allows (only root's nginx could raise the limit).
write_nginx_configuration() {
    local descriptors streams='' requests='' port
    descriptors=$(ulimit -Hn)
    [[ $descriptors == unlimited || $descriptors -gt 65536 ]] && descriptors=65536
    for port in "${node_ports[@]}"; do
        streams+="server 127.0.0.1:$port max_fails=0; "
        requests+="server 127.0.0.1:$port max_fails=1 fail_timeout=2s; "
    done
    cp -r "$here/nginx/common" "$directory/"
    sed -e "s#@DIRECTORY@#$directory#g" \
        -e "s#@SERVERS_OF_STREAMS@#$streams#" -e "s#@SERVERS_OF_REQUESTS@#$requests#" \
        -e "s#@DESCRIPTORS@#$descriptors#" -e "s#@CONNECTIONS@#$((descriptors - 64))#" \
        -e "s#@HTTP_PORT@#$http_port#" -e "s#@HTTPS_PORT@#$https_port#" \
        "$here/nginx/demo.conf" >"$directory/nginx.conf"
}

make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$directory/key.pem" -out "$directory/certificate.pem" 2>/dev/null
}

launch_nginx() {
    nginx -p "$directory" -e "$directory/nginx.error.log" -c "$directory/nginx.conf" \
        >/dev/null 2>&1 &
    nginx_pid=$!
    disown "$nginx_pid"
}

start_nginx() {
    launch_nginx
    until_ok "$nginx_pid" status_of "$http_port" /healthz
}

# What is watched over, by number: the gateways, then each Redis, then the sentinels, then nginx. For
# each: the pause before its next start, when that is due (empty while it runs), when it was started
# last, and whether somebody waits to hear that it is back.
pauses=() due_at=() started_at=() returning=()
restart_seconds_max=$((restart > 30 ? restart : 30))

# What number means what: sets kind and its own number among those.
whats() {
    kind=node of_kind=$1
    [[ $of_kind -lt $node_count ]] && return
    kind=redis of_kind=$((of_kind - node_count))
    [[ $of_kind -lt $redis_count ]] && return
    kind=sentinel of_kind=$((of_kind - redis_count))
    [[ $of_kind -lt $sentinel_count ]] && return
    kind=nginx of_kind=0
}

name_of() {
    local kind of_kind
    whats "$1"
    case $kind-$redis_count in
    nginx-* | redis-1) echo "$kind" ;;
    *) echo "$kind-$((of_kind + 1))" ;;
    esac
}

processes() {
    pids=("${node_pids[@]}" "${redis_pids[@]}" "${sentinel_pids[@]}" "$nginx_pid")
}

answers() {
    local kind of_kind
    whats "$1"
    case $kind in
    redis) redis_answers "${redis_ports[of_kind]}" ;;
    sentinel) redis_answers "${sentinel_ports[of_kind]}" ;;
    # Whatever it answers comes from a node, which may be the one that is away.
    nginx) ! is_free "$http_port" ;;
    node) status_of "${node_ports[of_kind]}" /readyz ;;
    esac
}

launch() {
    local kind of_kind
    whats "$1"
    case $kind in
    nginx) launch_nginx ;;
    *) "launch_$kind" "$of_kind" ;;
    esac
    due_at[$1]='' started_at[$1]=$SECONDS returning[$1]=yes
}

# One look at everything. What runs for half a minute has recovered, and its next pause is short.
supervise() {
    local index pids
    processes
    for index in "${!pids[@]}"; do
        if kill -0 "${pids[index]}" 2>/dev/null; then
            if [[ -n ${returning[index]} ]] && answers "$index"; then
                returning[index]=''
                say "$(name_of "$index") is back, pid ${pids[index]}"
            fi
            continue
        fi
        if [[ -z ${due_at[index]} ]]; then
            [[ $((SECONDS - started_at[index])) -ge $restart_seconds_max ]] && pauses[index]=$restart
            due_at[index]=$((SECONDS + pauses[index]))
            say "$(name_of "$index") has ended and starts again in ${pauses[index]} s"
            pauses[index]=$((pauses[index] * 2))
            [[ ${pauses[index]} -gt $restart_seconds_max ]] && pauses[index]=$restart_seconds_max
        fi
        [[ $SECONDS -ge ${due_at[index]} ]] && launch "$index"
    done
    return 0
}

# Somebody wants back what has ended, or is about to: its next start is due at once.
start_again() {
    local index pids
    processes
    for index in "${!pids[@]}"; do
        if ! kill -0 "${pids[index]}" 2>/dev/null; then
            due_at[index]=0
        elif ! answers "$index"; then
            due_at[index]=0
            say "$(name_of "$index") starts again when it has ended"
        fi
    done
}

# Debian has nginx in /usr/sbin, which is not in everybody's path.
PATH="$PATH:/usr/sbin:/sbin"

directory=$(mktemp -d "${TMPDIR:-/tmp}/fantail-demo.XXXXXX")
# nginx's workers may run as another user and write large bodies to files here.
chmod 711 "$directory"

join() {
    local IFS=,
    echo "$*"
}

if [[ ${1:-} == --check ]]; then
    require nginx openssl
    node_ports=(3001 3002 3003)
    http_port=$(free_port) https_port=$(free_port)
    make_certificate
    write_nginx_configuration
    nginx -p "$directory" -e "$directory/nginx.error.log" -c "$directory/nginx.conf" -t
    exit
elif [[ ${1:-} == --sentinel ]]; then
    redis_count=3 sentinel_count=3
elif [[ $# -gt 0 ]]; then
    fail "unknown argument: $1 (there are --sentinel and --check)"
fi

# Debian's package for each program has the program's name.
require redis-server nginx openssl

binary=${FANTAIL_BINARY:-}
if [[ -z $binary ]]; then
    profile=${FANTAIL_DEMO_PROFILE:-release}
    say "building (profile $profile)"
    (cd "$here/.." && cargo build --quiet --locked --profile "$profile" --bin fantail)
    [[ $profile == dev ]] && profile=debug
    binary="${CARGO_TARGET_DIR:-$here/../target}/$profile/fantail"
fi
[[ -x $binary ]] || fail "there is no program at $binary"

make_certificate

# Between looking for a free port and listening on it, somebody else may take it: then once more.
start_all() {
    local kind=$1 count=$2 index attempt
    for ((index = 0; index < count; index++)); do
        for attempt in {1..5}; do
            "start_$kind" "$index" && break
            [[ $attempt == 5 ]] &&
                fail "$kind does not start: $(tail -n 3 "$directory/$kind-$((index + 1)).log")"
        done
    done
}
start_all redis "$redis_count"
if [[ $sentinel_count -gt 0 ]]; then
    until_ok "${redis_pids[0]}" replicas_follow "${redis_ports[0]}" || fail "replicas do not follow"
    start_all sentinel "$sentinel_count"
    for ((index = 0; index < sentinel_count; index++)); do
        until_ok "${sentinel_pids[index]}" sentinel_knows "${sentinel_ports[index]}" ||
            fail "sentinel-$((index + 1)) does not get to know the others"
    done
fi

for ((index = 0; index < node_count; index++)); do
    start_node "$index"
done

for attempt in {1..5}; do
    [[ $attempt == 1 && ${FANTAIL_DEMO_PORTS:-} != free ]] && usual=(8080 8443) || usual=("" "")
    http_port=$(free_port "${usual[0]}")
    https_port=$(free_port "${usual[1]}")
    write_nginx_configuration
    start_nginx && break
    [[ $attempt == 5 ]] && fail "nginx does not start: $(tail -n 3 "$directory/nginx.error.log")"
done

for ((index = 0; index < node_count + redis_count + sentinel_count + 1; index++)); do
    pauses[index]=$restart due_at[index]='' started_at[index]=$SECONDS returning[index]=''
done
trap 'start_again' USR1

# Port and process of each.
places() {
    local -n ports=$1_ports pids=$1_pids
    local index all=()
    for index in "${!ports[@]}"; do all+=("${ports[index]}:${pids[index]}"); done
    join "${all[@]}"
}
node_urls=("${node_ports[@]/#/http://127.0.0.1:}")
echo "ready http://127.0.0.1:$http_port https://127.0.0.1:$https_port" \
    "nodes=$(join "${node_urls[@]}") pids=$(join "${node_pids[@]}")" \
    "redis=$(places redis) nginx=$nginx_pid directory=$directory" \
    ${sentinel_ports[0]:+"sentinels=$(places sentinel)"}

second=$((node_count > 1 ? 2 : 1))
cat <<HINTS

  The task board      http://127.0.0.1:$http_port/
                      https://127.0.0.1:$https_port/  (HTTP/2; the certificate is self-signed)
$(for index in "${!node_ports[@]}"; do
    echo "  node-$((index + 1))              ${node_urls[index]}/  pid ${node_pids[index]}"
done)
$(for kind in redis sentinel; do
    declare -n ports=${kind}_ports pids=${kind}_pids
    for index in "${!ports[@]}"; do
        name=$([[ $redis_count -gt 1 ]] && echo "$kind-$((index + 1))" || echo Redis)
        printf '  %-19s 127.0.0.1:%s  pid %s\n' "$name" "${ports[index]}" "${pids[index]}"
    done
done)
  Logs                $directory

  Watch a board       curl -N http://127.0.0.1:$http_port/boards/board-1/events
  over HTTP/2         curl -kN https://127.0.0.1:$https_port/boards/board-1/events
  Post a task         curl -H 'Content-Type: application/json' -d '{"title":"Hello","listId":"list-todo"}' http://127.0.0.1:$http_port/tasks
  Check its promises  $binary check http://127.0.0.1:$http_port --seconds 3
  Drain a node        kill ${node_pids[second - 1]}
  Lose a node         kill -9 ${node_pids[second - 1]}
  It comes back after $restart s, or at once by
                      kill -USR1 $$
$([[ $sentinel_count -eq 0 ]] || cat <<SENTINEL
  Lose the master     kill -9 ${redis_pids[0]}
  Freeze it           kill -STOP ${redis_pids[0]}; sleep 8; kill -CONT ${redis_pids[0]}
  Who is the master   redis-cli -p ${sentinel_ports[0]} sentinel get-master-addr-by-name demo
SENTINEL
)

  Ctrl-C ends everything.

HINTS

# Waits in small steps, because bash runs traps only between commands.
ends_at=$((SECONDS + ${seconds:-0}))
while [[ -z $seconds || $SECONDS -lt $ends_at ]]; do
    supervise
    sleep 0.2
done
