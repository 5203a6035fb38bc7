"""Where time comes from. It is handed in, so that a test can hold the clock."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]

# Leases are held against a clock that goes on while the machine sleeps. On Linux that is CLOCK_BOOTTIME; where that
# name is missing (macOS, BSD), CLOCK_MONOTONIC behaves so or is the best there is.
_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Three readings of time, in seconds."""

    def now(self) -> float:
        """Seconds since the epoch; may jump when the clock is set."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back, may stand still while the machine sleeps."""

    def boottime(self) -> float:
        """Seconds since an arbitrary moment; never goes back, goes on while the machine sleeps."""


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds that never go back and do not stand still in sleep."""
        return time.clock_gettime(_BOOTTIME)
