"""Whether the run before has ended, for entries that must not run beside themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from umbel.beat.planning import slot_of
from umbel.beat.sending import run_id
from umbel.beat.timetable import Due

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["last_id", "still_running"]

DAY = 86400.0


def still_running(app: Umbel, due: Due, now: float) -> bool:
    """Answer whether an entry that must not run beside itself has a run that has not ended.

    A run has ended when its result says so. One without a result has not, though its worker was killed: its message comes back. After
    `result_expires` a result is gone, and nobody knows: it counts as ended.
    """
    last = due.state.id
    if due.entry.overlap == "allow" or not last or now - slot_of(last) > memory(app):
        return False
    return not app.AsyncResult(last_id(app, due)).ready()


def last_id(app: Umbel, due: Due) -> str:
    """Return the id of the task of the run before."""
    return run_id(app, due.state.id, due.entry.options)


def memory(app: Umbel) -> float:
    """Return for how many seconds a result is kept."""
    expires = app.conf.result_expires
    return expires.total_seconds() if isinstance(expires, timedelta) else float(expires or DAY)
