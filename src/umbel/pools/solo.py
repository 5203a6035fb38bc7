"""The solo pool: tasks run in the parent's main thread, one after the other. For debugging, and for small machines."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from umbel.execution.outcome import Job
from umbel.pools.base import OnDeath, OnOutcomes, Pool, Slot
from umbel.pools.child import Runner

__all__ = ["SoloPool"]

LONGEST_WAIT = 0.2  # seconds


class SoloPool(Pool):
    """One slot. The worker's loop runs in a second thread; the main thread calls `run_here`."""

    name = "solo"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.slots = [Slot(number=1, capacity=1)]
        self._packets: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._ended = asyncio.Event()
        self.running = False  # does a task run in the main thread?
        self._loop: asyncio.AbstractEventLoop | None = None

    def fork(self) -> None:
        self._runner.starts_child("MainProcess")

    def start(self, loop: asyncio.AbstractEventLoop, on_outcomes: OnOutcomes, on_death: OnDeath) -> None:  # noqa: ARG002 - it cannot die alone
        self._loop, self._on_outcomes = loop, on_outcomes
        self.slots[0].pid = threading.main_thread().native_id or 1

    def run_here(self) -> None:
        """Run packets in this thread until the pool is finished or closed."""
        while (packet := self._next()) is not None:
            for job in packet:
                self.running = True
                outcome = self._runner.run(job)
                self.running = False
                self._tell(self._on_outcomes, self.slots[0], [outcome])
        self._tell(self._ended.set)

    def _next(self) -> list[Job] | None:
        """Wait for a packet, in slices: a signal that another thread received is handled only when this one comes back."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._packets.get(timeout=LONGEST_WAIT)

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended before us
                self._loop.call_soon_threadsafe(function, *args)

    def send(self, slot: Slot, jobs: list[Job]) -> bool:  # noqa: ARG002 - there is one
        self._packets.put(jobs)
        return True

    def take_back(self, slot: Slot) -> list[Job]:  # noqa: ARG002 - there is one
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while True:
                jobs += self._packets.get_nowait() or []
        return jobs

    def kill(self) -> None:
        """Forget what was sent. What runs in the main thread cannot be ended from here; its outcome is dropped."""
        self.take_back(self.slots[0])
        self.slots[0].jobs.clear()

    def end(self) -> None:
        """Wait no longer for what runs: it ends with the process."""
        self._ended.set()

    async def finish(self) -> None:
        self._packets.put(None)
        await self._ended.wait()
        if not self.running:
            self._runner.ends_child(0)

    def close(self) -> None:
        self._packets.put(None)
