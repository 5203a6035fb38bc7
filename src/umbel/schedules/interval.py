"""Schedules by distance: so long after the moment before, or at even distances from a fixed moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from umbel.cron import on_the_wall
from umbel.schedules.base import BaseSchedule, in_utc, schedstate

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["every", "maybe_schedule", "schedule"]

TICK: Final = timedelta(microseconds=1)  # the least distance of two times
UNITS: Final = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class schedule(BaseSchedule):  # noqa: N801 - Celery's name
    """So long after the moment before. A day is 24 hours, whatever is done to the clock.

    Args:
        run_every: seconds, or a timedelta.
        relative: not at the very moment, but when the last full day, hour, minute or second before it began: the largest of these that
            is not longer than *run_every*. By the clock of its zone.
        nowfun: returns the time, for `is_due`.
        app: whose `timezone` it is in.

    Raises:
        TypeError: *run_every* is something else.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Umbel | None = None,
    ) -> None:
        self.run_every = _distance(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return when it is due after a run at *moment*. A distance of nothing counts as a microsecond here."""
        start = in_utc(moment)
        try:
            end = (start + max(self.run_every, TICK)).astimezone(self.tz)
        except OverflowError:
            return None
        return self._rounded(start, end) if self.relative else end

    def _rounded(self, start: datetime, end: datetime) -> datetime:
        """Return the beginning of the last full unit before *end*, but after *start*."""
        unit = next((length for _, length in UNITS if self.run_every >= length), None)
        if unit is None:
            return end
        shown = end.replace(tzinfo=None, fold=0)
        day = shown.replace(hour=0, minute=0, second=0, microsecond=0)
        wall = day + (shown - day) // unit * unit
        found = on_the_wall(wall.replace(fold=end.fold), self.tz)
        while found <= start:  # the clock went back in between
            wall += unit
            found = on_the_wall(wall, self.tz)
        return found

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is from now to *run_every* after *last_run_at*."""
        if self.run_every <= timedelta():
            return in_utc(last_run_at) + self.run_every - self._clock()
        left = super().remaining_estimate(last_run_at)
        return timedelta.max if left is None else left

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Answer whether *last_run_at* is so long ago, and in how many seconds it should be asked again."""
        left = self.remaining_estimate(last_run_at)
        if left > timedelta():
            return schedstate(False, left.total_seconds())
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0) if self.relative else self.seconds)

    def describe(self) -> str:
        """Say it in English."""
        unit = next((f"full {name}" for name, length in UNITS if self.run_every >= length), None)
        return f"every {said(self.run_every)}" + (f", at the beginning of a {unit}" if self.relative and unit else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        self._plain(schedule)
        return {"kind": "schedule", "run_every": _seconds(self.run_every), **({"relative": True} if self.relative else {})}

    @property
    def seconds(self) -> float:
        """The seconds of *run_every*; none if that is negative."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """The largest unit that *run_every* fills, and how often."""
        for name, length in UNITS:
            if self.run_every >= length:
                count = f"{self.run_every / length:.2f}"
                return f"{count} {name}{'' if count == '1.00' else 's'}"
        return "now"

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        return self.run_every == (other.run_every if isinstance(other, schedule) else other)

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun), self._kept()


class every(schedule):  # noqa: N801 - reads as a sentence, beside Celery's names
    """At even distances from a fixed moment, so that all who ask find the same times: `every(minutes=5)`, `every(hours=6, start=…)`.

    Without *start* the times are counted from 1970-01-01 00:00 UTC: full hours in UTC, midnights in UTC, and weeks begin on
    Thursday. For times of a day on the clock of your zone take `crontab`.

    Args:
        run_every: seconds, or a timedelta; or say it with the next five.
        weeks: so many times seven days.
        days: so many times 24 hours.
        hours: hours.
        minutes: minutes.
        seconds: seconds.
        start: the first time, with a zone. There are none before.
        nowfun: returns the time, for `is_due`.
        app: whose `timezone` the times are told in.

    Raises:
        ValueError: the distance is not above zero, or *start* has no zone.
    """

    def __init__(
        self,
        run_every: float | timedelta = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        start: datetime | None = None,
        nowfun: Callable[[], datetime] | None = None,
        app: Umbel | None = None,
    ) -> None:
        parts = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        super().__init__(_distance(run_every) + parts, nowfun=nowfun, app=app)
        if self.run_every <= timedelta():
            raise ValueError(f"every() needs a distance above zero, not {self.run_every}. For example: every(minutes=5).")
        if start is not None and start.tzinfo is None:
            raise ValueError(f"start is {start}, without a zone. Write for example datetime(…, tzinfo=ZoneInfo('Europe/Berlin')).")
        self.start = start

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first of its times after *moment*."""
        first, at = (self.start or EPOCH).astimezone(UTC), in_utc(moment)
        try:
            found = first if self.start is not None and at < first else first + ((at - first) // self.run_every + 1) * self.run_every
            return found.astimezone(self.tz)
        except OverflowError:
            return None

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Answer whether one of its times has come after *last_run_at*, and in how many seconds the next will."""
        return BaseSchedule.is_due(self, last_run_at)

    def describe(self) -> str:
        """Say it in English."""
        return f"every {said(self.run_every)}" + (f" from {self.start.isoformat(' ')}" if self.start is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        self._plain(every)
        start = {"start": self.start.astimezone(UTC).isoformat()} if self.start is not None else {}
        return {"kind": "every", "run_every": _seconds(self.run_every), **start}

    def __repr__(self) -> str:
        return f"<every: {said(self.run_every)}{'' if self.start is None else f' from {self.start.isoformat()}'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, every) and (self.run_every, self.start) == (other.run_every, other.start)

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every,), self._kept("start", "nowfun")


def maybe_schedule(s: Any, relative: bool = False, app: Umbel | None = None) -> Any:
    """Return a schedule of seconds or a timedelta, and give *app* to one that is a schedule already; None stays None."""
    if s is None:
        return None
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    s.app = app
    return s


def said(distance: timedelta) -> str:
    """Return `5 minutes`, `1 hour 30 minutes`; `5 minutes` of one is `minute`."""
    if distance in {length for _, length in UNITS}:
        return next(name for name, length in UNITS if length == distance)
    words, left = [], distance
    for name, length in UNITS:
        count, rest = divmod(left, length)
        if name == "second" and rest:
            words.append(f"{left.total_seconds():g} seconds")
        elif count:
            words.append(f"{count} {name}{'' if count == 1 else 's'}")
        left = rest
    return " ".join(words) or "moment"


def _distance(run_every: Any) -> timedelta:
    if isinstance(run_every, timedelta):
        return run_every
    if isinstance(run_every, int | float):
        return timedelta(seconds=run_every)
    raise TypeError(f"run_every is {run_every!r}. Write seconds or a timedelta.")


def _seconds(distance: timedelta) -> float:
    """Return the seconds, whole ones as an integer."""
    seconds = distance.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds
