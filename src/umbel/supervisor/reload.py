"""Replacing all workers, one by one, without a moment in which fewer serve.

The successor is started first and has to say that it is ready; then the old worker is told to stop warmly, and gives back what has
not started. The next one's turn comes when the old one has ended: never is there more than one worker too many, as memory is what
runs out, and a machine that runs out of it costs attempts. A successor that does not get ready ends the roll: the rest stays.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Sequence

from umbel.supervisor.process import WorkerProcess, ended_how
from umbel.supervisor.slot import Slot

__all__ = ["READY_WITHIN", "Roll"]

logger = logging.getLogger("umbel.supervisor")

READY_WITHIN = 120.0  # seconds that a successor has to load the app and reach the broker


class Roll:
    """One replacement of all workers. `step` is called after anything has changed."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._waiting = deque(slots)
        self._slot: Slot | None = None  # whose turn it is
        self._latest = 0.0  # when its successor must be ready
        self._total = len(slots)
        self.failed = False
        logger.info("Replacing %d worker(s), one by one.", self._total)

    @property
    def over(self) -> bool:
        """Is nothing left to do?"""
        return self.failed or (self._slot is None and not self._waiting)

    @property
    def deadline(self) -> float | None:
        """Until when `step` must be called, if nothing changes."""
        return self._latest if self._slot is not None and self._coming(self._slot) is not None else None

    def step(self) -> None:
        """Go on as far as possible."""
        while not self.over:
            if self._slot is None:
                self._slot = self._waiting.popleft()
                self._latest = time.monotonic() + READY_WITHIN
                if not self._begun(self._slot):
                    return
            if not self._replaced(self._slot):
                return
            self._slot = None
        if not self.failed:
            logger.info("All %d worker(s) are replaced.", self._total)

    def _begun(self, slot: Slot) -> bool:
        try:
            slot.begin_to_replace()
        except OSError as exc:  # no more processes, or no memory
            self.fail(slot, f"its new worker cannot be started ({exc.strerror})")
            return False
        return True

    def _coming(self, slot: Slot) -> WorkerProcess | None:
        """Return who has to get ready."""
        return slot.successor or (slot.worker if slot.worker is not None and not slot.worker.ready else None)

    def _replaced(self, slot: Slot) -> bool:
        """Hand over if the successor is ready; answer whether the old worker is gone, too."""
        if slot.successor is not None and slot.successor.ready:
            leaving = slot.hand_over()
            if leaving is not None:
                logger.info("%s: pid %d is ready, pid %d finishes what it runs.", slot.node, slot.worker and slot.worker.pid, leaving.pid)
                leaving.send(signal.SIGTERM)
        coming = self._coming(slot)
        if coming is not None and time.monotonic() > self._latest:
            coming.send(signal.SIGKILL)
            self.fail(slot, f"pid {coming.pid} did not get ready in {READY_WITHIN:g} s and was killed")
            return False
        return coming is None and slot.leaving is None

    def ended(self, slot: Slot, process: WorkerProcess) -> None:
        """Note that the new worker of *slot* ended; if that is the one that we wait for, the roll ends."""
        if slot is self._slot and not process.ready and not self.failed:
            self.fail(slot, f"its new worker (pid {process.pid}) {ended_how(process.exitcode or 0)} before it was ready")

    def fail(self, slot: Slot, why: str) -> None:
        """End the roll, loudly."""
        self.failed = True
        logger.error(
            "The workers are not replaced: %s, %s. The other %d stay as they are. Its log says why; mend it and send SIGHUP again.",
            slot.node, why, self._total - 1,
        )  # fmt: skip
