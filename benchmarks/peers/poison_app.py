"""A short task, and one that kills the process in which it runs."""

import os
import signal
import time

import ledger
from settings import URL

from umbel import Umbel

app = Umbel("bench", broker=URL)


@app.task(ignore_result=True, priority=3)  # behind the poison, which is claimed at once
def short(number):
    """A millisecond of work."""
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    ledger.note(number)


@app.task(ignore_result=True)
def poison():
    os.kill(os.getpid(), signal.SIGKILL)
