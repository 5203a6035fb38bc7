"""Whether a server answers: one state for all services of a worker, which alone speaks of outages in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from umbel.exceptions import OperationalError

__all__ = ["RETRY_AFTER", "Link", "boottime"]

logger = logging.getLogger("celery.worker.consumer")
RETRY_AFTER = 0.5  # seconds between the attempts of one service, while the server is away


def boottime() -> float:
    """Return seconds that also pass while the machine is suspended, where the system can say."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Link:
    """Connected, or away since a moment. Services tell what became of their calls; all methods are called on the loop.

    An outage begins with the first call that fails, and ends when a call of a kind that failed in it is answered. So a server
    that is gone is said to be back with the first answer, and one that answers everything but one claim (somebody's key has
    the name of ours) is not said to go and come back without end.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._failing: set[str] = set()  # kinds of calls that failed in this outage
        self._answer = asyncio.Event()
        self.away_since: float | None = None

    def failed(self, call: str, exc: OperationalError) -> None:
        """Take note that *call* (for example `claim from 'celery'`) failed; said once for each outage."""
        self._failing.add(call)
        if self.away_since is not None:
            logger.debug("Cannot %s: %s", call, exc)
            return
        self.away_since = boottime()
        logger.warning(
            "consumer: Connection to %s lost. Trying to re-establish the connection... (Cannot %s: %s) Nothing is lost.",
            self._server, call, exc,
        )  # fmt: skip

    def answered(self, call: str) -> None:
        """Take note that *call* was carried out."""
        if self.away_since is None:
            return
        self._answer.set()  # whoever pauses tries at once
        self._answer = asyncio.Event()
        if call in self._failing:
            logger.info("Connected to the %s again, after %.1f s.", self._server, boottime() - self.away_since)
            self.away_since = None
            self._failing.clear()

    async def pause(self, seconds: float = RETRY_AFTER) -> None:
        """Wait about *seconds*, or until another service got an answer. Workers spread, so that they do not come all at once."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answer.wait(), seconds * random.uniform(0.7, 1.0))  # noqa: S311
