"""A clock that a test holds in its hand."""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """Stands still until `advance` is called. All three readings go together, but for a `step`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._passed = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return 1000.0 + self._passed

    def boottime(self) -> float:
        """Seconds since an arbitrary moment."""
        return 1000.0 + self._passed

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        with self._lock:
            self._passed += seconds

    def step(self, seconds: float) -> None:
        """Set the time of day *seconds* later, or earlier if they are negative; the two other readings stay."""
        with self._lock:
            self._start += seconds
