"""Tasks that are hard on the process in which they run, and on those around it."""

import os
import signal
import time

from ledger_app import app, note, work  # noqa: F401 - producers take them from here


@app.task
def begins(number: int, seconds: float) -> None:
    note(f"begins {number}")
    time.sleep(seconds)
    note(f"{number}")


@app.task
def kills_its_zygote(number: int) -> None:
    note(f"kills {number}")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
