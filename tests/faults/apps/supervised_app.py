"""The faults' tasks, and code that changes on the disk while workers run."""

import os
import time
from pathlib import Path

from faults_app import app, note, work  # noqa: F401 - producers take them from here

from umbel.signals import worker_ready

FOLDER = Path(os.environ["LEDGER"]).parent
VERSION = (FOLDER / "version").read_text() if (FOLDER / "version").exists() else "1"

if VERSION == "broken":
    raise RuntimeError("this version cannot be imported")

if VERSION == "hangs":
    time.sleep(1000)


@app.task
def tells_version(number: int) -> None:
    note(f"version {VERSION}")


@worker_ready.connect
def die_if_told(sender, **_: object) -> None:
    note(f"starts {sender.hostname}")
    if (FOLDER / "crash").exists():
        os._exit(7)
