"""What a driver that counts in Python knows of a join: who ends it is decided here; Redis and PostgreSQL have the same in their scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from umbel.backend import Arrival, JoinProgress, Over

__all__ = ["JoinState", "end_of"]


@dataclass(slots=True)
class JoinState:
    """A join as it fills.

    Invariant: it is over when `decider` is set, and but for `sent` nothing changes from then on.
    """

    size: int
    done: int = 0
    decider: int | None = None  # the position of the part that ended it; -1: it had no parts
    failed: str | None = None
    failure: bytes | None = None
    sent: bool = False

    def note(self, part: Arrival, *, is_there: Callable[[], bool]) -> bool:
        """Count *part* in, unless it was before; answer whether anything changed. *is_there* asks for a value of its position."""
        if self.decider is not None or not 0 <= part.position < self.size or is_there():
            return False
        if part.value is None:
            self.failed, self.failure = part.id, part.failure
        else:
            self.done += 1
        if self.failed is not None or self.done == self.size:
            self.decider = part.position
        return True

    def answers(self, part: Arrival) -> Over | None:
        """Return the join if who brings *part* is to answer for what follows."""
        return self.over(part.flow, part.join) if self.decider == part.position and not self.sent else None

    def over(self, flow: str, number: int) -> Over:
        """Return it as one that is over."""
        return Over(flow=flow, join=number, size=self.size, failed=self.failed, failure=self.failure or b"")

    def progress(self) -> JoinProgress:
        """Return how far it is."""
        return JoinProgress(size=self.size, done=self.done, failed=self.failed, sent=bool(self.sent))


def end_of(expires: float | None, now: float) -> float | None:
    """Return when what is written now for *expires* seconds ends."""
    return None if expires is None else now + expires
