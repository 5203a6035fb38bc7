"""Settling: the one place where a delivery ends. What happened is stored first, then the message is acknowledged.

Invariant: a delivery is acknowledged last, so a crash anywhere above repeats the task and never loses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from umbel.backend import Record, ResultBackend
from umbel.broker import Broker, Item, Settlement
from umbel.exceptions import OperationalError

__all__ = ["Settler"]

logger = logging.getLogger("celery.worker")
RETRY_AFTER = 0.5  # seconds between attempts while the broker or the backend is away
BATCH = 500
LINGER = 0.002  # seconds: while the worker is busy, an acknowledgement waits this long for a claim to ride on


class Settler:
    """Takes settlements from the loop and carries them out in batches, in one thread, or on the next claim."""

    def __init__(self, broker: Broker, backend: ResultBackend, io: Executor, *, may_write: Callable[[], bool]) -> None:
        self._broker, self._backend, self._io = broker, backend, io
        self._may_write = may_write  # Invariant: past its lease's deadline a node writes nothing
        self._atomic = broker.settles_with(backend)
        self._unstored: deque[tuple[Settlement | None, Record]] = deque()
        self._items: deque[Item] = deque()
        self._ready: dict[str, deque[Settlement]] = defaultdict(deque)
        self._busy = False
        self._wake = asyncio.Event()
        self.claims_flow = False  # the fetcher says whether claims follow one another now

    def add(self, settlement: Settlement, record: Record | None = None) -> None:
        """Settle, and store *record* before."""
        if record is None:
            self._ready[settlement.delivery.queue].append(settlement)
        elif self._atomic:
            self._ready[settlement.delivery.queue].append(replace(settlement, records=(record,)))
        else:
            self._unstored.append((settlement, record))
        self._wake.set()

    def store(self, record: Record) -> None:
        """Store *record*, which belongs to no settlement (STARTED)."""
        self._unstored.append((None, record))
        self._wake.set()

    def publish(self, item: Item) -> None:
        """Publish *item*: the retry of a message that was acknowledged early."""
        self._items.append(item)
        self._wake.set()

    def ride(self, queue: str) -> list[Settlement]:
        """Take settlements of *queue* that may go with its next claim; the caller now answers for them."""
        if not self._may_write():
            return []
        ready = self._ready[queue]
        return [ready.popleft() for _ in range(min(len(ready), BATCH))]

    def drop(self) -> None:
        """Forget everything: the claims were lost, and nothing of them may be written."""
        self._unstored.clear()
        self._items.clear()
        self._ready.clear()

    @property
    def pending(self) -> int:
        """How many settlements and records wait."""
        return len(self._unstored) + len(self._items) + sum(map(len, self._ready.values())) + self._busy

    async def run(self) -> None:
        """Carry out what was added, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.claims_flow and not self._unstored and not self._items:
                await asyncio.sleep(LINGER)
            while self.pending:
                if not self._may_write() or not await self._flush():
                    await asyncio.sleep(RETRY_AFTER)

    async def drained(self) -> None:
        """Return when nothing waits any more."""
        while self.pending:
            self._wake.set()
            await asyncio.sleep(0.005)

    async def _flush(self) -> bool:
        """Carry out one batch; False if a server was away, and nothing is lost."""
        unstored = [self._unstored.popleft() for _ in range(min(len(self._unstored), BATCH))]
        items = [self._items.popleft() for _ in range(min(len(self._items), BATCH))]
        ready: list[Settlement] = []
        if not unstored:
            for queue in self._ready.values():
                ready += [queue.popleft() for _ in range(min(len(queue), BATCH))]
        self._busy = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._io, self._carry_out, unstored, items, ready)
        except OperationalError as exc:
            logger.warning("Cannot settle now: %s Trying again in %s s; nothing is lost.", exc, RETRY_AFTER)
            self._unstored.extendleft(reversed(unstored))
            self._items.extendleft(reversed(items))
            for settlement in reversed(ready):
                self._ready[settlement.delivery.queue].appendleft(settlement)
            return False
        finally:
            self._busy = False
        return True

    def _carry_out(self, unstored: Sequence[tuple[Settlement | None, Record]], items: Sequence[Item], ready: list[Settlement]) -> None:
        if items:
            self._broker.publish(items)
        if unstored:
            self._backend.store([record for _, record in unstored])
            ready = [settlement for settlement, _ in unstored if settlement is not None]
        if ready and self._may_write():
            for settlement, done in zip(ready, self._broker.settle(ready), strict=True):
                if not done:
                    logger.warning("The claim of %s on %r was lost; it runs elsewhere.", settlement.delivery.tag, settlement.delivery.queue)
