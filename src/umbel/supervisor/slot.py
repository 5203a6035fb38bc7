"""The place of one worker: who serves in it, who comes, who goes, and when the next is started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from umbel.supervisor.process import WorkerProcess, ended_how

__all__ = ["LONGEST_PAUSE", "Slot", "pause_after"]

logger = logging.getLogger("umbel.supervisor")

SOON = 30.0  # seconds: a worker that ends within them ended quickly
LONGEST_PAUSE = 60.0  # seconds

Start = Callable[["Slot"], WorkerProcess]


class Slot:
    """One of the N. Invariant: at most one process serves or is about to, at most one comes, at most one goes."""

    def __init__(self, node: str, index: int, start: Start) -> None:
        self.node, self.index, self._start = node, index, start
        self.worker: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.leaving: WorkerProcess | None = None
        self.quick_ends = 0  # in a row
        self.due: float | None = None  # when to start a worker; None: there is one, or none is wanted

    def processes(self) -> Iterator[WorkerProcess]:
        """Return all that are there."""
        return (process for process in (self.worker, self.successor, self.leaving) if process is not None)

    @property
    def serves(self) -> bool:
        """Does a worker run here that takes messages?"""
        return self.worker is not None and self.worker.ready

    def start_if_due(self) -> None:
        """Start a worker whose time has come."""
        if self.due is not None and self.due <= time.monotonic():
            self.due = None
            self.worker = self._start(self)

    def ended(self, process: WorkerProcess) -> None:
        """Put another in the place of the worker, which was not told to end."""
        self.worker = None
        assert process.exitcode is not None
        self.quick_ends = self.quick_ends + 1 if time.monotonic() - process.started < SOON else 0
        pause = pause_after(self.quick_ends)
        self.due = time.monotonic() + pause
        how = f"{self.node} (pid {process.pid}) {ended_how(process.exitcode)}"
        if self.quick_ends > 1:
            logger.error(
                "%s, the %s time in a row within %g s of its start. The next one starts in %g s; its own log says why it ends.",
                how, ordinal(self.quick_ends), SOON, pause,
            )  # fmt: skip
        else:
            logger.warning("%s and was not told to. Another is started.", how)

    def begin_to_replace(self) -> None:
        """Start the successor of the worker; where there is none, the worker itself, without a pause."""
        if self.worker is None:
            self.due, self.quick_ends = None, 0
            self.worker = self._start(self)
        else:
            self.successor = self._start(self)

    def hand_over(self) -> WorkerProcess | None:
        """Let the successor, which is ready, be the worker; return who leaves."""
        self.leaving, self.worker, self.successor = self.worker, self.successor, None
        self.quick_ends, self.due = 0, None
        return self.leaving


def pause_after(quick_ends: int) -> float:
    """Return the seconds to wait: none after the first, then 1, 2, 4 … up to a minute."""
    return 0.0 if quick_ends < 2 else min(LONGEST_PAUSE, 2.0 ** min(quick_ends - 2, 10))  # noqa: PLR2004 - the second


def ordinal(number: int) -> str:
    """Write 1st, 2nd, 3rd, 4th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004 - English
    return f"{number}{ending}"
