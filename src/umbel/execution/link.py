"""Whether a server answers: one state for all services of a worker, which alone speaks of outages in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

from umbel.broker import OwnerLost
from umbel.exceptions import BrokerUnavailable, OperationalError

__all__ = ["RETRY_AFTER", "Link", "boottime"]

logger = logging.getLogger("celery.worker.consumer")
RETRY_AFTER = 0.5  # seconds between the attempts of one service, while the server is away


def boottime() -> float:
    """Return seconds that also pass while the machine is suspended, where the system can say."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


P = ParamSpec("P")
T = TypeVar("T")


class Link:
    """Connected, or away since a moment. All calls of a worker's services to one server go through it; used on the loop.

    An outage begins with a call that fails, unless its connection broke and another call was answered since it began: then
    only that connection was bad. It ends when a call of a kind that failed in it is answered. So a server that is gone is
    said to be back with the first answer, and one that answers everything but one claim (somebody's key has the name of
    ours) is not said to go and come back without end.
    """

    def __init__(self, server: str, *, connected: bool = True) -> None:
        """*connected*: False, if the first connection is made, and spoken of, by somebody else."""
        self._server = self._lost = server  # the second is named when it is back
        self._said = connected  # is the outage in the log?
        self._failing: set[str] = set()  # kinds of calls that failed in this outage
        self._answered_at = 0.0
        self._answer = asyncio.Event()
        self.away_since = None if connected else boottime()

    async def call(self, io: Executor, kind: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call *function* in the thread *io*; *kind* says what for, in the log: "claim from 'celery'".

        Raises:
            OperationalError: the server is away, or refuses; said in the log once for each outage.
        """
        began = boottime()
        try:
            result = await asyncio.get_running_loop().run_in_executor(io, partial(function, *args, **kwargs))
        except OperationalError as exc:
            self._failed(kind, exc, began)
            raise
        except OwnerLost:
            self._answered(kind)
            raise
        self._answered(kind)
        return result

    def _failed(self, kind: str, exc: OperationalError, began: float) -> None:
        if self.away_since is not None:
            self._failing.add(kind)
        elif began >= self._answered_at or not getattr(exc, "maybe_sent", False):
            self._failing.add(kind)
            self.away_since = boottime()
            # What follows in workflows asks both servers in one call: the exception says which of them it was.
            self._lost = "broker" if isinstance(exc, BrokerUnavailable) else self._server
            logger.warning(
                "consumer: Connection to %s lost. Trying to re-establish the connection... (Cannot %s: %s) What runs goes on.",
                self._lost, kind, exc,
            )  # fmt: skip
            return
        logger.debug("Cannot %s: %s", kind, exc)

    def _answered(self, kind: str) -> None:
        self._answered_at = boottime()
        if self.away_since is None:
            return
        self._answer.set()  # whoever pauses tries at once
        self._answer = asyncio.Event()
        if kind in self._failing or not self._said:
            if self._said:
                logger.info("Connected to the %s again, after %.1f s.", self._lost, self._answered_at - self.away_since)
            self.away_since, self._said = None, True
            self._failing.clear()

    async def pause(self, seconds: float = RETRY_AFTER) -> None:
        """Wait about *seconds*, or until another call is answered. Workers spread, so that they do not come all at once."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answer.wait(), seconds * random.uniform(0.7, 1.0))  # noqa: S311
