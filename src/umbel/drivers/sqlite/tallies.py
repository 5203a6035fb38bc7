"""What is counted, in SQLite."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from umbel.broker import TALLIES_KEPT, Settlement, Tally
from umbel.drivers.sqlite import statements as sql

__all__ = ["Tallies"]

FORGOTTEN_AT_ONCE = 1000  # rows: settlements wait meanwhile


class Tallies:
    """Counts in the transaction of its caller."""

    def __init__(self) -> None:
        self._swept = 0  # the minute in which all that was old was deleted

    def add(self, connection: sqlite3.Connection, done: Iterable[Settlement], now: float) -> None:
        """Count the settlements that were carried out; in a new minute, delete what is old."""
        self.count(connection, Counter((each.delivery.queue, each.tally) for each in done if each.tally), now)

    def count(self, connection: sqlite3.Connection, counts: Mapping[tuple[str, str], int], now: float) -> None:
        """Count tallies of queues, each so often."""
        if not counts:
            return
        minute = int(now) // 60 * 60
        connection.executemany(sql.COUNT, [(minute, queue, tally, count) for (queue, tally), count in counts.items()])
        if minute != self._swept:
            deleted = connection.execute(sql.FORGET_TALLIES, (now - TALLIES_KEPT, FORGOTTEN_AT_ONCE)).rowcount
            if deleted < FORGOTTEN_AT_ONCE:
                self._swept = minute

    @staticmethod
    def since(connection: sqlite3.Connection, queue: str, since: float, now: float) -> list[Tally]:
        """Return what was counted of *queue* from *since* on."""
        return [Tally(*row) for row in connection.execute(sql.TALLIES, (max(since, now - TALLIES_KEPT), queue))]
