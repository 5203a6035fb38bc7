"""Real Celery in an environment of its own, so that it and umbel never share an interpreter."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WANTED = ["celery[redis,msgpack,sqlalchemy]==5.7.*", "ephem>=4.1", "psycopg[binary]>=3.2", "pymysql>=1.1"]
CACHE = Path(__file__).parents[2] / ".cache"
LOUDLY = "NOTHING WAS TESTED BESIDE REAL CELERY"
PATIENCE = 90  # seconds for pip


def celery_python() -> Path:
    """The interpreter that has Celery; its environment is made when there is none.

    It skips the test at home and fails it in CI when PyPI does not answer.
    """
    return python_with("celery-env", WANTED)


def python_with(name: str, wanted: list[str]) -> Path:
    """The same, of an environment with other packages."""
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / name
    python, done = folder / "bin" / "python", folder / "installed"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests make it once
        if not (done.exists() and done.read_text().split() == wanted and python.exists()):
            _make(folder, python, wanted)
            done.write_text(" ".join(wanted))
    return python


def _make(folder: Path, python: Path, wanted: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15", *wanted],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            _absent(f"{command[0]} took longer than {PATIENCE} s", folder, wanted)
        else:
            if done.returncode:
                _absent("".join((done.stderr or done.stdout).strip().splitlines()[-1:])[:300], folder, wanted)


def _absent(why: str, folder: Path, wanted: list[str]) -> None:
    reason = f"{LOUDLY}: {wanted[0]} could not be installed into {folder}: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
