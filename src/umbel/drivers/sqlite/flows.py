# ruff: noqa: S608 - what is put into the statements are names of this file
"""Workflows in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over
from umbel.clock import Clock
from umbel.drivers.joins import JoinState, end_of
from umbel.drivers.sqlite.database import Database

__all__ = ["SQLiteFlows", "prune_flows"]

PRUNED_WITH_EACH = 1000  # rows of expired flows deleted with each call that writes nodes, of which it writes at most 500
CHUNK = 2000  # rows deleted in one transaction: others want to write too

LIVES = "(expires IS NULL OR expires > :now)"
FLOW_LIVES = f"EXISTS (SELECT 1 FROM umbel_flows WHERE id = :flow AND {LIVES})"
RENEW = f"""
UPDATE umbel_flows SET expires = CASE WHEN expires IS NULL OR :ends IS NULL THEN NULL ELSE max(expires, :ends) END
WHERE id = :flow AND {LIVES}"""
BEGIN = "INSERT INTO umbel_flows (id, expires) VALUES (:flow, :ends)"
ADD_NODE = "INSERT OR IGNORE INTO umbel_nodes (flow, number, node) VALUES (?, ?, ?)"
ADD_JOIN = "INSERT OR IGNORE INTO umbel_joins (flow, number, size, data, decider, since) VALUES (?, ?, ?, ?, ?, ?)"
NODE = f"SELECT node FROM umbel_nodes WHERE flow = :flow AND number = :number AND {FLOW_LIVES}"
NUMBERS = f"SELECT number FROM umbel_nodes WHERE flow = :flow AND {FLOW_LIVES} ORDER BY number"
DATA = f"SELECT data FROM umbel_joins WHERE flow = :flow AND number = :number AND {FLOW_LIVES}"
JOIN = f"""
SELECT size, done, decider, failed, failure, sent FROM umbel_joins WHERE flow = :flow AND number = :number AND {FLOW_LIVES}"""
IS_THERE = "SELECT 1 FROM umbel_parts WHERE flow = ? AND number = ? AND position = ?"
ADD_PART = "INSERT INTO umbel_parts (flow, number, position, value) VALUES (?, ?, ?, ?)"
CHANGE = """
UPDATE umbel_joins SET done = ?, decider = ?, failed = ?, failure = ?, since = iif(? IS NULL, NULL, ?) WHERE flow = ? AND number = ?"""
VALUES = f"""
SELECT value FROM umbel_parts p JOIN umbel_joins j ON j.flow = p.flow AND j.number = p.number
WHERE p.flow = :flow AND p.number = :number AND p.position >= :first AND p.position < :last
    AND j.decider IS NOT NULL AND j.failed IS NULL AND j.sent = 0 AND {FLOW_LIVES}
