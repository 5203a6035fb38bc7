"""The drivers, each with the means to let a lease lapse and a delayed message become due without waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umbel.broker import Broker
from umbel.drivers.memory import MemoryBroker
from umbel.drivers.sqlite import SQLiteBroker
from umbel.ids import uuid
from umbel.testing import FakeClock

LEASE = 10.0  # seconds


class Timed:
    """A driver that takes its time from a clock of ours."""

    def __init__(self, folder: Path | None) -> None:
        self.clock = FakeClock()
        self.url = f"memory://{uuid()}" if folder is None else f"sqlite:///{folder}/{uuid()}.sqlite3"
        self.queue = "q"

    def make(self) -> Broker:
        if self.url.startswith("memory"):
            return MemoryBroker(self.url, clock=self.clock)
        return SQLiteBroker(self.url, options={"synchronous": "OFF"}, clock=self.clock)

    def now(self) -> float:
        return self.clock.now()

    def lapse(self, broker: Broker, owner: str, living: list[str]) -> None:
        """Let *owner*'s lease end; all others are renewed meanwhile."""
        for _ in range(3):
            self.clock.advance(LEASE / 2)
            for name in living:
                assert broker.renew(name, [self.queue], lease=LEASE)

    def make_due(self, broker: Broker, living: list[str]) -> None:
        self.lapse(broker, "", living)
        self.clock.advance(1e6)
        for name in living:
            assert broker.renew(name, [self.queue], lease=LEASE)

    def close(self) -> None:
        pass


class OnRedis:
    """Redis goes by its own clock: a plain client changes when messages are due."""

    def __init__(self, url: str, prefix: str) -> None:
        import redis

        from umbel.drivers.redis import RedisBroker

        self.client: Any = redis.Redis.from_url(url)
        self.queue = f"q-{uuid()}"
        self.base = f"{prefix}{{{self.queue}}}"
        self.make = lambda: RedisBroker(url, options={"global_keyprefix": prefix})

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds + micros / 1e6)

    def lapse(self, broker: Broker, owner: str, living: list[str]) -> None:
        # An end that the driver was not told would be an older state of the table, which it refuses to go by.
        assert broker.renew(owner, [self.queue], lease=0)
        for name in living:
            assert broker.renew(name, [self.queue], lease=LEASE)

    def make_due(self, broker: Broker, living: list[str]) -> None:
        for member in self.client.zrange(f"{self.base}.delayed", 0, -1):
            self.client.zadd(f"{self.base}.delayed", {member: 1})

    def close(self) -> None:
        self.client.close()


class OnPostgres:
    """PostgreSQL goes by its own clock: a plain client changes when leases end and messages are due."""

    def __init__(self, url: str, schema: str) -> None:
        import psycopg

        from umbel.drivers.postgres import PostgresBroker

        self.client: Any = psycopg.connect(url, autocommit=True)
        self.queue, self.schema = f"q-{uuid()}", schema
        self.make = lambda: PostgresBroker(url, options={"schema": schema})

    def now(self) -> float:
        return float(self.client.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])

    def lapse(self, broker: Broker, owner: str, living: list[str]) -> None:
        self.client.execute(f"UPDATE {self.schema}.owners SET expires = 1 WHERE queue = %s AND name = %s", (self.queue, owner))
        for name in living:
            assert broker.renew(name, [self.queue], lease=LEASE)

    def make_due(self, broker: Broker, living: list[str]) -> None:
        # Just now: what has been due for long a claim looks for once a second only, and this machine is faster.
        self.client.execute(f"UPDATE {self.schema}.delayed SET due = %s WHERE queue = %s", (self.now() - 0.01, self.queue))

    def close(self) -> None:
        self.client.close()
