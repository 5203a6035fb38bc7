"""A circuit breaker for publishing: while no connection to the broker can be made, calls fail at once, and one at a time tries again.

It opens only when a call found no connection within its whole budget. A slow reply, a lost one, or a refusal by the server does not
open it: there the broker is reached. Nothing runs in the background; the call that tries is one that somebody makes anyway.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from umbel.exceptions import BrokerUnavailable

__all__ = ["Breaker", "Outage"]

logger = logging.getLogger("celery.publish")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 3.0  # seconds between two tries; each that fails doubles it


@dataclass(frozen=True, slots=True)
class Outage:
    """One broker that cannot be reached."""

    broker: object  # the driver: one that is made anew, after a change of settings, starts without an outage
    reason: str
    began: float  # seconds since the epoch
    pause: float
    next_try: float  # by `time.monotonic`


class Breaker:
    """Closed while `outage` is None. One for each app; safe under threads, greenlets and after a fork."""

    def __init__(self) -> None:
        self.outage: Outage | None = None
        self.answered = 0.0  # when the last call that succeeded had begun, by `time.monotonic`
        self._trying, self._pid = threading.Lock(), os.getpid()

    def knows(self, broker: object) -> bool:
        """Answer whether *broker* is known to be away."""
        outage = self.outage
        return outage is not None and outage.broker is broker

    def open(self, broker: object, exc: BrokerUnavailable, *, begun: float) -> None:
        """Note that a call, *begun* at this time, could not make a connection; not if a later call could."""
        if self.answered > begun or self.knows(broker):
            return
        self.outage = Outage(broker, str(exc), time.time(), FIRST_PAUSE, time.monotonic() + FIRST_PAUSE)
        logger.warning(
            "%s Calls fail at once from now on; every %g to %g s one of them tries again.", exc, FIRST_PAUSE, LONGEST_PAUSE
        )  # fmt: skip

    def refuse(self, broker: object) -> None:
        """Raise if a call would be refused now.

        Raises:
            BrokerUnavailable: nothing was sent; it says since when and until when.
        """
        outage = self.outage
        if outage is not None and outage.broker is broker and (time.monotonic() < outage.next_try or self._lock().locked()):
            raise refusal(outage)

    def attempt(self, broker: object, publish: Callable[[], None]) -> None:
        """Publish if it is time to try and nobody else does.

        Raises:
            BrokerUnavailable: it was not time, or the broker is still away.
        """
        trying = self._lock()
        if not trying.acquire(blocking=False):
            if (outage := self.outage) is not None:
                raise refusal(outage)
            publish()  # the other has just found the broker
            return
        try:
            outage = self.outage  # another call may have tried just before
            if outage is not None and outage.broker is broker and time.monotonic() < outage.next_try:
                raise refusal(outage)
            self._try(publish, outage)
        finally:
            trying.release()

    def _try(self, publish: Callable[[], None], outage: Outage | None) -> None:
        try:
            publish()
        except BrokerUnavailable as exc:
            if outage is not None and exc.unreachable:
                pause = min(outage.pause * 2, LONGEST_PAUSE)
                self.outage = replace(outage, reason=str(exc), pause=pause, next_try=time.monotonic() + pause)
            else:
                self._close(outage)  # the broker was reached
            raise
        self._close(outage)

    def _close(self, outage: Outage | None) -> None:
        self.outage = None
        if outage is not None:
            logger.info("The broker can be reached again, after %.1f s.", time.time() - outage.began)

    def _lock(self) -> threading.Lock:
        if self._pid != os.getpid():  # the thread of the parent that may be trying does not exist here
            self._trying, self._pid = threading.Lock(), os.getpid()
        return self._trying


def refusal(outage: Outage) -> BrokerUnavailable:
    """Say that nothing was sent, since when, and when a call tries again."""
    began = datetime.fromtimestamp(outage.began).astimezone().isoformat(" ", "seconds")
    left = outage.next_try - time.monotonic()
    when = f"The next call after {left:.1f} s tries again." if left > 0 else "Another call is trying right now."
    return BrokerUnavailable(
        f"Nothing was sent: the broker cannot be reached since {began} ({time.time() - outage.began:.0f} s). {when} "
        f"The last try said: {outage.reason}",
        unreachable=True,
    )
