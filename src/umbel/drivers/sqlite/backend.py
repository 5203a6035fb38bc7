"""The result backend in an SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Record, ResultBackend
from umbel.clock import Clock, SystemClock
from umbel.drivers.acceptance import may_replace
from umbel.drivers.sqlite.database import Database, path_of
from umbel.drivers.sqlite.flows import SQLiteFlows, prune_flows
from umbel.exceptions import BackendUnavailable
from umbel.watch import Polling, Watch

__all__ = ["SQLiteBackend", "write_record"]

CHUNK = 500  # results deleted in one transaction: others want to write too

TURN = 0.05  # seconds after which one who waits for results sees that somebody else waits for others

PRUNED_WITH_EACH = 2  # expired results deleted with each that is written: more than one, so that they become fewer

FIND = "SELECT state, fence FROM umbel_results WHERE id = ? AND (expires IS NULL OR expires > ?)"
READ = "SELECT meta FROM umbel_results WHERE id = ? AND (expires IS NULL OR expires > ?)"
WRITE = "INSERT OR REPLACE INTO umbel_results (id, state, fence, expires, meta) VALUES (?, ?, ?, ?, ?)"
PRUNE = "DELETE FROM umbel_results WHERE rowid IN (SELECT rowid FROM umbel_results WHERE expires <= ? LIMIT ?)"


class SQLiteBackend(SQLiteFlows, ResultBackend):
    """Results in the file that the URL names. It may be the broker's file, and then both are written in one step."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self.path = os.path.realpath(path_of(url))
        self._database = Database(self.path, options=options or {}, timeout=timeout, error=BackendUnavailable)
        self._clock = clock or SystemClock()

    def open(self) -> None:
        with self._database.read() as connection:
            connection.execute("SELECT 1 FROM umbel_results LIMIT 1")

    def close(self) -> None:
        self._database.close()

    def store(self, records: Sequence[Record]) -> list[bool]:
        with self._database.write() as connection:
            now = self._clock.now()
            return [write_record(connection, record, now) for record in records]

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        with self._database.read() as connection:
            return [self._meta(connection, task_id) for task_id in ids]

    def _meta(self, connection: sqlite3.Connection, task_id: str) -> bytes | None:
        row = connection.execute(READ, (task_id, self._clock.now())).fetchone()
        return row[0] if row else None

    def watch(self) -> Watch:
        return SQLiteWatch(self, self._database)

    def forget(self, ids: Sequence[str]) -> None:
        with self._database.write() as connection:
            connection.executemany("DELETE FROM umbel_results WHERE id = ?", [(task_id,) for task_id in ids])

    def prune(self) -> int:
        total, removed = 0, CHUNK
        while removed == CHUNK:
            with self._database.write() as connection:
                removed = connection.execute(PRUNE, (self._clock.now(), CHUNK)).rowcount
            total += removed
        return total + prune_flows(self._database, self._clock.now())


class SQLiteWatch(Polling):
    """Looks again when the file has changed."""

    def __init__(self, backend: SQLiteBackend, database: Database) -> None:
        super().__init__(backend)
        self._database = database

        self._version: object = None

    def look(self) -> dict[str, bytes]:
        with self._database.read() as connection:
            self._version = self._read_version(connection)  # before the documents: what comes after it is looked at again
        return super().look()

    def _read_version(self, connection: sqlite3.Connection) -> object:
        return self._database.commits, connection.execute("PRAGMA data_version").fetchone()[0]

    def pause(self, least: float, most: float) -> None:
        end = time.monotonic() + most
        if self.woken.wait(least):
            return
        changed = False

        def look(connection: sqlite3.Connection) -> float | None:
            nonlocal changed
            changed = self._read_version(connection) != self._version
            return 0.0 if changed else None

        while not changed and not self.woken.is_set() and (left := end - time.monotonic()) > 0:
            self._database.wait(look, min(TURN, left))


def write_record(connection: sqlite3.Connection, record: Record, now: float) -> bool:
    """Store one result in the transaction that is open, unless what is there forbids it; and delete some that have expired."""
    old = connection.execute(FIND, (record.id, now)).fetchone()
    if old is not None and not may_replace(record, *old):
        return False
    expires = None if record.expires is None else now + record.expires
    fence = max(record.fence, old[1] if old else 0)
    connection.execute(WRITE, (record.id, record.state, fence, expires, record.meta))
    connection.execute(PRUNE, (now, PRUNED_WITH_EACH))
    return True
