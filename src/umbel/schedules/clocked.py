"""A schedule that is due once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from umbel.schedules.base import BaseSchedule, in_utc

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["clocked"]


class clocked(BaseSchedule):  # noqa: N801 - the name that Celery's users know
    """Once, at a moment: due for all who have last run before it.

    Args:
        clocked_time: when, with a zone.
        nowfun: returns the time, for `is_due`.
        app: whose `timezone` the time is told in.

    Raises:
        ValueError: *clocked_time* has no zone.
    """

    def __init__(self, clocked_time: datetime, nowfun: Callable[[], datetime] | None = None, app: Umbel | None = None) -> None:
        if clocked_time.tzinfo is None:
            raise ValueError(f"clocked_time is {clocked_time}, without a zone. Write datetime(…, tzinfo=ZoneInfo('Europe/Berlin')).")
        self.clocked_time = clocked_time
        super().__init__(nowfun=nowfun, app=app)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return its time if that is after *moment*."""
        at = self.clocked_time.astimezone(UTC)
        return at.astimezone(self.tz) if in_utc(moment) < at else None

    def describe(self) -> str:
        """Say it in English."""
        return f"once, at {self.clocked_time.isoformat(' ')}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        self._plain(clocked)
        return {"kind": "clocked", "at": self.clocked_time.astimezone(UTC).isoformat()}

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time.isoformat()}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, clocked):
            return self.clocked_time.astimezone(UTC) == other.clocked_time.astimezone(UTC) and super().__eq__(other)
        return NotImplemented

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.clocked_time, self.nowfun), self._kept()
