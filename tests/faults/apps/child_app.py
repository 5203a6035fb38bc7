"""Tasks that are hard on the process in which they run, and on those around it."""

import os
import signal
import time

from ledger_app import app, note, work  # noqa: F401 - producers take them from here

from umbel.pools.testimony import Testimony


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


@app.task
def breaks_the_code_around_it(number: int) -> None:
    note(f"breaks {number}")

    def record(*_: object) -> bool:
        raise RuntimeError("a fault of ours")

    Testimony.record = record
