"""Workflows in memory: the reference of what drivers keep of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from threading import Condition
from typing import TypeVar

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over
from umbel.clock import Clock
from umbel.drivers.joins import end_of
from umbel.drivers.memory.joins import Flow, Join, Lasting
from umbel.drivers.memory.store import Store

__all__ = ["MemoryFlows"]

T = TypeVar("T")


class MemoryFlows(Flows):
    """Each method is one step under the store's lock."""

    state: Store
    _changed: Condition
    _clock: Clock

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        with self._changed:
            now = self._clock.now()
            record = self._find(flow)
            if record is None:
                record = self.state.flows[flow] = Flow(end_of(expires, now))
            record.renew(end_of(expires, now))
            for number, node in nodes.items():
                record.nodes.setdefault(number, node)
            for number, (size, data) in joins.items():
                if number not in record.joins:
                    record.joins[number] = Join(size, decider=None if size else -1, data=data)
                    if not size:
                        self.state.overs[flow, number] = now

    def _find(self, flow: str) -> Flow | None:
        record = self.state.flows.get(flow)
        if record is None or record.ends is None or record.ends > self._clock.now():
            return record
        self._forget(flow)
        return None

    def _join(self, flow: str, join: int) -> Join | None:
        record = self._find(flow)
        return record.joins.get(join) if record else None

    def _forget(self, flow: str) -> None:
        record = self.state.flows.pop(flow, None)
        for number in record.joins if record else ():
            self.state.overs.pop((flow, number), None)

    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        with self._changed:
            records = [(self._find(flow), number) for flow, number in places]
            return [record.nodes.get(number) if record else None for record, number in records]

    def node_numbers(self, flow: str) -> list[int]:
        with self._changed:
            record = self._find(flow)
            return sorted(record.nodes) if record else []

    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        with self._changed:
            joins = [self._join(*place) for place in places]
            return [join.data if join else None for join in joins]

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        with self._changed:
            return [self._arrive(each, expires) for each in arrivals]

    def _arrive(self, part: Arrival, expires: float | None) -> Over | Gone | None:
        record, join, now = self._find(part.flow), self._join(part.flow, part.join), self._clock.now()
        if record is None or join is None:
            return Gone()
        record.renew(end_of(expires, now))
        if join.arrive(part):
            self.state.overs[part.flow, part.join] = now
        return join.answers(part)

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        with self._changed:
            found = self._join(flow, join)
            if found is None or found.decider is None or found.failed is not None or found.sent:
                return []
            return [found.values[position] for position in range(start, min(start + limit, found.size))]

    def sent(self, overs: Sequence[Over]) -> None:
        with self._changed:
            for each in overs:
                join = self._join(each.flow, each.join)
                if join is not None and join.decider is not None:
                    join.send()
                    self.state.overs.pop((each.flow, each.join), None)

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        with self._changed:
            now = self._clock.now()
            due = [place for place, since in self.state.overs.items() if since <= now - older]
            found = islice(((place, join) for place in due if (join := self._join(*place)) is not None), limit)
            overs = [join.over(*place) for place, join in found]
            self.state.overs.update({(each.flow, each.join): now for each in overs})
            return overs

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        with self._changed:
            found = self._join(flow, join)
            return found.grow(by, key) if found else None

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        with self._changed:
            record = self._find(flow)
            return {number: join.progress() for number, join in record.joins.items()} if record else {}

    def forget_flows(self, flows: Sequence[str]) -> None:
        with self._changed:
            for flow in flows:
                self._forget(flow)

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        with self._changed:
            return [self._bind(*each, expires) for each in copies]

    def _bind(self, id: str, copy: str, expires: float | None) -> bool:
        now = self._clock.now()
        if found(self.state.bound, id, now) not in {None, copy}:
            return False
        self.state.bound[id] = Lasting(copy, end_of(expires, now))
        return True

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        with self._changed:
            self.state.groups[id] = Lasting(document, end_of(expires, self._clock.now()))

    def saved_group(self, id: str) -> bytes | None:
        with self._changed:
            return found(self.state.groups, id, self._clock.now())

    def delete_group(self, id: str) -> None:
        with self._changed:
            self.state.groups.pop(id, None)

    def prune_flows(self, now: float) -> int:
        """Delete what has expired; return how many flows, bindings and documents of groups that were."""
        count = sum(self._find(flow) is None for flow in list(self.state.flows))
        count += sum(found(self.state.bound, each, now) is None for each in list(self.state.bound))
        return count + sum(found(self.state.groups, each, now) is None for each in list(self.state.groups))


def found(kept: dict[str, Lasting[T]], id: str, now: float) -> T | None:
    """Return the value of *id*, if it has not expired."""
    there = kept.get(id)
    if there is None or there.ends is None or there.ends > now:
        return there.value if there else None
    del kept[id]
    return None
