# ruff: noqa: ARG002 - not every driver needs every argument
"""Schedules in memory. Each method is one step under the store's lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.changes import begins_anew, changes_of
from umbel.drivers.memory.store import store_of
from umbel.schedule_store import REMOVALS_KEPT, Changes, Row, ScheduleStore, State

__all__ = ["MemorySchedules"]


class MemorySchedules(ScheduleStore):
    """A schedule that lives and dies with this process."""

    def __init__(
        self,
        url: str = "memory://",
        *,
        name: str = "beat",
        removals_kept: float = REMOVALS_KEPT,
        options: Mapping[str, Any] | None = None,
        timeout: float = 2.0,
        clock: Clock | None = None,
    ) -> None:
        state = store_of(url)
        self._lock, self._schedule = state.changed, state.schedules[name]
        self._clock, self._removals_kept = clock or SystemClock(), removals_kept

    def now(self) -> float:
        return self._clock.now()

    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        with self._lock:
            mine = self._schedule
            if mark == mine.mark > 0:
                return Changes(mark)
            whole = begins_anew(mark, last=mine.mark, floor=mine.floor)
            since = 0 if whole else abs(mark)
            newest_first = ((at, name, text) for name, (at, text) in reversed(mine.rows.items()))
            after = list(takewhile(lambda each: each[0] > since, newest_first))[::-1]
            found = [each for each in after if each[2] is not None or not whole]
            return changes_of(found[:limit], mark=mark, more=len(found) > limit, last=mine.mark, whole=whole)

    def put(self, rows: Iterable[Row]) -> None:
        with self._lock:
            for row in rows:
                old = self._schedule.rows.get(row.name, (0, None))[1]
                if old is None:
                    self._schedule.states.pop(row.name, None)
                if old != row.text:
                    self._change(row.name, row.text)

    def remove(self, names: Iterable[str]) -> int:
        with self._lock:
            removed = 0
            for name in names:
                self._schedule.states.pop(name, None)
                if self._schedule.rows.get(name, (0, None))[1] is not None:
                    self._change(name, None)
                    removed += 1
            self._forget()
            return removed

    def _change(self, name: str, text: bytes | None) -> None:
        mine, now = self._schedule, int(self._clock.now() * 1e6)
        mine.floor = mine.floor or now
        mine.mark = max(mine.mark + 1, now + 1)
        mine.rows.pop(name, None)
        mine.rows[name] = mine.mark, text

    def _forget(self) -> None:
        """Forget old removals."""
        mine, before = self._schedule, (self._clock.now() - self._removals_kept) * 1e6
        for name, mark in [(name, mark) for name, (mark, text) in mine.rows.items() if text is None and mark < before]:
            del mine.rows[name]
            mine.floor = max(mine.floor, mark)

    def states(self, names: Iterable[str]) -> dict[str, State]:
        with self._lock:
            return {name: self._schedule.states[name] for name in names if name in self._schedule.states}

    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        with self._lock:
            mine = self._schedule
            if fence < mine.fence:
                return False
            mine.fence = fence
            for state in states:
                if state.name not in mine.states or mine.states[state.name].slot <= state.slot:
                    mine.states[state.name] = state
            return True

    def close(self) -> None:
        pass
