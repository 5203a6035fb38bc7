"""The result backend on tables that Celery's programs read and write, too."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, insert, or_, select, update
from sqlalchemy import bindparam as named
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError

from umbel.backend import Record, ResultBackend
from umbel.clock import Clock, SystemClock
from umbel.drivers.acceptance import may_replace
from umbel.drivers.chunks import chunks
from umbel.drivers.sql.engine import Database
from umbel.drivers.sql.flow_tables import FlowTables
from umbel.drivers.sql.flows import SQLFlows
from umbel.drivers.sql.rows import Row, form_of, to_document, to_row
from umbel.drivers.sql.tables import Tables
from umbel.exceptions import BackendUnavailable
from umbel.states import FAILURE
from umbel.wire.serializers import content_types

__all__ = ["SQLBackend"]

logger = logging.getLogger("celery.backends.database")

MOST_ROWS, MOST_BYTES = 200, 4_000_000  # in one transaction
PRUNED_AT_ONCE = 1000
PRUNE_EVERY = 60.0  # seconds between two times that a process which writes deletes what has expired
LONGEST_ID = 155  # characters in the column
UNFIT = (DataError, IntegrityError)  # what is about the row, and no sign of an outage


class SQLBackend(SQLFlows, ResultBackend):
    """Results in `celery_taskmeta`.

    Args:
        url: as SQLAlchemy has it.
        options: the settings of SQL results, without `database_` before them; `serializer`, `accept` and `expires` are those of results.
        timeout: seconds to connect in.
        clock: of the time of expiry, for tests.
    """

    is_shared_with_celery = True

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        options, self._clock = options or {}, clock or SystemClock()
        serializer = options.get("serializer", "json")
        self._form = form_of(serializer, frozenset(options.get("accept") or content_types([serializer])))
        self._tables = Tables(options.get("table_names") or {}, options.get("table_schemas") or {})
        self._flow_tables = FlowTables((options.get("table_schemas") or {}).get("task"))
        self._database = Database(url, self._tables, options, timeout)
        self._at_setup = options.get("create_tables_at_setup", True)
        self._expires: float | None = options.get("expires")  # of rows that say nothing of it: Celery's
        self._next_prune = 0.0

    def open(self) -> None:
        if self._at_setup:
            self._database.prepare()
        else:
            self._database.ping()

    def close(self) -> None:
        self._database.close()

    # --- writing

    def store(self, records: Sequence[Record]) -> list[bool]:
        flags: list[bool] = []
        for chunk in chunks(records, lambda record: len(record.meta), MOST_ROWS, MOST_BYTES):
            try:
                flags += self._database.write(partial(self._store, records=chunk))
            except BackendUnavailable as exc:
                if not isinstance(exc.__cause__, UNFIT):
                    raise
                flags += [self._store_somehow(record) for record in chunk]
        self._prune_now_and_then()
        return flags

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        flags = super().bind(copies, expires=expires)
        self._prune_now_and_then()  # perhaps nothing else is written here: results are ignored
        return flags

    def _store_somehow(self, record: Record) -> bool:
        """Store one record of a batch that the database refused; if it is this one, say that instead: somebody may wait for it."""
        unfit = self._unfit(record, "The database has no room for it. See the log of the worker.")
        for each, plain in ((record, False), (record, True), (unfit, True)):
            try:
                return self._database.write(partial(self._store, records=[each], plain=plain))[0]
            except BackendUnavailable as exc:
                if not isinstance(exc.__cause__, UNFIT):
                    raise
                logger.error("The result of %s cannot be stored as it is: %s", record.id, exc)  # noqa: TRY400 - what it says is all
        return False

    def _unfit(self, record: Record, why: str) -> Record:
        error = {"exc_type": "BackendStoreError", "exc_message": [f"The result cannot be stored. {why}"], "exc_module": "umbel.exceptions"}
        fields = {"status": FAILURE, "result": error, "date_done": datetime.now(UTC).isoformat()}
        meta = self._form.join({name: self._form.write(value) for name, value in fields.items()})
        return Record(id=record.id, state=FAILURE, meta=meta, fence=record.fence, expires=record.expires)

    def _store(self, connection: Connection, records: Sequence[Record], *, plain: bool = False) -> list[bool]:
        """Store *records* in the transaction that is open; *plain*: with text of ASCII only, as a table may know no other."""
        table, now = self._tables.tasks, self._clock.now()
        # In order of the ids: two that lock the same rows must not wait for one another.
        found = connection.execute(
            select(table.c.id, table.c.task_id, *self._there("status", "umbel_fence", "umbel_expires"))
            .where(table.c.task_id.in_({record.id for record in records})).order_by(table.c.task_id).with_for_update()
        ).mappings()  # fmt: skip
        there: dict[str, Row] = {row["task_id"]: dict(row) for row in found}
        known = {key: (row["status"], row.get("umbel_fence") or 0) for key, row in there.items() if not has_expired(row, now)}
        rows: dict[str, Row] = {}
        flags = []
        for record in records:
            old = known.get(record.id)
            flags.append(has_room(record.id) and (old is None or may_replace(record, *old)))
            if flags[-1]:
                fence = max(record.fence, old[1] if old else 0)
                known[record.id] = (record.state, fence)
                rows[record.id] = self._row(record, fence, now, "ascii" if plain else "utf-8")
        self._write_rows(connection, dict(sorted(rows.items())), there)
        return flags

    def _there(self, *names: str) -> list[ColumnElement[Any]]:
        """Return those of the columns that the table has."""
        return [self._tables.tasks.c[name] for name in names if name in self._tables.columns]

    def _row(self, record: Record, fence: int, now: float, charset: str) -> Row:
        row = {
            **to_row(record.meta, record.state, self._form),
            "task_id": record.id,
            "umbel_fence": fence,
            "umbel_expires": None if record.expires is None else now + record.expires,
        }
        return {name: printable(row[name], charset) for name in self._tables.columns}

    def _write_rows(self, connection: Connection, rows: Mapping[str, Row], there: Mapping[str, Row]) -> None:
        table = self._tables.tasks
        if new := [row for key, row in rows.items() if key not in there]:
            connection.execute(insert(table), new)
        if changed := [{**row, "row_id": there[key]["id"]} for key, row in rows.items() if key in there]:
            values: dict[str, Any] = {name: named(name) for name in self._tables.columns}
            connection.execute(update(table).where(table.c.id == named("row_id")).values(values), changed)

    def forget(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), MOST_ROWS):
            self._database.write(partial(self._forget, ids=sorted(ids[start : start + MOST_ROWS])))

    def _forget(self, connection: Connection, ids: Sequence[str]) -> None:
        connection.execute(delete(self._tables.tasks).where(self._tables.tasks.c.task_id.in_(ids)))

    # --- reading

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), MOST_ROWS):
            found |= self._database.read(partial(self._documents, ids=ids[start : start + MOST_ROWS]))
        return [found.get(task_id) for task_id in ids]

    def _documents(self, connection: Connection, ids: Sequence[str]) -> dict[str, bytes]:
        query = select(*self._there(*self._tables.columns)).where(self._tables.tasks.c.task_id.in_(ids))
        rows, now = map(dict, connection.execute(query).mappings()), self._clock.now()
        return {row["task_id"]: to_document(row, self._form) for row in rows if not has_expired(row, now)}

    # --- what has expired

    def prune(self) -> int:
        total = 0
        for table in (self._tables.tasks, self._tables.groups):
            removed = PRUNED_AT_ONCE
            while removed == PRUNED_AT_ONCE:
                removed = self._prune(table)
                total += removed
        while removed := self.prune_flows():
            total += removed
        return total

    def _prune(self, table: Table) -> int:
        """Delete some rows that have expired: few at once, as others want to write."""

        def work(connection: Connection) -> int:
            condition = self._expired(table)
            if condition is None:
                return 0
            ids = list(connection.scalars(select(table.c.id).where(condition).limit(PRUNED_AT_ONCE)))
            if ids:
                connection.execute(delete(table).where(table.c.id.in_(ids), condition))
            return len(ids)

        return self._database.write(work)

    def _expired(self, table: Table) -> ColumnElement[bool] | None:
        """Return what holds of a row that has expired; None if none can. Rows of Celery's expire by `result_expires`."""
        old = None
        if self._expires is not None:
            old = table.c.date_done < datetime.fromtimestamp(self._clock.now() - self._expires, UTC).replace(tzinfo=None)
        if table is self._tables.groups or not self._tables.fenced:
            return old
        ours = table.c.umbel_expires <= self._clock.now()
        return ours if old is None else or_(ours, and_(table.c.umbel_expires.is_(None), old))

    def _prune_now_and_then(self) -> None:
        if time.monotonic() > self._next_prune:
            self._next_prune = time.monotonic() + PRUNE_EVERY
            with contextlib.suppress(BackendUnavailable):  # what was stored is stored
                self._prune(self._tables.tasks)
                self._prune(self._tables.groups)
                self.prune_flows()


def has_room(task_id: str) -> bool:
    """Answer whether an id fits into its column; one that does not has no result here."""
    if len(task_id) > LONGEST_ID:
        logger.error("The result of %s… is not stored: its id has %d characters, the column %d.", task_id[:60], len(task_id), LONGEST_ID)
        return False
    return True


def has_expired(row: Row, now: float) -> bool:
    """Answer whether a row says that its time is over."""
    expires = row.get("umbel_expires")
    return expires is not None and expires <= now


def printable(value: Any, charset: str) -> Any:
    """Return what every database takes as text: no zero, nothing that is half a character, and nothing that *charset* does not have."""
    if isinstance(value, str):
        return value.replace("\x00", "\\x00").encode(charset, "backslashreplace").decode()
    return value
