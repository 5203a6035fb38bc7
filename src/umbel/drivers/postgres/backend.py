"""The result backend in PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Record, ResultBackend
from umbel.drivers.postgres.database import Database
from umbel.drivers.postgres.flows import PRUNE_FLOWS, PostgresFlows
from umbel.drivers.postgres.schema import rename, script
from umbel.drivers.postgres.session import Session
from umbel.drivers.postgres.settling import apart, documents
from umbel.drivers.postgres.waiting import wait_for
from umbel.exceptions import BackendUnavailable
from umbel.ids import uuid
from umbel.watch import Polling, Watch

__all__ = ["PostgresBackend"]

FEW = 20  # ids that one is rung for
PRUNED_AT_ONCE, FLOWS_AT_ONCE = 5000, 50  # a flow may have many rows
SWEEP_EVERY = 5.0  # seconds between two times that a process which writes deletes what has expired: the broker may be another
STORE = "SELECT umbel.store(%s::text[], %s::text[], %s::bigint[], %s::double precision[], %b::bytea[])"
GET = "SELECT id, meta FROM umbel.results WHERE id = ANY (%s::text[]) AND (expires IS NULL OR expires > umbel.clock())"
SWEEP = "SELECT umbel.sweep()"
FORGET = "DELETE FROM umbel.results WHERE id = ANY (%s::text[])"
PRUNE = """
WITH gone AS (
    DELETE FROM umbel.results WHERE id IN (
        SELECT id FROM umbel.results WHERE expires <= umbel.clock() ORDER BY expires LIMIT %s FOR UPDATE SKIP LOCKED)
    RETURNING 1)
SELECT count(*) FROM gone"""


class PostgresBackend(PostgresFlows, ResultBackend):
    """Results in the database that the URL names. It may be the broker's, and then both are written in one step."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._database = Database(url, options=options or {}, timeout=timeout, error=BackendUnavailable)
        self._swept = 0.0

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells this store from any other."""
        return self._database.identity

    def open(self) -> None:
        self._database.call("SELECT FROM umbel.results LIMIT 1", repeat=True)

    def close(self) -> None:
        self._database.close()

    def migrate(self) -> list[str]:
        return self._database.migrate()

    def migration_sql(self) -> str:
        return script(self._database.schema)

    def store(self, records: Sequence[Record]) -> list[bool]:
        flags = list[bool]()
        for some in apart(records, lambda record: (record.id,)):
            stored = set(self._database.call(STORE, documents(some))[0][0])
            flags += [each.id in stored for each in some]
        self._sweep_now_and_then()
        return flags

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        flags = super().bind(copies, expires=expires)
        self._sweep_now_and_then()  # perhaps nothing else is written here: the results are elsewhere
        return flags

    def _sweep_now_and_then(self) -> None:
        if time.monotonic() > self._swept + SWEEP_EVERY:
            self._swept = time.monotonic()
            with contextlib.suppress(BackendUnavailable):  # what was stored is stored
                self._database.call(SWEEP)
                self._database.call(PRUNE_FLOWS, (FLOWS_AT_ONCE,))

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        if not ids:
            return []
        found: dict[str, bytes] = dict(self._database.call(GET, (list(ids),), repeat=True))
        return [found.get(task_id) for task_id in ids]

    def watch(self) -> Watch:
        return PostgresWatch(self, self._database)

    def forget(self, ids: Sequence[str]) -> None:
        self._database.call(FORGET, (list(ids),), repeat=True)

    def prune(self) -> int:
        total, removed = 0, PRUNED_AT_ONCE
        while removed == PRUNED_AT_ONCE:
            removed = int(self._database.call(PRUNE, (PRUNED_AT_ONCE,))[0][0])
            total += removed
        while removed := int(self._database.call(PRUNE_FLOWS, (FLOWS_AT_ONCE,))[0][0]):
            total += removed
        return total


class PostgresWatch(Polling):
    """Is rung for, if it waits for few; who waits for many looks every 0.1 s, as to say for what one waits is a write for each."""

    last_look = 0.1

    def __init__(self, backend: PostgresBackend, database: Database) -> None:
        super().__init__(backend)
        self._database, self._name = database, uuid()
        self._sql = rename(GET, database.schema)

    def wait(self, timeout: float) -> Mapping[str, bytes]:
        if len(self.seen) > FEW:
            return super().wait(timeout)
        news = dict[str, bytes]()

        def look(session: Session) -> float | None:
            news.update(self.compared(dict(session.rows(self._sql, (list(self.seen),)))))
            return 0.0 if news or self.woken.is_set() else None

        wait_for(self._database, [f"r:{task_id}" for task_id in self.seen], self._name, look, timeout)
        self.woken.clear()
        return news
