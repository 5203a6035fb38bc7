"""The faults' tasks, and what is told of those that were revoked."""

import signal
import time

from faults_app import app, begins, begins_async, early, holds_the_lock, note, work  # noqa: F401 - producers take them from here

from umbel.exceptions import SoftTimeLimitExceeded
from umbel.signals import task_revoked


@app.task
def cleans_up(number: int) -> int:
    """Has a handler of its own for SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: note(f"told {number}"))
    note(f"begins {number}")
    time.sleep(60)
    return number


@app.task
def hears(number: int) -> str:
    note(f"begins {number}")
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "heard"
    return "not heard"


@task_revoked.connect
def say_revoked(*, request, terminated, signum, expired, **_: object) -> None:
    note(f"revoked {request.args[0]} terminated={terminated} signum={signum} expired={expired}")
