"""The bus in an SQLite file: what is said stays there for a minute, and who listens reads on from where it began."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.bus import Bus, Heard, Subscription, matches
from umbel.clock import Clock, SystemClock
from umbel.drivers.sqlite.database import Database, path_of
from umbel.exceptions import BrokerUnavailable

__all__ = ["SQLiteBus"]

KEPT = 60.0  # seconds: a listener that looks less often misses what was said
SAY = "INSERT INTO umbel_bus (topic, body, at) VALUES (?, ?, ?)"
FORGET = "DELETE FROM umbel_bus WHERE at < ?"
LAST = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'umbel_bus'), 0)"
READ = "SELECT seq, topic, body FROM umbel_bus WHERE seq > ? ORDER BY seq LIMIT 500"


class SQLiteBus(Bus):
    """Topics of one host."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        self._database = Database(path_of(url), options=options or {}, timeout=timeout, error=BrokerUnavailable)
        self._clock = clock or SystemClock()

    def publish(self, topic: str, body: bytes) -> None:
        with self._database.write() as connection:
            now = self._clock.now()
            connection.execute(FORGET, (now - KEPT,))
            connection.execute(SAY, (topic, body, now))

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return SQLiteSubscription(self._database, topics)

    def close(self) -> None:
        self._database.close()


class SQLiteSubscription(Subscription):
    """A place in the file."""

    def __init__(self, database: Database, topics: Sequence[str]) -> None:
        self._database, self._topics = database, tuple(topics)
        self._said: deque[Heard] = deque()
        with database.read() as connection:
            self._at: int = connection.execute(LAST).fetchone()[0]

    def receive(self, timeout: float) -> Heard | None:
        if not self._said:
            self._database.wait(self._look, timeout)
        return self._said.popleft() if self._said else None

    def _look(self, connection: sqlite3.Connection) -> float | None:
        for seq, topic, body in connection.execute(READ, (self._at,)):
            self._at = seq
            if any(matches(topic, wanted) for wanted in self._topics):
                self._said.append(Heard(topic, body))
        return 0.0 if self._said else None

    def close(self) -> None:
        self._said.clear()
