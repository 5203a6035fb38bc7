"""Schedules in PostgreSQL: a row for each entry, and one for each state (see `migrations/0004_schedules.sql`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umbel.clock import Clock
from umbel.drivers.changes import changes_of
from umbel.drivers.chunks import chunks
from umbel.drivers.postgres.database import Database
from umbel.exceptions import BrokerUnavailable
from umbel.schedule_store import REMOVALS_KEPT, Changes, Row, ScheduleStore, State

__all__ = ["PostgresSchedules"]

AT_ONCE = 1000  # rows, names or states in one call
MOST_BYTES = 8_000_000  # of them

NOW = "SELECT umbel.clock()"
CHANGES = "SELECT o_mark, o_name, o_text, o_whole FROM umbel.schedule_changes(%s, %s, %s::integer)"
PUT = "SELECT umbel.schedule_put(%s, %s::text[], %b::bytea[])"
REMOVE = "SELECT umbel.schedule_remove(%s, %s::text[], %s)"
STATES = "SELECT name, slot, runs, id, sent FROM umbel.schedule_states WHERE schedule = %s AND name = ANY (%s::text[])"
ADVANCE = "SELECT umbel.schedule_advance(%s, %s, %s::text[], %s::double precision[], %s::bigint[], %s::text[], %s::float8[])"


class PostgresSchedules(ScheduleStore):
    """A schedule by the server's clock."""

    def __init__(
        self, url: str, *, name: str = "beat", removals_kept: float = REMOVALS_KEPT, options: Mapping[str, Any] | None = None,
        timeout: float = 2.0, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        del clock  # every driver is handed one; here the server's decides
        self._database = Database(url, options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._name, self._removals_kept = name, removals_kept

    def now(self) -> float:
        return float(self._database.call(NOW, repeat=True)[0][0])

    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        (last, _, _, whole), *found = self._database.call(CHANGES, (self._name, mark, limit + 1), repeat=True)
        if mark == last > 0:
            return Changes(mark)
        rows = [row[:3] for row in found[:limit]]
        return changes_of(rows, mark=mark, more=len(found) > limit, last=last, whole=whole)

    def put(self, rows: Iterable[Row]) -> None:
        for some in chunks(rows, lambda row: len(row.text), AT_ONCE, MOST_BYTES):
            last = {row.name: row for row in some}  # of two with one name
            texts = [row.text for row in last.values()]
            self._database.call(PUT, (self._name, list(last), texts), repeat=True)

    def remove(self, names: Iterable[str]) -> int:
        return sum(
            self._database.call(REMOVE, (self._name, list(dict.fromkeys(some)), self._removals_kept))[0][0]
            for some in chunks(names, len, AT_ONCE, MOST_BYTES)
        )

    def states(self, names: Iterable[str]) -> dict[str, State]:
        found = {}
        for some in chunks(dict.fromkeys(names), len, AT_ONCE, MOST_BYTES):
            rows = {row[0]: State(*row) for row in self._database.call(STATES, (self._name, some), repeat=True)}
            found.update({name: rows[name] for name in some if name in rows})
        return found

    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        columns = ([each.name for each in states], [float(each.slot) for each in states], [each.runs for each in states])
        values = (self._name, fence, *columns, [each.id for each in states], [float(each.sent) for each in states])
        return bool(self._database.call(ADVANCE, values, repeat=True)[0][0])

    def close(self) -> None:
        self._database.close()
