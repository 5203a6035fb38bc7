#!/bin/sh
# Makes the environments of the other task queues under .cache/bench-peers (umbel's own environment stays as it is):
#   main   all of them that live together; with the Python of .venv, so that both sides run on the same interpreter
#   beat   the schedulers of Celery: django-celery-beat wants a Django that other things may not
#   arq    wants an older Redis client than the others
#   ardiq  wants Python >= 3.12; its figures are those of that Python
#   procrastinate  works on Postgres, and shares nothing with the others
# What cannot be installed is skipped with a line. Run again, it installs what is missing. PYTHON=... chooses the interpreter of main.
set -u
cd "$(dirname "$0")/.."
base=.cache/bench-peers
mkdir -p "$base"

install() { # install ENVIRONMENT PYTHON PACKAGE
    env="$base/$1"
    if [ ! -x "$env/bin/python" ] && ! "$2" -m venv "$env"; then
        echo "setup_peers: $3 skipped: $2 cannot make an environment" >&2
        rm -rf "$env"
        return
    fi
    if "$env/bin/python" -m pip install --quiet --disable-pip-version-check "$3" 2>"$base/pip.log"; then
        echo "setup_peers: $3: $("$env/bin/python" -m pip list --disable-pip-version-check 2>/dev/null |
            awk -v name="$(printf %s "$3" | sed 's/[][~=<>].*//')" '$1 == name { print $2 }')"
    else
        echo "setup_peers: $3 skipped: $(grep -E '^ERROR' "$base/pip.log" | tail -n 1)" >&2
    fi
}

newest() { # a Python >= 3.12, if there is one
    for python in python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python /opt/python/*/bin/python; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
# Celery comes first: without it there is nothing to measure against.
for package in "celery[redis]~=5.7.0" "redis[hiredis]" "dramatiq[redis]" huey rq saq taskiq taskiq-redis streaq; do
    install main "$python" "$package"
done
for package in "celery[redis]~=5.7.0" django-celery-beat celery-redbeat; do
    install beat "$python" "$package"
done
install arq "$python" arq
for package in "psycopg[binary]" procrastinate; do
    install procrastinate "$python" "$package"
done
newer=$(newest)
if [ -n "$newer" ]; then
    install ardiq "$newer" ardiq
else
    echo "setup_peers: ardiq skipped: it wants Python >= 3.12 and there is none" >&2
fi
rm -f "$base/pip.log"