ORDER BY p.position"""
SENT = "UPDATE umbel_joins SET sent = 1, since = NULL WHERE flow = ? AND number = ? AND decider IS NOT NULL"
FORGET_VALUES = "DELETE FROM umbel_parts WHERE flow = ? AND number = ?"
OVERS = f"""
SELECT j.flow, j.number, j.size, j.failed, j.failure FROM umbel_joins j JOIN umbel_flows f ON f.id = j.flow
WHERE j.since <= :since AND {LIVES} ORDER BY j.since LIMIT :limit"""
ANSWER = "UPDATE umbel_joins SET since = ? WHERE flow = ? AND number = ?"
GROWN = "SELECT position FROM umbel_grown WHERE flow = ? AND number = ? AND name = ?"
NOTE_GROWN = "INSERT INTO umbel_grown (flow, number, name, position) VALUES (?, ?, ?, ?)"
GROW = "UPDATE umbel_joins SET size = size + ? WHERE flow = ? AND number = ?"
PROGRESS = f"SELECT number, size, done, failed, sent FROM umbel_joins WHERE flow = :flow AND {FLOW_LIVES} ORDER BY number"
PARTS_OF_A_FLOW = {"umbel_nodes": "number", "umbel_parts": "rowid", "umbel_grown": "name", "umbel_joins": "number"}
EXPIRED = "SELECT id FROM umbel_flows WHERE expires <= ? ORDER BY expires LIMIT 1"
FORGET = "DELETE FROM umbel_flows WHERE id = ?"
BIND = """
INSERT INTO umbel_bound AS b (id, copy, expires) VALUES (:id, :copy, :ends) ON CONFLICT (id) DO UPDATE
SET copy = excluded.copy, expires = excluded.expires WHERE b.copy = excluded.copy OR b.expires <= :now"""
SAVE_GROUP = "INSERT OR REPLACE INTO umbel_groups (id, document, expires) VALUES (?, ?, ?)"
GROUP = f"SELECT document FROM umbel_groups WHERE id = :id AND {LIVES}"
DELETE_GROUP = "DELETE FROM umbel_groups WHERE id = ?"
PRUNE = tuple(
    f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE expires <= ? LIMIT ?)" for table in ("umbel_bound", "umbel_groups")
)


class SQLiteFlows(Flows):
    """Each method that writes is one transaction."""

    _database: Database
    _clock: Clock

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        with self._database.write() as connection:
            now = self._clock.now()
            values = {"flow": flow, "now": now, "ends": end_of(expires, now)}
            if not connection.execute(RENEW, values).rowcount:
                forget(connection, flow)
                connection.execute(BEGIN, values)
            connection.executemany(ADD_NODE, [(flow, number, node) for number, node in nodes.items()])
            rows = [(flow, number, size, data, *((None, None) if size else (-1, now))) for number, (size, data) in joins.items()]
            connection.executemany(ADD_JOIN, rows)
            prune_one(connection, now, PRUNED_WITH_EACH)

    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return self._read_each(NODE, places)

    def node_numbers(self, flow: str) -> list[int]:
        with self._database.read() as connection:
            return [row[0] for row in connection.execute(NUMBERS, {"flow": flow, "now": self._clock.now()})]

    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return self._read_each(DATA, places)

    def _read_each(self, sql: str, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        now = self._clock.now()
        with self._database.read() as connection:
            rows = [connection.execute(sql, {"flow": flow, "number": number, "now": now}).fetchone() for flow, number in places]
        return [row[0] if row else None for row in rows]

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        if not arrivals:
            return []
        with self._database.write() as connection:
            now = self._clock.now()
            for flow in dict.fromkeys(part.flow for part in arrivals):
                connection.execute(RENEW, {"flow": flow, "now": now, "ends": end_of(expires, now)})
            joins = {place: read_join(connection, *place, now) for place in dict.fromkeys((part.flow, part.join) for part in arrivals)}
            overs, changed = list[Over | Gone | None](), dict[tuple[str, int], JoinState]()
            for part in arrivals:
                join = joins[part.flow, part.join]
                if join is not None and arrive(connection, join, part):
                    changed[part.flow, part.join] = join
                overs.append(join.answers(part) if join else Gone())
            rows = [(each.done, each.decider, each.failed, each.failure, each.decider, now, *place) for place, each in changed.items()]
            connection.executemany(CHANGE, rows)
            return overs

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        values = {"flow": flow, "number": join, "first": start, "last": start + limit, "now": self._clock.now()}
        with self._database.read() as connection:
            return [row[0] for row in connection.execute(VALUES, values)]

    def sent(self, overs: Sequence[Over]) -> None:
        if overs:
            with self._database.write() as connection:
                for each in overs:
                    if connection.execute(SENT, (each.flow, each.join)).rowcount:
                        connection.execute(FORGET_VALUES, (each.flow, each.join))

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        now = self._clock.now()
        values = {"since": now - older, "now": now, "limit": limit}
        with self._database.read() as connection:
            if connection.execute(OVERS, values | {"limit": 1}).fetchone() is None:
                return []
        with self._database.write() as connection:
            rows = connection.execute(OVERS, values).fetchall()
            connection.executemany(ANSWER, [(now, flow, number) for flow, number, *_ in rows])
        return [Over(flow=row[0], join=row[1], size=row[2], failed=row[3], failure=row[4] or b"") for row in rows]

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        with self._database.write() as connection:
            found = read_join(connection, flow, join, self._clock.now())
            if found is None or found.decider is not None:
                return None
            before = connection.execute(GROWN, (flow, join, key)).fetchone()
            if before is None:
                connection.execute(NOTE_GROWN, (flow, join, key, found.size))
                connection.execute(GROW, (by, flow, join))
            return before[0] if before else found.size

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        with self._database.read() as connection:
            rows = connection.execute(PROGRESS, {"flow": flow, "now": self._clock.now()}).fetchall()
        return {row[0]: JoinProgress(size=row[1], done=row[2], failed=row[3], sent=bool(row[4])) for row in rows}

    def forget_flows(self, flows: Sequence[str]) -> None:
        if flows:
            with self._database.write() as connection:
                for flow in flows:
                    forget(connection, flow)

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        if not copies:
            return []
        with self._database.write() as connection:
            now = self._clock.now()
            ends = end_of(expires, now)
            connection.execute(PRUNE[0], (now, 2 * len(copies)))
            return [connection.execute(BIND, {"id": each, "copy": copy, "ends": ends, "now": now}).rowcount == 1 for each, copy in copies]

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        with self._database.write() as connection:
            now = self._clock.now()
            connection.execute(SAVE_GROUP, (id, document, end_of(expires, now)))
            connection.execute(PRUNE[1], (now, 2))

    def saved_group(self, id: str) -> bytes | None:
        with self._database.read() as connection:
            row = connection.execute(GROUP, {"id": id, "now": self._clock.now()}).fetchone()
        return row[0] if row else None

    def delete_group(self, id: str) -> None:
        with self._database.write() as connection:
            connection.execute(DELETE_GROUP, (id,))


def read_join(connection: sqlite3.Connection, flow: str, number: int, now: float) -> JoinState | None:
    """Return a join of a flow that has not expired."""
    row = connection.execute(JOIN, {"flow": flow, "number": number, "now": now}).fetchone()
    return JoinState(*row) if row else None


def arrive(connection: sqlite3.Connection, join: JoinState, part: Arrival) -> bool:
    """Note one part in the transaction that is open; answer whether *join* changed, which is written later."""
    place = (part.flow, part.join, part.position)
    news = join.note(part, is_there=lambda: connection.execute(IS_THERE, place).fetchone() is not None)
    if news and part.value is not None:
        connection.execute(ADD_PART, (*place, part.value))
    return news


def forget(connection: sqlite3.Connection, flow: str) -> None:
    """Delete all of one flow."""
    for table in PARTS_OF_A_FLOW:
        connection.execute(f"DELETE FROM {table} WHERE flow = ?", (flow,))
    connection.execute(FORGET, (flow,))


def prune_one(connection: sqlite3.Connection, now: float, limit: int) -> tuple[int, bool]:
    """Delete at most *limit* rows of a flow that has expired; return how many flows are gone, and whether there may be more to do."""
    row = connection.execute(EXPIRED, (now,)).fetchone()
    if row is None:
        return 0, False
    for table, key in PARTS_OF_A_FLOW.items():
        sql = f"DELETE FROM {table} WHERE flow = ? AND {key} IN (SELECT {key} FROM {table} WHERE flow = ? LIMIT ?)"
        limit -= connection.execute(sql, (row[0], row[0], limit)).rowcount
        if limit <= 0:
            return 0, True
    return connection.execute(FORGET, row).rowcount, True


def prune_flows(database: Database, now: float) -> int:
    """Delete what has expired; return how many flows, bindings and documents of groups that were."""
    total, more = 0, True
    while more:
        with database.write() as connection:
            flows, more = prune_one(connection, now, CHUNK)
        total += flows
    for sql in PRUNE:
        removed: Any = CHUNK
        while removed == CHUNK:
            with database.write() as connection:
                removed = connection.execute(sql, (now, CHUNK)).rowcount
            total += removed
    return total
