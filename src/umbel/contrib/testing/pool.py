"""A pool of threads in this process: what a worker of a test runs tasks in."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from umbel.exceptions import SoftTimeLimitExceeded
from umbel.execution.limits import Guard, HardLimit, Kind, Terminated
from umbel.execution.outcome import Job, Outcome
from umbel.execution.runner import TaskRunner
from umbel.pools.base import Listener, Pool, Running, Slot

__all__ = ["ThreadsHere"]


class Seat:
    """One thread that runs tasks: its slot, and what it was sent."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.guard = slot, Guard()
        self.packets: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self.running: Running | None = None
        self.thread: threading.Thread | None = None

    def take_back(self) -> list[Job]:
        """Return what it has not begun."""
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while True:
                jobs += self.packets.get_nowait() or ()
        return jobs


class ThreadsHere(Pool):
    """So many threads of this process. Limits are raised in them; nothing ends a task by force."""

    grace = math.inf

    def __init__(self, runner: TaskRunner, count: int, *, name: str = "threads", on_start: Callable[[], object]) -> None:
        self.name = name
        self._runner, self._on_start = runner, on_start
        self._seats = [Seat(Slot(number=number, capacity=1)) for number in range(1, count + 1)]
        self.slots = [seat.slot for seat in self._seats]

    def fork(self) -> None:
        """Make no process."""
        self._on_start()

    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        """Start the threads."""
        self._loop, self._listener = loop, listener
        for seat in self._seats:
            seat.slot.pid = os.getpid()
            seat.thread = threading.Thread(target=self._live, args=(seat,), name=f"task-{seat.slot.number}", daemon=True)
            seat.thread.start()

    def _live(self, seat: Seat) -> None:
        while (packet := seat.packets.get()) is not None:
            for job in packet:
                seat.running = Running(seat.slot, job.tag, time.monotonic())
                outcome = self._runner.run(job, seat.guard)
                seat.running = None
                self._tell(self._listener.on_outcomes, seat.slot, [outcome])

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may have ended before us
            self._loop.call_soon_threadsafe(function, *args)

    def _seat(self, slot: Slot) -> Seat:
        return self._seats[slot.number - 1]

    def send(self, slot: Slot, jobs: list[Job]) -> int:
        """Hand jobs to a thread."""
        self._seat(slot).packets.put(jobs)
        return len(jobs)

    def take_back(self, slot: Slot) -> list[Job]:
        """Take from a thread what it has not begun."""
        return self._seat(slot).take_back()

    def overheard(self, slot: Slot) -> list[Outcome]:  # noqa: ARG002 - each outcome is told at once
        """Return nothing."""
        return []

    def runs(self) -> list[Running]:
        """Return what has started."""
        return [seat.running for seat in self._seats if seat.running is not None]

    def interrupt(self, slot: Slot, tag: int, *, hard: bool) -> None:
        """Raise in the task; a blocking call ends first."""
        self._raise(slot, tag, HardLimit if hard else SoftTimeLimitExceeded)

    def terminate(self, slot: Slot, tag: int, number: int) -> bool:  # noqa: ARG002 - it has no process to itself
        """Raise in the task what ends it."""
        self._raise(slot, tag, Terminated)
        return True

    def _raise(self, slot: Slot, tag: int, kind: Kind) -> None:
        self._seat(slot).guard.interrupt(tag, kind)

    def end_task(self, slot: Slot, tag: int) -> None:
        """Ask once more: there is no force."""
        self._raise(slot, tag, HardLimit)

    def kill(self) -> None:
        """Forget what was sent."""
        for seat in self._seats:
            seat.take_back()
            seat.slot.jobs.clear()

    def end(self) -> None:
        """Wait no longer for what runs: it goes on in its thread, which ends with the process."""
        self.close()

    async def finish(self) -> None:
        """Wait until what runs has ended."""
        self.close()
        for seat in self._seats:
            if seat.thread is not None:
                await asyncio.to_thread(seat.thread.join)
        self._runner.ends_child(0)

    def close(self) -> None:
        """Let the threads end."""
        for seat in self._seats:
            seat.packets.put(None)
