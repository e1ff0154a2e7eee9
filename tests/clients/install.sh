#!/usr/bin/env bash
# Installs the client libraries that tests/clients runs, at the versions written here, into a
# directory; does nothing if they are there.
#
# usage: tests/clients/install.sh [DIRECTORY]      (target/clients)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
directory=${1:-$here/../../target/clients}
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

manifests=(package.json package-lock.json requirements.txt requirements-sseclient.txt go.mod go.sum client.go)
stamp=$(cd "$here" && cat "${manifests[@]}" | sha256sum)
[[ $(cat "$directory/installed" 2>/dev/null) != "$stamp" ]] || exit 0

for program in node npm python3 go; do
    command -v "$program" >/dev/null || { echo "the client libraries need $program" >&2; exit 1; }
done

rm -rf "$directory"/{installed,node,python,python-sseclient,go}
mkdir -p "$directory/node" "$directory/go"

cp "$here"/package{,-lock}.json "$directory/node/"
(cd "$directory/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)

pip=(python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action ignore)
"${pip[@]}" --target "$directory/python" -r "$here/requirements.txt"
"${pip[@]}" --target "$directory/python-sseclient" -r "$here/requirements-sseclient.txt"

(cd "$here" && GOFLAGS=-mod=readonly go build -o "$directory/go/client" .)

echo "$stamp" >"$directory/installed"
