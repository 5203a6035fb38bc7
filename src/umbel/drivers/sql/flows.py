"""Workflows in any database that SQLAlchemy reaches: who writes locks the row of the flow, and so each step is one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Table, and_, delete, insert, or_, select, update
from sqlalchemy import bindparam as named
from sqlalchemy.engine import Connection

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over
from umbel.clock import Clock
from umbel.drivers.chunks import chunks
from umbel.drivers.joins import JoinState, end_of
from umbel.drivers.sql.engine import Database
from umbel.drivers.sql.flow_tables import FlowTables
from umbel.drivers.sql.rows import Form
from umbel.drivers.sql.tables import Tables

__all__ = ["SQLFlows"]

T = TypeVar("T")
Place = tuple[str, int]

MOST_ROWS, MOST_BYTES = 500, 4_000_000  # in one transaction
PRUNED_AT_ONCE = 20  # flows, each of which may have many rows
COPY, GROUP = "c", "g"


class SQLFlows(Flows):
    """Invariant: whoever writes locks all flows first, in the order of their ids, so that nobody waits in a ring."""

    _database: Database
    _clock: Clock
    _tables: Tables
    _form: Form
    _flow_tables: FlowTables
    _flows_ready = False

    def _write(self, work: Callable[[Connection], T]) -> T:
        self._prepare_flows()
        return self._database.write(work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        self._prepare_flows()
        return self._database.read(work)

    def _prepare_flows(self) -> None:
        if not self._flows_ready:
            self._database.prepare_also(self._flow_tables.prepare)
            self._flows_ready = True

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        tables = self._flow_tables

        def work(connection: Connection) -> None:
            now = self._clock.now()
            if not self._locked(connection, [flow], now, expires):
                forget(connection, tables, [flow])
                connection.execute(insert(tables.flows), [{"id": flow, "expires": end_of(expires, now)}])
            opened: dict[int, dict[str, Any]] = {
                number: {"size": size, "data": data, "done": 0, "sent": False, **({} if size else {"decider": -1, "since": now})}
                for number, (size, data) in joins.items()
            }
            blank = {"decider": None, "since": None, "failed": None, "failure": None}
            add(connection, tables.nodes, flow, {number: {"node": node} for number, node in nodes.items()})
            add(connection, tables.joins, flow, {number: {**blank, **row} for number, row in opened.items()})

        self._write(work)

    def _locked(self, connection: Connection, flows: Iterable[str], now: float, expires: float | None = 0.0) -> set[str]:
        """Lock *flows*, and let them live on; return those that have not expired."""
        table, ends = self._flow_tables.flows, end_of(expires, now)
        query = select(table.c.id, table.c.expires).where(table.c.id.in_(sorted(set(flows)))).order_by(table.c.id).with_for_update()
        live = {row.id: row.expires for row in connection.execute(query) if row.expires is None or row.expires > now}
        if later := [flow for flow, old in live.items() if old is not None and (ends is None or old < ends)]:
            connection.execute(update(table).where(table.c.id.in_(later)).values(expires=ends))
        return set(live)

    def nodes(self, places: Sequence[Place]) -> list[bytes | None]:
        return self._read_each(self._flow_tables.nodes, "node", places)

    def node_numbers(self, flow: str) -> list[int]:
        table = self._flow_tables.nodes
        query = select(table.c.number).where(table.c.flow == flow, self._lives(table)).order_by(table.c.number)
        return [row[0] for row in self._read(partial(rows_of, query=query))]

    def join_data(self, places: Sequence[Place]) -> list[bytes | None]:
        return self._read_each(self._flow_tables.joins, "data", places)

    def _read_each(self, table: Table, column: str, places: Sequence[Place]) -> list[bytes | None]:
        found: dict[Place, bytes] = {}
        for start in range(0, len(places), MOST_ROWS):
            query = select(table.c.flow, table.c.number, table.c[column]).where(
                at(table, places[start : start + MOST_ROWS]), self._lives(table)
            )
            found |= {(row[0], row[1]): row[2] for row in self._read(partial(rows_of, query=query))}
        return [found.get(place) for place in places]

    def _lives(self, table: Table) -> ColumnElement[bool]:
        """Return what holds of a row whose flow has not expired."""
        flows = self._flow_tables.flows
        return (
            select(flows.c.id)
            .where(flows.c.id == table.c.flow, or_(flows.c.expires.is_(None), flows.c.expires > self._clock.now()))
            .exists()
        )

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        overs = list[Over | Gone | None]()
        for some in chunks(arrivals, lambda part: len(part.value or part.failure), MOST_ROWS, MOST_BYTES):
            overs += self._write(partial(self._arrive, parts=some, expires=expires))
        return overs

    def _arrive(self, connection: Connection, *, parts: Sequence[Arrival], expires: float | None) -> list[Over | Gone | None]:
        now = self._clock.now()
        live = self._locked(connection, [part.flow for part in parts], now, expires)
        joins = self._joins(connection, {(part.flow, part.join) for part in parts if part.flow in live})
        there = self._positions(connection, [part for part in parts if (part.flow, part.join) in joins])
        overs, values, changed = list[Over | Gone | None](), list[dict[str, Any]](), dict[Place, JoinState]()
        for part in parts:
            place, join = (part.flow, part.join), joins.get((part.flow, part.join))
            if join is not None and join.note(part, is_there=lambda key=(*place, part.position): key in there):  # type: ignore[misc]
                changed[place] = join
                if part.value is not None:
                    there.add((*place, part.position))
                    values.append({"flow": part.flow, "number": part.join, "position": part.position, "value": part.value})
            overs.append(join.answers(part) if join else Gone())
        if values:
            connection.execute(insert(self._flow_tables.parts), values)
        self._change(connection, changed, now)
        return overs

    def _joins(self, connection: Connection, places: Iterable[Place]) -> dict[Place, JoinState]:
        table, wanted = self._flow_tables.joins, sorted(places)
        if not wanted:
            return {}
        columns = (table.c.size, table.c.done, table.c.decider, table.c.failed, table.c.failure, table.c.sent)
        rows = connection.execute(select(table.c.flow, table.c.number, *columns).where(at(table, wanted)))
        return {(row[0], row[1]): JoinState(*row[2:]) for row in rows}

    def _positions(self, connection: Connection, parts: Sequence[Arrival]) -> set[tuple[str, int, int]]:
        """Return those of the positions of *parts* that have a value."""
        table, wanted = self._flow_tables.parts, defaultdict[Place, list[int]](list)
        for part in parts:
            wanted[part.flow, part.join].append(part.position)
        if not wanted:
            return set()
        terms = [
            and_(table.c.flow == flow, table.c.number == number, table.c.position.in_(some)) for (flow, number), some in wanted.items()
        ]
        return {
            (row[0], row[1], row[2])
            for row in connection.execute(select(table.c.flow, table.c.number, table.c.position).where(or_(*terms)))
        }

    def _change(self, connection: Connection, joins: Mapping[Place, JoinState], now: float) -> None:
        """Write what has changed of *joins*."""
        table = self._flow_tables.joins
        values: dict[str, Any] = {name: named(name) for name in ("done", "decider", "failed", "failure", "since")}
        rows = [
            {"f": flow, "n": number, **{name: getattr(join, name) for name in values if name != "since"},
             "since": None if join.decider is None else now}
            for (flow, number), join in joins.items()
        ]  # fmt: skip
        if rows:
            connection.execute(update(table).where(table.c.flow == named("f"), table.c.number == named("n")).values(values), rows)

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        joins, parts = self._flow_tables.joins, self._flow_tables.parts
        query = (
            select(parts.c.value)
            .join(joins, and_(joins.c.flow == parts.c.flow, joins.c.number == parts.c.number))
            .where(parts.c.flow == flow, parts.c.number == join, parts.c.position >= start, parts.c.position < start + limit)
            .where(joins.c.decider.is_not(None), joins.c.failed.is_(None), joins.c.sent.is_(False), self._lives(parts))
            .order_by(parts.c.position)
        )
        return [bytes(row[0]) for row in self._read(partial(rows_of, query=query))]

    def sent(self, overs: Sequence[Over]) -> None:
        joins, parts = self._flow_tables.joins, self._flow_tables.parts

        def work(connection: Connection) -> None:
            self._locked(connection, [each.flow for each in overs], self._clock.now())
            for each in overs:
                here = and_(joins.c.flow == each.flow, joins.c.number == each.join, joins.c.decider.is_not(None))
                if connection.execute(update(joins).where(here).values(sent=True, since=None)).rowcount:
                    connection.execute(delete(parts).where(parts.c.flow == each.flow, parts.c.number == each.join))

        if overs:
            self._write(work)

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        table, now = self._flow_tables.joins, self._clock.now()
        columns = (table.c.since, table.c.size, table.c.done, table.c.decider, table.c.failed, table.c.failure)
        query = (
            select(table.c.flow, table.c.number, *columns)
            .where(table.c.since <= now - older, self._lives(table)).order_by(table.c.since).limit(limit)
        )  # fmt: skip
        rows = sorted(self._read(partial(rows_of, query=query)), key=lambda row: (row[0], row[1]))

        def mine(connection: Connection) -> list[Over]:
            """Take each that nobody else has taken since it was read."""
            taken = []
            for flow, number, since, *fields in rows:
                here = and_(table.c.flow == flow, table.c.number == number, table.c.since == since)
                if connection.execute(update(table).where(here).values(since=now)).rowcount:
                    taken.append(JoinState(*fields).over(flow, number))
            return taken

        return self._write(mine) if rows else []

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        joins, grown = self._flow_tables.joins, self._flow_tables.grown

        def work(connection: Connection) -> int | None:
            live = self._locked(connection, [flow], self._clock.now())
            found = self._joins(connection, [(flow, join)]).get((flow, join)) if live else None
            if found is None or found.decider is not None:
                return None
            before: int | None = connection.scalar(
                select(grown.c.position).where(grown.c.flow == flow, grown.c.number == join, grown.c.name == key)
            )
            if before is None:
                connection.execute(insert(grown), [{"flow": flow, "number": join, "name": key, "position": found.size}])
                here = and_(joins.c.flow == flow, joins.c.number == join)
                connection.execute(update(joins).where(here).values(size=found.size + by))
            return found.size if before is None else before

        return self._write(work)

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        table = self._flow_tables.joins
        query = select(table.c.number, table.c.size, table.c.done, table.c.failed, table.c.sent).where(
            table.c.flow == flow, self._lives(table)
        )
        rows = self._read(partial(rows_of, query=query.order_by(table.c.number)))
        return {row[0]: JoinProgress(size=row[1], done=row[2], failed=row[3], sent=row[4]) for row in rows}

    def forget_flows(self, flows: Sequence[str]) -> None:
        def work(connection: Connection) -> None:
            self._locked(connection, flows, self._clock.now())
            forget(connection, self._flow_tables, flows)

        if flows:
            self._write(work)

    def prune_flows(self) -> int:
        """Delete some of what has expired; return how many flows, bindings and documents of groups that were."""
        if not self._flows_ready:
            return 0
        return self._write(self._prune_flows)

    def _prune_flows(self, connection: Connection) -> int:
        flows, kept, groups, now = self._flow_tables.flows, self._flow_tables.kept, self._tables.groups, self._clock.now()
        ids = sorted(connection.scalars(select(flows.c.id).where(flows.c.expires <= now).limit(PRUNED_AT_ONCE)))
        expired = [flow for flow in ids if flow not in self._locked(connection, ids, now)] if ids else []
        if expired:
            forget(connection, self._flow_tables, expired)
        old = connection.execute(select(kept.c.kind, kept.c.id).where(kept.c.expires <= now).limit(MOST_ROWS)).all()
        for kind in (COPY, GROUP):
            if some := [row.id for row in old if row.kind == kind]:
                connection.execute(delete(kept).where(kept.c.kind == kind, kept.c.id.in_(some), kept.c.expires <= now))
                if kind == GROUP:
                    connection.execute(delete(groups).where(groups.c.taskset_id.in_(some)))
        return len(expired) + len(old)

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        def work(connection: Connection) -> list[bool]:
            now, bound = self._clock.now(), self._kept(connection, COPY, [each for each, _ in copies])
            known = {each: copy for each, (copy, ends) in bound.items() if ends is None or ends > now}
            flags = [known.setdefault(each, copy) == copy for each, copy in copies]
            mine = {each: copy for (each, copy), flag in zip(copies, flags, strict=True) if flag}
            self._keep(connection, COPY, mine, bound, end_of(expires, now))
            return flags

        return self._write(work) if copies else []

    def _kept(self, connection: Connection, kind: str, ids: Iterable[str]) -> dict[str, tuple[str, float | None]]:
        table = self._flow_tables.kept
        query = select(table.c.id, table.c.value, table.c.expires).where(table.c.kind == kind, table.c.id.in_(sorted(set(ids))))
        return {row[0]: (row[1], row[2]) for row in connection.execute(query.order_by(table.c.id).with_for_update())}

    def _keep(self, connection: Connection, kind: str, values: Mapping[str, str], there: Mapping[str, object], ends: float | None) -> None:
        table = self._flow_tables.kept
        if new := [{"kind": kind, "id": each, "value": values[each], "expires": ends} for each in sorted(values) if each not in there]:
            connection.execute(insert(table), new)
        if old := [{"i": each, "value": values[each], "expires": ends} for each in sorted(values) if each in there]:
            here = and_(table.c.kind == kind, table.c.id == named("i"))
            connection.execute(update(table).where(here).values(value=named("value"), expires=named("expires")), old)

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        """Write it as Celery does: the bare result of the group."""
        groups, result = self._tables.groups, self._form.split(document)["result"]

        def work(connection: Connection) -> None:
            now = self._clock.now()
            there = self._kept(connection, GROUP, [id])
            self._keep(connection, GROUP, {id: ""}, there, end_of(expires, now))
            row = {"result": result, "date_done": datetime.fromtimestamp(now, UTC).replace(tzinfo=None)}
            if not connection.execute(update(groups).where(groups.c.taskset_id == id).values(row)).rowcount:
                connection.execute(insert(groups), [{"taskset_id": id, **row}])

        self._write(work)

    def saved_group(self, id: str) -> bytes | None:
        groups, kept = self._tables.groups, self._flow_tables.kept
        both = groups.outerjoin(kept, and_(kept.c.kind == GROUP, kept.c.id == groups.c.taskset_id))
        query = select(groups.c.result, kept.c.expires).select_from(both).where(groups.c.taskset_id == id)
        rows = self._read(partial(rows_of, query=query))
        if not rows or rows[0][0] is None or (rows[0][1] is not None and rows[0][1] <= self._clock.now()):
            return None
        return self._form.join({"result": self._form.result(bytes(rows[0][0]))})

    def delete_group(self, id: str) -> None:
        groups, kept = self._tables.groups, self._flow_tables.kept

        def work(connection: Connection) -> None:
            connection.execute(delete(kept).where(kept.c.kind == GROUP, kept.c.id == id))
            connection.execute(delete(groups).where(groups.c.taskset_id == id))

        self._write(work)


def rows_of(connection: Connection, *, query: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    return [tuple(row) for row in connection.execute(query)]


def at(table: Table, places: Iterable[Place]) -> ColumnElement[bool]:
    """Return what holds of the rows of *places*."""
    numbers = defaultdict[str, list[int]](list)
    for flow, number in places:
        numbers[flow].append(number)
    return or_(*(and_(table.c.flow == flow, table.c.number.in_(some)) for flow, some in numbers.items()))


def add(connection: Connection, table: Table, flow: str, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Insert those of *rows* that are not there."""
    if rows:
        there = set(connection.scalars(select(table.c.number).where(table.c.flow == flow, table.c.number.in_(list(rows)))))
        if new := [{"flow": flow, "number": number, **row} for number, row in rows.items() if number not in there]:
            connection.execute(insert(table), new)


def forget(connection: Connection, tables: FlowTables, flows: Sequence[str]) -> None:
    """Delete all of *flows*."""
    for table in tables.of_a_flow:
        connection.execute(delete(table).where(table.c.flow.in_(flows)))
    connection.execute(delete(tables.flows).where(tables.flows.c.id.in_(flows)))
