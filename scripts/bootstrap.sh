#!/bin/sh
# Makes a virtual environment with this project in it, or does nothing when it is already there.
#
#   scripts/bootstrap.sh [--venv DIR] [--min 3.12] [--find] [REQUIREMENT ...]
#
# --venv DIR     the environment to make (default: .venv)
# --min X.Y      the oldest Python that will do (default: 3.11)
# --find         only print the Python that would be used, then stop
# REQUIREMENT    more for pip, for example 'Django>=6.1,<6.2'
#
# $PYTHON names an interpreter to try before all others.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
min=3.11
find_only=no
while [ $# -gt 0 ]; do
    case $1 in
        --venv) venv=$2; shift 2 ;;
        --min) min=$2; shift 2 ;;
        --find) find_only=yes; shift ;;
        *) break ;;
    esac
done

# A Python fits when it is new enough and can make a complete environment: Debian splits venv from python3.
fits() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] < tuple(map(int, '$min'.split('.'))))" \
            >/dev/null 2>&1 </dev/null
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 \
        /usr/bin/python3 /usr/bin/python3.[0-9]* /usr/local/bin/python3 /usr/local/bin/python3.[0-9]* /opt/homebrew/bin/python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        if fits "$candidate"; then
            # The real file, not a shim whose meaning depends on the folder it is called from.
            "$candidate" -c 'import sys; print(sys.executable)' </dev/null
            return 0
        fi
    done
    return 1
}

say_what_to_install() {
    {
        echo
        echo "umbel needs Python $min or newer with the venv and ensurepip modules. None was found."
        echo "What is here:"
        for candidate in python3 python3.13 python3.12 python3.11; do
            if command -v "$candidate" >/dev/null 2>&1; then
                version=$("$candidate" --version 2>&1 </dev/null || true)
                "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1 </dev/null || version="$version, without venv or ensurepip"
                echo "  $candidate: $version"
            fi
        done
        echo "Install one of:"
        echo "  Debian, Ubuntu:  apt-get install python3 python3-venv"
        echo "  Fedora:          dnf install python3"
        echo "  macOS:           brew install python@3.13"
        echo "  any system:      pyenv install 3.13   (https://github.com/pyenv/pyenv)"
        echo "or name one yourself: make PYTHON=/path/to/python3"
    } >&2
}

if [ "$find_only" = yes ]; then
    find_python || exit 1
    exit 0
fi

stamp=$venv/.umbel-bootstrap
# The path is part of the key: an environment that was moved or copied has wrong paths inside.
key=$( { cat pyproject.toml; echo "$min" "$@"; cd "$(dirname "$venv")" && pwd; } | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && "$venv/bin/python" -c '' >/dev/null 2>&1 </dev/null; then
    exit 0
fi

if ! fits "$venv/bin/python"; then
    python=$(find_python) || { say_what_to_install; exit 1; }
    echo "bootstrap: making $venv with $python" >&2
    "$python" -m venv --clear "$venv" </dev/null
fi

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" </dev/null
}

echo "bootstrap: installing the project into $venv (once; a minute or two)" >&2
# An editable installation needs pip >= 21.3; where the newest cannot be had, what is there is tried.
pip install --quiet --upgrade pip || echo "bootstrap: pip could not be upgraded, going on with $(pip --version)" >&2
pip install --quiet -e '.[dev]' "$@"
printf '%s\n' "$key" >"$stamp"
