"""The parent's eye on time limits: who has run too long is told, and who does not listen is ended."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Mapping

from umbel.execution.limits import GRACE, Limits
from umbel.execution.verdict import Request
from umbel.pools.base import Pool, Running, Slot

__all__ = ["TimeLimits"]

logger = logging.getLogger("celery.worker.request")

SOFT, HARD, END = 1, 2, 3


class TimeLimits:
    """Looks at what runs. Nothing is prepared for each message: limits are read when a task has run for a look's time."""

    def __init__(self, pool: Pool, sent: Mapping[int, tuple[Request, Slot]]) -> None:
        self._pool, self._sent = pool, sent
        self._limits: dict[int, Limits | None] = {}  # of what ran at the last look
        self._done: dict[int, int] = {}  # tag -> how far it was told

    def look(self) -> None:
        """Interrupt and end what is over its limits; called every now and then while something is with the pool."""
        now, running = time.monotonic(), self._pool.runs()
        limits = {job.tag: self._of(job.tag) for job in running}
        self._limits = limits
        self._done = {tag: step for tag, step in self._done.items() if tag in limits}
        for job in running:
            found = limits[job.tag]
            if found is not None and job.tag in self._sent:  # what was forgotten may still run, where nothing can end it
                self._look_at(job, found, now - job.since)

    def _of(self, tag: int) -> Limits | None:
        if tag in self._limits:
            return self._limits[tag]
        return self._sent[tag][0].limits() if tag in self._sent else None

    def _look_at(self, job: Running, limits: Limits, ran: float) -> None:
        request, done = self._sent[job.tag][0], self._done.get(job.tag, 0)
        # A coroutine keeps to its limits by itself, on its loop; from here it is only ended if that loop is held up.
        itself = inspect.iscoroutinefunction(request.task.run) or self._pool.sees_to_limits
        grace = max(self._pool.grace, 2 * GRACE) if itself else self._pool.grace
        if limits.hard is not None and ran >= limits.hard + grace:
            if done < END:
                self._done[job.tag] = END
                self._pool.end_task(job.slot, job.tag)
        elif itself:
            return
        elif limits.hard is not None and ran >= limits.hard:
            if done < HARD:
                self._done[job.tag] = HARD
                self._pool.interrupt(job.slot, job.tag, hard=True)
        elif limits.soft is not None and ran >= limits.soft and done < SOFT:
            self._done[job.tag] = SOFT
            logger.warning("Soft time limit (%ss) exceeded for %s[%s]", limits.soft, request.task.name, request.glance.id)
            self._pool.interrupt(job.slot, job.tag, hard=False)
