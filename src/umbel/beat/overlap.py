"""Whether the run before has ended, for entries that must not run beside themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from umbel.beat.planning import ran_at
from umbel.beat.sending import run_id
from umbel.beat.timetable import Due
from umbel.states import READY_STATES

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["last_id", "running"]

logger = logging.getLogger("celery.beat")

DAY = 86400.0


def running(app: Umbel, dues: Sequence[Due], now: float) -> set[str]:
    """Return the names of those that must not run beside themselves and have a run that has not ended: one question for all of them.

    A run has ended when its result says so. One without a result has not, though its worker was killed: its message comes back. After
    `result_expires` a result is gone, and nobody knows: it counts as ended.
    """
    asked = [due for due in dues if due.plan.slots and due.entry.overlap != "allow" and due.state.id]
    asked = [due for due in asked if now - ran_at(due.entry, due.state) <= memory(app)]
    if not asked:
        return set()
    documents = app.backend.get([last_id(app, due) for due in asked])
    return {due.entry.name for due, document in zip(asked, documents, strict=True) if not has_ended(app, due, document)}


def has_ended(app: Umbel, due: Due, document: bytes | None) -> bool:
    """Answer whether the result of the run before, as it was read, says that it has ended."""
    if document is None:
        return False
    try:
        return app.read_meta(document)["status"] in READY_STATES
    except Exception as exc:  # noqa: BLE001 - whatever stands there holds up no entry
        logger.warning("beat: The result of %s cannot be read, and counts as ended: %s", due.state.id, exc)
        return True


def last_id(app: Umbel, due: Due) -> str:
    """Return the id of the task of the run before."""
    return run_id(app, due.state.id, due.entry.options)


def memory(app: Umbel) -> float:
    """Return for how many seconds a result is kept."""
    expires = app.conf.result_expires
    return expires.total_seconds() if isinstance(expires, timedelta) else float(expires or DAY)
