"""Tools that replace `celery.beat.Scheduler.apply_entry`, as Sentry does, see each run of umbel's own scheduler; what they say counts."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from umbel.beat.entry import Entry

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["as_watched"]

CLASSIC = "umbel.beat.classic"


def as_watched(app: Umbel, entry: Entry) -> Entry:
    """Return *entry* as whoever has replaced `apply_entry` makes it."""
    classic = sys.modules.get(CLASSIC)
    if classic is None or classic.Scheduler.apply_entry is classic.APPLY_ENTRY:
        return entry
    shown = classic.ScheduleEntry(
        entry.name, entry.task, schedule=entry.schedule, args=entry.args, kwargs=dict(entry.kwargs),
        options={**entry.options, "headers": dict(entry.options.get("headers") or {})}, app=app,
    )  # fmt: skip
    stand_in = classic.Scheduler(app, lazy=True)
    seen: list[Any] = []
    vars(stand_in).update(apply_async=lambda found, **_: seen.append(found), _announce=lambda _: None)
    stand_in.apply_entry(shown)
    said = seen[0] if seen else shown
    return replace(entry, args=said.args, kwargs=said.kwargs, options=said.options)
