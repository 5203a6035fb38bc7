"""Workflows in PostgreSQL: each call is one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over
from umbel.drivers.chunks import chunks
from umbel.drivers.postgres.database import Database
from umbel.drivers.postgres.settling import floating

__all__ = ["PRUNE_FLOWS", "PostgresFlows"]

CHUNK, MOST_BYTES = 500, 8_000_000  # what one statement is about, if it is about more than one; and one page of values

BEGIN = "SELECT umbel.begin_flow(%s, %s::double precision, %s::bigint[], %b::bytea[], %s::bigint[], %s::integer[], %b::bytea[])"
NODES = """
SELECT n.node FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS p (flow, number, n)
LEFT JOIN umbel.nodes n ON n.flow = p.flow AND n.number = p.number
    AND EXISTS (SELECT FROM umbel.flows f WHERE f.id = p.flow AND (f.expires IS NULL OR f.expires > umbel.clock()))
ORDER BY p.n"""
NUMBERS = "SELECT number FROM umbel.nodes WHERE flow = %s AND number >= 0 AND umbel.lives(flow) ORDER BY number"
ARRIVE = (
    "SELECT o_n, o_size, o_failed, o_failure "
    "FROM umbel.arrive(%s::text[], %s::bigint[], %s::integer[], %s::text[], %b::bytea[], %b::bytea[], %s::double precision)"
)
ARRIVED = """
SELECT value FROM (
    SELECT p.position, p.value, sum(octet_length(p.value)) OVER (ORDER BY p.position) - octet_length(p.value) AS before
    FROM umbel.joins j JOIN umbel.parts p ON p.flow = j.flow AND p.number = j.number
    WHERE j.flow = %s AND j.number = %s AND p.position >= %s AND p.position < %s
        AND j.decider IS NOT NULL AND j.failed IS NULL AND NOT j.sent AND umbel.lives(j.flow)) page
WHERE before < %s ORDER BY position"""
SENT = "SELECT umbel.sent(%s::text[], %s::bigint[])"
OVERS = """
WITH picked AS MATERIALIZED (
    SELECT j.flow, j.number FROM umbel.joins j WHERE j.since <= umbel.clock() - %s::double precision
        AND EXISTS (SELECT FROM umbel.flows f WHERE f.id = j.flow AND (f.expires IS NULL OR f.expires > umbel.clock()))
    ORDER BY j.since LIMIT %s FOR UPDATE OF j SKIP LOCKED)
UPDATE umbel.joins j SET since = umbel.clock() FROM picked p WHERE j.flow = p.flow AND j.number = p.number
RETURNING j.flow, j.number, j.size, j.failed, j.failure"""
GROW = "SELECT umbel.grow(%s, %s::bigint, %s::integer, %s)"
PROGRESS = "SELECT number, size, done, failed, sent FROM umbel.joins WHERE flow = %s AND umbel.lives(flow) ORDER BY number"
FORGET = "SELECT umbel.forget_flows(%s::text[])"
BIND = "SELECT umbel.bind(%s::text[], %s::text[], %s::double precision)"
SAVE = """
INSERT INTO umbel.groups (id, document, expires) VALUES (%s, %b, umbel.clock() + %s::double precision)
ON CONFLICT (id) DO UPDATE SET document = excluded.document, expires = excluded.expires"""
SAVED = "SELECT document FROM umbel.groups WHERE id = %s AND (expires IS NULL OR expires > umbel.clock())"
DELETE = "DELETE FROM umbel.groups WHERE id = %s"
PRUNE_FLOWS = "SELECT umbel.prune_flows(%s::integer)"


class PostgresFlows(Flows):
    """All of it may be repeated, so a connection that breaks is no error."""

    _database: Database

    def _call(self, sql: str, *params: Any) -> list[Any]:
        return self._database.call(sql, params, repeat=True)

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        opened = [(number, size, data) for number, (size, data) in joins.items()]
        arrays = [list(nodes), list(nodes.values()), *([join[column] for join in opened] for column in range(3))]
        self._call(BEGIN, flow, floating(expires), *arrays)

    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return [row[0] for row in self._call(NODES, [flow for flow, _ in places], [number for _, number in places])] if places else []

    def node_numbers(self, flow: str) -> list[int]:
        return [row[0] for row in self._call(NUMBERS, flow)]

    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        return self.nodes([(flow, -1 - number) for flow, number in places])

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        overs = list[Over | Gone | None]()
        for some in chunks(arrivals, lambda part: len(part.value or part.failure), CHUNK, MOST_BYTES):
            fields = [(part.flow, part.join, part.position, part.id, part.value, part.failure) for part in some]
            rows = self._call(ARRIVE, *([each[column] for each in fields] for column in range(6)), floating(expires))
            found = {row[0]: row[1:] for row in rows}
            overs += [answer(part, found[n]) if n in found else None for n, part in enumerate(some, start=1)]
        return overs

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        return [row[0] for row in self._call(ARRIVED, flow, join, start, start + limit, MOST_BYTES)]

    def sent(self, overs: Sequence[Over]) -> None:
        if overs:
            self._call(SENT, [each.flow for each in overs], [each.join for each in overs])

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        return [over(*row) for row in self._call(OVERS, older, limit)]

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        position: int | None = self._call(GROW, flow, join, by, key)[0][0]
        return position

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        rows = self._call(PROGRESS, flow)
        return {row[0]: JoinProgress(size=row[1], done=row[2], failed=row[3], sent=row[4]) for row in rows}

    def forget_flows(self, flows: Sequence[str]) -> None:
        if flows:
            self._call(FORGET, list(flows))

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        if not copies:
            return []
        bound = set(self._call(BIND, [each for each, _ in copies], [copy for _, copy in copies], floating(expires))[0][0])
        return [n in bound for n in range(1, len(copies) + 1)]

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        self._call(SAVE, id, document, floating(expires))

    def saved_group(self, id: str) -> bytes | None:
        rows = self._call(SAVED, id)
        return rows[0][0] if rows else None

    def delete_group(self, id: str) -> None:
        self._call(DELETE, id)


def answer(part: Arrival, row: tuple[Any, ...]) -> Over | Gone:
    """Read what is said of the join of *part*: without a size, there is none."""
    return Gone() if row[0] is None else over(part.flow, part.join, *row)


def over(flow: str, join: int, size: int, failed: str | None, failure: bytes | None) -> Over:
    """Make a join that is over of what the database says."""
    return Over(flow=flow, join=join, size=size, failed=failed, failure=failure or b"")
