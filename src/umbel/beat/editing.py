"""What an operator asks of the schedule, and does to it, while it runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from umbel.beat.entry import Entry
from umbel.beat.planning import last_of_interval, next_slot
from umbel.beat.sending import Run, send_now
from umbel.beat.stores import open_stores
from umbel.beat.timetable import Timetable
from umbel.exceptions import UmbelError
from umbel.schedule_store import Row, ScheduleStore, State

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["NoSuchEntryError", "Schedule", "open_schedule", "upcoming"]


class NoSuchEntryError(UmbelError, LookupError):
    """There is no periodic task of that name."""


class Schedule:
    """All periodic tasks of an app: those of `beat_schedule`, and those of the store."""

    def __init__(self, app: Umbel, store: ScheduleStore, configured: Mapping[str, Mapping[str, Any]]) -> None:
        self._app, self._store = app, store
        self._table = Timetable(app, store, configured)
        self._table.load()

    def __iter__(self) -> Iterator[tuple[Entry, State]]:
        """Iterate over the entries, by name, and what was handled of each."""
        for name in sorted(self._table.entries):
            yield self._table.entries[name], self._table.states[name]

    def find(self, name: str) -> tuple[Entry, State]:
        """Return one entry.

        Raises:
            NoSuchEntryError: there is none.
        """
        if name not in self._table.entries:
            near = difflib.get_close_matches(name, self._table.entries, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "`umbel beat list` shows those that there are."
            raise NoSuchEntryError(f"There is no periodic task {name!r}. {hint}")
        return self._table.entries[name], self._table.states[name]

    def upcoming(self, entry: Entry, state: State, count: int) -> list[float]:
        """Return the next slots of an entry, in seconds since the epoch: of one that is off, those that it would have."""
        return upcoming(entry, state, count, self._store.now())

    def pause(self, name: str) -> None:
        """Send nothing of an entry until it is resumed."""
        self._edit(name, enabled=False)

    def resume(self, name: str) -> None:
        """Send it again, from now on."""
        self._edit(name, enabled=True, since=self._store.now())

    def run(self, name: str) -> str:
        """Send an entry now, beside its schedule; return the id of the task."""
        entry, _ = self.find(name)
        return send_now(self._app, Run(replace(entry, overlap="allow"), self._store.now()))

    def _edit(self, name: str, **said: Any) -> None:
        self.find(name)
        text = self._table.rows.get(name)
        before = msgspec.json.decode(text) if text else {}
        self._store.put([Row(name, msgspec.json.encode({**before, **said}))])


def upcoming(entry: Entry, state: State, count: int, now: float) -> list[float]:
    """Return the next slots of an entry, in seconds since the epoch: of one that is off, those that it would have."""
    left = count if entry.max_runs is None else min(count, entry.max_runs - state.runs)
    slots: list[float] = []
    after = last_of_interval(entry, max(state.slot, entry.since or state.slot), now)
    while len(slots) < left and (slot := next_slot(entry, slots[-1] if slots else after)) is not None:
        slots.append(slot)
    return slots


@contextmanager
def open_schedule(app: Umbel) -> Iterator[Schedule]:
    """Read the schedule of *app*.

    Raises:
        ImproperlyConfigured: no store keeps it.
    """
    leases, store = open_stores(app)
    leases.close()
    try:
        yield Schedule(app, store, app.conf.beat_schedule or {})
    finally:
        store.close()
