#!/usr/bin/env bash
# Installs the servers that `make bench-peers` compares with, as far as they can be had here:
#
#   bench/peers.sh <directory>
#
# Debian's packages with apt as root, the Durable Streams server with cargo and Centrifugo with go
# into the directory. Whatever cannot be had is named, and left out of the comparison.
set -uo pipefail

directory=${1:?where to put programs}
export PATH="$PATH:/usr/sbin"

say() { echo "peers: $*" >&2; }

missing=()
command -v nginx >/dev/null || missing+=(nginx)
[[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ]] || missing+=(libnginx-mod-nchan)
command -v pushpin >/dev/null || missing+=(pushpin)
if [[ ${#missing[@]} -gt 0 ]]; then
    # Where systemd runs, installing would start them as services too.
    if [[ $(id -u) -eq 0 && ! -d /run/systemd/system ]] && command -v apt-get >/dev/null; then
        say "installing: ${missing[*]}"
        apt-get update >/dev/null 2>&1
        for package in "${missing[@]}"; do
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" \
                >/dev/null 2>&1 || say "cannot install $package"
        done
    else
        say "to compare with all of them: apt-get install ${missing[*]}"
    fi
fi

if ! command -v durable-streams-server >/dev/null &&
    [[ ! -x $directory/bin/durable-streams-server ]]; then
    say "building durable-streams-server (once; takes some minutes)"
    cargo install durable-streams-server --version 0.3.0 --locked --quiet --root "$directory" ||
        say "cannot build durable-streams-server"
fi

centrifugo=github.com/centrifugal/centrifugo/v6
centrifugo_version=6.9.1
if ! command -v centrifugo >/dev/null && [[ ! -x $directory/bin/centrifugo ]]; then
    if command -v go >/dev/null; then
        say "building centrifugo (once; takes some minutes)"
        # Without the flag it would not know its version.
        GOBIN=$(realpath -m "$directory/bin") go install \
            -ldflags "-X $centrifugo/internal/build.Version=$centrifugo_version" \
            "$centrifugo@v$centrifugo_version" || say "cannot build centrifugo"
    else
        say "to compare with Centrifugo: install go"
    fi
fi
exit 0
