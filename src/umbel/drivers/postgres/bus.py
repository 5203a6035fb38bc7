"""The bus in PostgreSQL: what is said stays in a table for a minute, and who listens reads on from where it began.

The bodies are not sent with NOTIFY, which takes 8 kB at most, and none through PgBouncer: it only wakes who listens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.bus import Bus, Heard, Subscription, matches
from umbel.drivers.postgres.database import Database
from umbel.drivers.postgres.schema import rename
from umbel.drivers.postgres.session import Session
from umbel.drivers.postgres.waiting import wait_for
from umbel.exceptions import BrokerUnavailable
from umbel.ids import uuid

__all__ = ["PostgresBus"]

TURNED_EVERY = 20.0  # seconds between two looks whether old speech can be dropped
SIZE = 1_000_000  # bytes of one slot of the ring
SAY = "SELECT umbel.say(%s, %b::bytea)"
TURN = "SELECT umbel.turn('bus', %s, 0, 0)"
LAST = "SELECT coalesce(max(number), 0) FROM umbel.bus"
READ = "SELECT number, topic, body FROM umbel.bus WHERE number > %s ORDER BY number LIMIT 500"


class PostgresBus(Bus):
    """Topics of one database."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._database = Database(url, options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._turned = 0.0

    def publish(self, topic: str, body: bytes) -> None:
        self._database.call(SAY, (topic, body))
        if time.monotonic() > self._turned + TURNED_EVERY:
            self._turned = time.monotonic()
            self._database.call(TURN, (SIZE,))

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return PostgresSubscription(self._database, topics)

    def close(self) -> None:
        self._database.close()


class PostgresSubscription(Subscription):
    """A place in the table."""

    def __init__(self, database: Database, topics: Sequence[str]) -> None:
        self._database, self._topics = database, tuple(topics)
        self._name = uuid()
        self._said: deque[Heard] = deque()
        self._at = int(database.call(LAST, repeat=True)[0][0])
        self._read = rename(READ, database.schema)

    def receive(self, timeout: float) -> Heard | None:
        if not self._said:
            wait_for(self._database, ["bus"], self._name, self._look, timeout)
        return self._said.popleft() if self._said else None

    def _look(self, session: Session) -> float | None:
        for number, topic, body in session.rows(self._read, (self._at,)):
            self._at = number
            if any(matches(topic, wanted) for wanted in self._topics):
                self._said.append(Heard(topic, body))
        return 0.0 if self._said else None

    def close(self) -> None:
        self._said.clear()
