"""What a backend keeps of workflows beside a plain reference: hypothesis looks for a row of calls after which they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from umbel.backend import Arrival, Gone, JoinProgress, Over, ResultBackend
from umbel.drivers.memory import MemoryBackend
from umbel.drivers.sqlite import SQLiteBackend
from umbel.ids import uuid
from umbel.testing import FakeClock

STEP = 400.0  # seconds that pass at once: what the machine needs itself is nothing to it
LIVES = st.sampled_from([1000.0, 5000.0, None])
FLOWS, JOINS, POSITIONS = st.integers(0, 2), st.integers(0, 2), st.integers(-1, 5)
ENDS = st.sampled_from(["good", "good", "good", "bad"])


class Timed:
    """A driver that takes its time from a clock of ours."""

    def __init__(self, folder: Path | None) -> None:
        self.clock = FakeClock()
        self.url = f"memory://{uuid()}" if folder is None else f"sqlite:///{folder}/{uuid()}.sqlite3"

    def make(self) -> ResultBackend:
        if self.url.startswith("memory"):
            return MemoryBackend(self.url, clock=self.clock)
        return SQLiteBackend(self.url, options={"synchronous": "OFF"}, clock=self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def close(self) -> None:
        pass


class OnRedis:
    """Redis goes by its own clock: a plain client makes all that it keeps older."""

    def __init__(self, url: str, prefix: str) -> None:
        import redis

        from umbel.drivers.redis import RedisBackend

        self.client: Any = redis.Redis.from_url(url)
        self.prefix = f"{prefix}{uuid()}:"
        self.make = lambda: RedisBackend(url, options={"global_keyprefix": self.prefix})

    def pass_time(self, seconds: float) -> None:
        for key in list(self.client.scan_iter(match=f"{self.prefix}*", count=1000)):
            if (left := self.client.pttl(key)) >= 0:
                self.client.pexpire(key, left - int(seconds * 1000))
        over = f"{self.prefix}{{umbel.flows:0}}.over"
        for member in self.client.zrange(over, 0, -1):
            self.client.zincrby(over, -seconds * 1000, member)

    def close(self) -> None:
        self.client.close()


class OnPostgres:
    """PostgreSQL goes by its own clock: a plain client makes all that it keeps older."""

    def __init__(self, url: str, schema: str) -> None:
        import psycopg

        from umbel.drivers.postgres import PostgresBackend

        self.client: Any = psycopg.connect(url, autocommit=True)
        self.schema = schema
        self.make = lambda: PostgresBackend(url, options={"schema": schema})

    def pass_time(self, seconds: float) -> None:
        for table, column in (("flows", "expires"), ("bound", "expires"), ("joins", "since")):
            self.client.execute(f"UPDATE {self.schema}.{table} SET {column} = {column} - {seconds}")

    def close(self) -> None:
        self.client.close()


@dataclass
class Join:
    """What the reference knows of a join."""

    size: int
    parts: dict[int, bytes] = field(default_factory=dict)  # by position: the value, of those that counted
    failed: str | None = None
    ended_by: int | None = None
    sent: bool = False
    since: float = math.inf
    grown: dict[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.failed is not None or len(self.parts) == self.size


@dataclass
class Flow:
    """What the reference knows of a flow."""

    ends: float
    nodes: dict[int, bytes] = field(default_factory=dict)
    joins: dict[int, Join] = field(default_factory=dict)


class FlowMachine(RuleBasedStateMachine):
    """Calls of the interface, in any order, through two backends of one store."""

    def __init__(self, driver: Any) -> None:
        super().__init__()
        self.driver, self.now, self.name = driver, 0.0, uuid()
        self.backends = [driver.make(), driver.make()]
        self.calls = 0
        self.flows: dict[str, Flow] = {}
        self.bound: dict[str, tuple[str, float]] = {}

    @property
    def backend(self) -> ResultBackend:
        """One after the other."""
        self.calls += 1
        return self.backends[self.calls % 2]

    def id(self, number: int) -> str:
        return f"{self.name}-{number}"

    def end(self, expires: float | None) -> float:
        return math.inf if expires is None else self.now + expires

    def find(self, flow: str) -> Flow | None:
        found = self.flows.get(flow)
        return found if found is not None and found.ends > self.now else None

    def over(self, flow: str, number: int, join: Join) -> Over:
        return Over(flow=flow, join=number, size=join.size, failed=join.failed, failure=b"" if join.failed is None else b"why")

    @rule(number=FLOWS, nodes=st.sets(JOINS), joins=st.dictionaries(JOINS, st.integers(0, 4)), expires=LIVES)
    def begin(self, number, nodes, joins, expires):
        flow, mark = self.id(number), b"%d" % self.calls
        self.backend.begin_flow(flow, dict.fromkeys(nodes, mark), {each: (size, b"") for each, size in joins.items()}, expires=expires)
        known = self.find(flow) or Flow(self.end(expires))
        self.flows[flow] = known
        known.ends = max(known.ends, self.end(expires))
        for each in nodes:
            known.nodes.setdefault(each, mark)
        for each, size in joins.items():
            if each not in known.joins:
                known.joins[each] = Join(size, since=self.now if size == 0 else math.inf, ended_by=-1 if size == 0 else None)

    @rule(parts=st.lists(st.tuples(FLOWS, JOINS, POSITIONS, ENDS), max_size=8), expires=LIVES)
    def arrive(self, parts, expires):
        arrivals = [
            Arrival(
                flow=self.id(number), join=join, position=position, id=f"t{position}", failure=b"why",
                value=b"%d %d" % (self.calls, at) if end == "good" else None,
            )
            for at, (number, join, position, end) in enumerate(parts)
        ]  # fmt: skip
        expected = [self.arrival(part, expires) for part in arrivals]
        assert self.backend.arrive(arrivals, expires=expires) == expected

    def arrival(self, part: Arrival, expires: float | None) -> Over | Gone | None:
        flow = self.find(part.flow)
        join = flow.joins.get(part.join) if flow else None
        if flow is None or join is None:
            return Gone()
        flow.ends = max(flow.ends, self.end(expires))
        if not join.is_over and 0 <= part.position < join.size and part.position not in join.parts:
            if part.value is None:
                join.failed = part.id
            else:
                join.parts[part.position] = part.value
            if join.is_over:
                join.ended_by, join.since = part.position, self.now
        return self.over(part.flow, part.join, join) if join.is_over and not join.sent and join.ended_by == part.position else None

    @rule(wait=st.booleans())
    def overs(self, wait):
        """Of those that are old enough each is found, and found once."""
        if wait:
            self.pass_time()
        found = [over for over in self.backend.overs(older=STEP / 2) if over.flow.startswith(self.name)]
        expected = [
            (self.over(flow, number, join), join)
            for flow in self.flows for number, join in (self.find(flow) or Flow(0)).joins.items()
            if join.is_over and not join.sent and join.since <= self.now - STEP / 2
        ]  # fmt: skip
        assert sorted(found, key=str) == sorted((over for over, _ in expected), key=str)
        for _, join in expected:
            join.since = self.now

    @rule(number=FLOWS, join=JOINS)
    def send(self, number, join):
        flow = self.id(number)
        self.backend.sent([Over(flow=flow, join=join, size=0, failed=None)])
        known = (self.find(flow) or Flow(0)).joins.get(join)
        if known is not None and known.is_over:
            known.sent = True

    @rule(number=FLOWS, join=JOINS, by=st.integers(1, 2), key=st.sampled_from("ab"))
    def grow(self, number, join, by, key):
        position = self.backend.grow(self.id(number), join, by, key=key)
        known = (self.find(self.id(number)) or Flow(0)).joins.get(join)
        if known is None or known.is_over:
            assert position is None
        elif key in known.grown:
            assert position == known.grown[key]
        else:
            assert position == known.size
            known.grown[key] = known.size
            known.size += by

    @rule(copies=st.lists(st.tuples(FLOWS, st.sampled_from("xy")), max_size=4), expires=LIVES)
    def bind(self, copies, expires):
        expected = []
        for number, copy in copies:
            there = self.bound.get(self.id(number))
            expected.append(there is None or there[1] <= self.now or there[0] == copy)
            if expected[-1]:
                self.bound[self.id(number)] = copy, self.end(expires)
        assert self.backend.bind([(self.id(number), copy) for number, copy in copies], expires=expires) == expected

    @rule(number=FLOWS)
    def forget(self, number):
        self.backend.forget_flows([self.id(number)])
        self.flows.pop(self.id(number), None)

    @rule()
    def pass_time(self):
        self.driver.pass_time(STEP)
        self.now += STEP

    @rule()
    def prune(self):
        self.backend.prune()

    @invariant()
    def they_agree(self):
        backend = self.backend
        for flow in map(self.id, range(3)):
            known = self.find(flow) or Flow(0)
            assert backend.progress(flow) == {
                number: JoinProgress(size=join.size, done=len(join.parts), failed=join.failed, sent=join.sent)
                for number, join in sorted(known.joins.items())
            }
            assert backend.nodes([(flow, number) for number in range(3)]) == [known.nodes.get(number) for number in range(3)]
            for number, join in known.joins.items():
                whole = join.is_over and join.failed is None and not join.sent
                assert backend.arrived(flow, number) == ([join.parts[position] for position in range(join.size)] if whole else [])

    def teardown(self):
        self.backends[0].forget_flows([self.id(number) for number in range(3)])
        for backend in self.backends:
            backend.close()
        self.driver.close()
