"""Schedules in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umbel.clock import Clock, SystemClock
from umbel.drivers.changes import begins_anew, changes_of
from umbel.drivers.chunks import chunks
from umbel.drivers.sqlite.database import Database, path_of
from umbel.exceptions import BrokerUnavailable
from umbel.schedule_store import REMOVALS_KEPT, Changes, Row, ScheduleStore, State

__all__ = ["SQLiteSchedules"]

AT_ONCE = 1000  # rows in one transaction, or states in one answer
MOST_BYTES = 8_000_000  # of them
FORGOTTEN = 2000  # removals in one transaction

KNOWN = "SELECT mark, floor FROM umbel_schedules WHERE name = ?"
NEXT_MARK = """
INSERT INTO umbel_schedules (name, mark, floor) VALUES (:name, :now + 1, :now)
ON CONFLICT DO UPDATE SET mark = max(mark, :now) + 1, floor = CASE floor WHEN 0 THEN :now ELSE floor END RETURNING mark"""
ROWS = "SELECT mark, name, text FROM umbel_schedule_rows WHERE schedule = ? AND mark > ? ORDER BY mark LIMIT ?"
ALL_ROWS = """
SELECT mark, name, text FROM umbel_schedule_rows WHERE schedule = ? AND mark > ? AND text IS NOT NULL ORDER BY mark LIMIT ?"""
TEXT = "SELECT text FROM umbel_schedule_rows WHERE schedule = ? AND name = ?"
PUT = """
INSERT INTO umbel_schedule_rows (schedule, name, mark, text) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET mark = excluded.mark, text = excluded.text"""
OLD_REMOVALS = """
SELECT max(mark) FROM
(SELECT mark FROM umbel_schedule_rows WHERE schedule = ? AND text IS NULL AND mark < ? ORDER BY mark LIMIT ?)"""
FORGET = "DELETE FROM umbel_schedule_rows WHERE schedule = ? AND text IS NULL AND mark <= ?"
SET_FLOOR = "UPDATE umbel_schedules SET floor = max(floor, ?) WHERE name = ?"
STATE = "SELECT name, slot, runs, id, sent FROM umbel_schedule_states WHERE schedule = ? AND name = ?"
FORGET_STATE = "DELETE FROM umbel_schedule_states WHERE schedule = ? AND name = ?"
FENCE = """
INSERT INTO umbel_schedules (name, mark, floor, fence) VALUES (:name, 0, 0, :fence)
ON CONFLICT DO UPDATE SET fence = :fence WHERE fence <= :fence"""
ADVANCE = """
INSERT INTO umbel_schedule_states (schedule, name, slot, runs, id, sent) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET slot = excluded.slot, runs = excluded.runs, id = excluded.id, sent = excluded.sent WHERE slot <= excluded.slot"""


class SQLiteSchedules(ScheduleStore):
    """A schedule in a file. Its clock is that of the host, which all who use the file share."""

    def __init__(
        self, url: str, *, name: str = "beat", removals_kept: float = REMOVALS_KEPT, options: Mapping[str, Any] | None = None,
        timeout: float = 2.0, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._database = Database(path_of(url), options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._name, self._removals_kept, self._clock = name, removals_kept, clock or SystemClock()

    def now(self) -> float:
        return self._clock.now()

    def changed_since(self, mark: int, *, limit: int = 1000) -> Changes:
        with self._database.read() as connection:
            connection.execute("BEGIN")  # so that what it reads is of one moment
            try:
                last, floor = connection.execute(KNOWN, (self._name,)).fetchone() or (0, 0)
                if mark == last > 0:
                    return Changes(mark)
                whole = begins_anew(mark, last=last, floor=floor)
                values = (self._name, 0 if whole else abs(mark), limit + 1)
                found = connection.execute(ALL_ROWS if whole else ROWS, values).fetchall()
            finally:
                connection.execute("ROLLBACK")
        return changes_of(found[:limit], mark=mark, more=len(found) > limit, last=last, whole=whole)

    def put(self, rows: Iterable[Row]) -> None:
        for some in chunks(rows, lambda row: len(row.text), AT_ONCE, MOST_BYTES):
            with self._database.write() as connection:
                for row in some:
                    self._put(connection, row)

    def _put(self, connection: sqlite3.Connection, row: Row) -> None:
        old = connection.execute(TEXT, (self._name, row.name)).fetchone()
        if old is None or old[0] is None:
            connection.execute(FORGET_STATE, (self._name, row.name))
        elif old[0] == row.text:
            return
        self._change(connection, row.name, row.text)

    def _change(self, connection: sqlite3.Connection, name: str, text: bytes | None) -> None:
        values = {"name": self._name, "now": int(self._clock.now() * 1e6)}
        mark = connection.execute(NEXT_MARK, values).fetchall()[0][0]
        connection.execute(PUT, (self._name, name, mark, text))

    def remove(self, names: Iterable[str]) -> int:
        removed = 0
        for some in chunks(names, len, AT_ONCE, MOST_BYTES):
            with self._database.write() as connection:
                for name in some:
                    connection.execute(FORGET_STATE, (self._name, name))
                    old = connection.execute(TEXT, (self._name, name)).fetchone()
                    if old is not None and old[0] is not None:
                        self._change(connection, name, None)
                        removed += 1
                self._forget(connection)
        return removed

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Forget old removals."""
        before = int((self._clock.now() - self._removals_kept) * 1e6)
        mark = connection.execute(OLD_REMOVALS, (self._name, before, FORGOTTEN)).fetchone()[0]
        if mark is not None:
            connection.execute(FORGET, (self._name, mark))
            connection.execute(SET_FLOOR, (mark, self._name))

    def states(self, names: Iterable[str]) -> dict[str, State]:
        found = {}
        for some in chunks(dict.fromkeys(names), len, AT_ONCE, MOST_BYTES):
            with self._database.read() as connection:
                rows = (connection.execute(STATE, (self._name, name)).fetchone() for name in some)
                found.update({row[0]: State(*row) for row in rows if row is not None})
        return found

    def advance(self, states: Sequence[State], *, fence: int) -> bool:
        with self._database.write() as connection:
            if connection.execute(FENCE, {"name": self._name, "fence": fence}).rowcount != 1:
                return False
            connection.executemany(ADVANCE, [(self._name, each.name, each.slot, each.runs, each.id, each.sent) for each in states])
            return True

    def close(self) -> None:
        self._database.close()
