"""Real Celery in an environment of its own, so that it and umbel never share an interpreter."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WANTED = ["celery[redis,msgpack,sqlalchemy]==5.7.*", "ephem>=4.1", "psycopg[binary]>=3.2", "pymysql>=1.1"]
FOLDER = Path(__file__).parents[2] / ".cache" / "celery-env"
PYTHON = FOLDER / "bin" / "python"
DONE = FOLDER / "installed"
LOUDLY = "NOTHING WAS TESTED BESIDE REAL CELERY"
PATIENCE = 90  # seconds for pip


def celery_python() -> Path:
    """The interpreter that has Celery; its environment is made when there is none.

    It skips the test at home and fails it in CI when PyPI does not answer.
    """
    FOLDER.parent.mkdir(exist_ok=True)
    with (FOLDER.parent / "celery-env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests make it once
        if not (DONE.exists() and DONE.read_text().split() == WANTED and PYTHON.exists()):
            _make()
    return PYTHON


def _make() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    commands = [
        [sys.executable, "-m", "venv", str(FOLDER)],
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15", *WANTED],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            _absent(f"{command[0]} took longer than {PATIENCE} s")
        else:
            if done.returncode:
                _absent("".join((done.stderr or done.stdout).strip().splitlines()[-1:])[:300])
    DONE.write_text(" ".join(WANTED))


def _absent(why: str) -> None:
    reason = f"{LOUDLY}: {WANTED[0]} could not be installed into {FOLDER}: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
