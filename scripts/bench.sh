#!/bin/sh
# Runs the benchmarks named on the command line, or all of them, one after the other, and keeps their JSON in benchmarks/results.
# Names come first; what follows the first option goes to each of them: scripts/bench.sh publish drain --rounds 1
set -eu
cd "$(dirname "$0")/.."
[ -d .cache/bench-peers ] || benchmarks/setup_peers.sh
names=
while [ $# -gt 0 ]; do
    case $1 in
        -*) break ;;
        */*) names="$names $1" ;;
        *) names="$names benchmarks/$1.py" ;;
    esac
    shift
done
if [ -z "$names" ]; then
    for name in benchmarks/[a-z]*.py; do
        case $name in
            */compare.py | */plot.py) ;; # they only read results
            *) names="$names $name" ;;
        esac
    done
fi
failed=
for name in $names; do
    echo "== $name" >&2
    .venv/bin/python "$name" --save "$@" </dev/null || failed="$failed $name"
done
.venv/bin/python benchmarks/plot.py
if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
