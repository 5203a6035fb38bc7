#!/bin/sh
# Runs the benchmarks named on the command line, or all of them, one after the other. Each prints JSON.
set -eu
cd "$(dirname "$0")/.."
[ -d .cache/bench-peers ] || benchmarks/setup_peers.sh
if [ $# -eq 0 ]; then
    set -- benchmarks/[a-z]*.py
    [ -e "$1" ] || { echo "there are no benchmarks yet" >&2; exit 1; }
fi
for name in "$@"; do
    case $name in
        */*) ;;
        *) name=benchmarks/$name.py ;;
    esac
    echo "== $name" >&2
    .venv/bin/python "$name" </dev/null
done
