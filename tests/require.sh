#!/usr/bin/env bash
# Makes sure that the programs which the tests run are there: as root with apt it installs what is
# missing, otherwise it says what to install.
#
# usage: tests/require.sh
set -euo pipefail

# Program and Debian package.
needed=(
    redis-server:redis-server
    nginx:nginx
    haproxy:haproxy
    chromium:chromium
    chromedriver:chromium-driver
    openssl:openssl
    curl:curl
    caddy:caddy
    faketime:faketime
    firefox:firefox-esr
    node:nodejs
    python3:python3
)

# Where Debian puts servers, which is not on everybody's path.
PATH=$PATH:/usr/sbin

missing() {
    for pair in "${needed[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
}

mapfile -t packages < <(missing)
[[ ${#packages[@]} -eq 0 ]] && exit 0

if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Services that packages would start are not wanted: tests start their own. The policy is taken
    # away again, and one that was there is left alone.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${packages[@]}"
    mapfile -t packages < <(missing)
fi

if [[ ${#packages[@]} -gt 0 ]]; then
    echo "the tests need these packages: ${packages[*]}" >&2
    echo "on Debian or Ubuntu: sudo apt-get install ${packages[*]}" >&2
    exit 1
fi
