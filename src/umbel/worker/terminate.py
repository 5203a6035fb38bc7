"""Ending tasks that were revoked while they run, as far as their pool can."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Mapping

from umbel.execution.verdict import Request
from umbel.pools.base import Pool, Running, Slot
from umbel.pools.child import CAUGHT, INTERRUPT

__all__ = ["Terminations"]

logger = logging.getLogger("celery.worker.consumer")
GRACE = 1.0  # seconds from the signal to the end by force: a task may have a handler of its own


class Terminations:
    """Who is to be ended. A task that was sent, but has not started, is ended when it does."""

    def __init__(self, pool: Pool, sent: Mapping[int, tuple[Request, Slot]]) -> None:
        self._pool, self._sent = pool, sent
        self._wanted: dict[int, int] = {}  # tag -> signal
        self._told: dict[int, float] = {}  # tag -> when (time.monotonic)

    def want(self, signals: Mapping[str, str]) -> None:
        """End the tasks with these ids, by the signals of these names."""
        for tag, (request, _) in self._sent.items():
            name = signals.get(request.glance.id)
            if name is not None:
                # A name that only the sender's system has, or that is no signal's, means SIGTERM.
                self._wanted.setdefault(tag, signal.Signals.__members__.get(name, signal.SIGTERM))
        self.look()

    def look(self) -> None:
        """Tell who has started, and end who does not listen; called every now and then while something is with the pool."""
        if not self._wanted:
            return
        self._wanted = {tag: number for tag, number in self._wanted.items() if tag in self._sent}
        self._told = {tag: at for tag, at in self._told.items() if tag in self._wanted}
        for job in self._pool.runs():
            if job.tag in self._wanted:
                self._look_at(job, self._wanted[job.tag])

    def _look_at(self, job: Running, number: int) -> None:
        if job.tag not in self._told:
            self._tell(job, number)
        # On a loop, the end by force would be that of all who share it.
        elif number != INTERRUPT and self._pool.name != "asyncio" and time.monotonic() - self._told[job.tag] > GRACE:
            self._end(job)

    def _tell(self, job: Running, number: int) -> None:
        request = self._sent[job.tag][0]
        gently = number in CAUGHT or self._pool.name != "processes"
        if number == INTERRUPT:  # as in Celery, this one is for the task: it may go on
            self._pool.interrupt(job.slot, job.tag, hard=False)
        elif gently and not self._pool.terminate(job.slot, job.tag, number):
            return
        else:
            request.terminated = number
        logger.info("Terminating %s (%s)", request.glance.id, int(number))
        self._told[job.tag] = time.monotonic()
        if number != INTERRUPT and not gently:
            self._end(job)

    def _end(self, job: Running) -> None:
        self._told[job.tag] = math.inf
        self._pool.end_task(job.slot, job.tag)
