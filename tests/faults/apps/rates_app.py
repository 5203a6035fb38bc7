"""The faults' tasks, and some that may start only so often."""

import time

from faults_app import app, begins, note, work  # noqa: F401 - producers take them from here


@app.task(rate_limit="10/s")
def limited(number: int, seconds: float = 0.0) -> int:
    note(f"limited {number} {time.time():.4f}")
    time.sleep(seconds)
    return number


@app.task(rate_limit="30/m")
def rare(number: int) -> int:
    note(f"rare {number} {time.time():.4f}")
    return number
