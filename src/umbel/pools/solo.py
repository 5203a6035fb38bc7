"""The solo pool: tasks run in the parent's main thread, one after the other. For debugging, and for small machines."""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from umbel.exceptions import SoftTimeLimitExceeded
from umbel.execution.limits import Guard, HardLimit, Kind, Terminated
from umbel.execution.outcome import Job, Outcome
from umbel.pools.base import Listener, Pool, Running, Slot
from umbel.pools.child import CAUGHT, INTERRUPT, Runner
from umbel.pools.copies import mind_copies

__all__ = ["SoloPool"]

LONGEST_WAIT = 0.2  # seconds


class SoloPool(Pool):
    """One slot. The worker's loop runs in a second thread; the main thread calls `run_here`."""

    name = "solo"
    grace = math.inf  # it ends when it comes back to Python, or never

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.slots = [Slot(number=1, capacity=1)]
        self._packets: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        self._finished = threading.Event()  # beside the queue, from which anybody may take all
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runs: list[Running] = []
        self._guard = Guard()
        self._asked: tuple[int, Kind] = (0, SoftTimeLimitExceeded)

    def fork(self) -> None:
        self._runner.starts_child("MainProcess")

    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._loop, self._listener = loop, listener
        self.slots[0].pid = threading.main_thread().native_id or 1

    def run_here(self) -> None:
        """Run packets in this thread until the pool is finished or closed."""
        signal.signal(INTERRUPT, lambda *_: self._guard.interrupt(*self._asked))
        mind_copies({number: handler for number in (*CAUGHT, INTERRUPT) if callable(handler := signal.getsignal(number))}, ())
        while (packet := self._next()) is not None:
            for job in packet:
                self._runs = [Running(self.slots[0], job.tag, time.monotonic())]
                outcome = self._runner.run(job, self._guard)
                self._runs = []
                self._tell(self._listener.on_outcomes, self.slots[0], [outcome])
        self._tell(self._ended.set)

    def _next(self) -> list[Job] | None:
        """Wait for a packet, in slices: a signal that another thread received is handled only when this one comes back."""
        while not (self._finished.is_set() and self._packets.empty()):
            with contextlib.suppress(queue.Empty):
                return self._packets.get(timeout=LONGEST_WAIT)
        return None

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended before us
                self._loop.call_soon_threadsafe(function, *args)

    def send(self, slot: Slot, jobs: list[Job]) -> int:  # noqa: ARG002 - there is one
        self._packets.put(jobs)
        return len(jobs)

    def take_back(self, slot: Slot) -> list[Job]:  # noqa: ARG002 - there is one
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while True:
                jobs += self._packets.get_nowait()
        return jobs

    def overheard(self, slot: Slot) -> list[Outcome]:  # noqa: ARG002 - each outcome is told at once
        return []

    @property
    def running(self) -> bool:
        """Does a task run in the main thread?"""
        return bool(self._runs)

    def runs(self) -> list[Running]:
        return list(self._runs)

    def interrupt(self, slot: Slot, tag: int, *, hard: bool) -> None:  # noqa: ARG002 - there is one
        """Wake the main thread, also from a blocking call of Python's own: its signal handler raises."""
        self._asked = (tag, HardLimit if hard else SoftTimeLimitExceeded)
        signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)

    def terminate(self, slot: Slot, tag: int, number: int) -> bool:  # noqa: ARG002 - there is one, and it is the worker's own process
        self._asked = (tag, Terminated)
        signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
        return True

    def end_task(self, slot: Slot, tag: int) -> None:  # noqa: ARG002 - there is one
        """Ask once more: the first time may have been a hair too early. There is no force, as the thread is the worker's own."""
        if self._asked[0] == tag:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)

    def kill(self) -> None:
        """Forget what was sent. What runs in the main thread cannot be ended from here; its outcome is dropped."""
        self.take_back(self.slots[0])
        self.slots[0].jobs.clear()

    def end(self) -> None:
        """Wait no longer for what runs: it ends with the process."""
        self._ended.set()

    async def finish(self) -> None:
        self.close()
        await self._ended.wait()
        if not self.running:
            self._runner.ends_child(0)

    def close(self) -> None:
        self._finished.set()
        self._packets.put([])  # wakes it
