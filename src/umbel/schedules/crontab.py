"""Schedules by minutes, hours, days and months."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self
from zoneinfo import ZoneInfo

from umbel.cron import Pattern, Spec, expand, in_words, next_after
from umbel.schedules.base import BaseSchedule, in_utc, own_zone, schedstate

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["FIELDS", "crontab"]

FIELDS: Final = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")  # Celery's order, which is not cron's
IN_CRON: Final = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


class crontab(BaseSchedule):  # noqa: N801 - Celery's name
    """When minute, hour, day of the week, day of the month and month all match.

    Args:
        minute: a number, a list of numbers, or a text: `*`, `*/5`, `0,30`, `10-20/2`. This and the other fields are in Celery's order.
        hour: 0 to 23.
        day_of_week: 0 (Sunday) to 6, or names.
        day_of_month: 1 to 31.
        month_of_year: 1 to 12, or names.
        nowfun: returns the time, for `is_due`.
        app: whose `timezone` it is in.
        tz: its own zone, or the name of one, in place of the app's.

    Raises:
        ParseException: the text of a field is incomplete.
        ValueError: a field is out of range or not understood, or no day is in any month.
        TypeError: a field is of another type.
    """

    minute: frozenset[int]
    hour: frozenset[int]
    day_of_week: frozenset[int]
    day_of_month: frozenset[int]
    month_of_year: frozenset[int]

    def __init__(
        self,
        minute: Spec = "*",
        hour: Spec = "*",
        day_of_week: Spec = "*",
        day_of_month: Spec = "*",
        month_of_year: Spec = "*",
        *,
        nowfun: Callable[[], datetime] | None = None,
        app: Umbel | None = None,
        tz: tzinfo | str | None = None,
    ) -> None:
        given = (minute, hour, day_of_week, day_of_month, month_of_year)
        for field, spec in zip(FIELDS, given, strict=True):
            kept = list(spec) if isinstance(spec, Iterator) else spec  # an iterator can be read once
            setattr(self, f"_orig_{field}", kept)
            setattr(self, field, expand(kept, field))
        if not self._pattern().possible():
            days, months = self._spec("day_of_month"), self._spec("month_of_year")
            raise ValueError(f"No day_of_month {days!r} is ever in month_of_year {months!r}: this would never run.")
        if tz is not None:
            self.tz = own_zone(tz)
        super().__init__(nowfun=nowfun, app=app)

    @classmethod
    def from_string(cls, crontab: str, **kwargs: Any) -> Self:
        """Return the schedule of a line of cron: `minute hour day-of-month month day-of-week`, such as `*/5 9-17 * * mon-fri`.

        Unlike in cron, day of month and day of week must both match, and Sunday is 0.

        Raises:
            ValueError: there are not five fields, or one is not understood.
        """
        fields = crontab.split()
        if len(fields) != len(IN_CRON):
            raise ValueError(f"{crontab!r} has {len(fields)} fields. Write five: minute, hour, day of month, month, day of week.")
        return cls(**dict(zip(IN_CRON, fields, strict=True)) | kwargs)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first matching time after *moment*, in its zone."""
        return self._next(moment, self.tz)

    def remaining_delta(
        self, last_run_at: datetime, tz: tzinfo | None = None, ffwd: Any = None
    ) -> tuple[datetime, timedelta | None, datetime]:
        """Return *last_run_at*, how long it is from there to the next time, and now: all in UTC, so that they can be added."""
        del ffwd
        last = in_utc(last_run_at)
        found = self._next(last, tz or self.tz)
        return last, None if found is None else found.astimezone(UTC) - last, self._clock()

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = None) -> timedelta | None:
        """Return how long it is from now to the next time after *last_run_at*."""
        last, left, now = self.remaining_delta(last_run_at, ffwd=ffwd)
        return None if left is None else last + left - now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Answer whether a time has come after *last_run_at*, and in how many seconds the next will.

        With the setting `beat_cron_starting_deadline` times that are longer ago do not count.
        """
        deadline = self.app.conf.beat_cron_starting_deadline
        state = super().is_due(last_run_at)
        if state.is_due and deadline is not None:
            since = self._clock() - timedelta(seconds=deadline, microseconds=1)
            left = self.remaining_estimate(max(in_utc(last_run_at), since))
            return schedstate(left is not None and left <= timedelta(), state.next)
        return state

    def describe(self) -> str:
        """Say it in English."""
        zone = f" ({zone_name(self._tz)})" if self._tz is not None else ""
        return in_words(self._pattern()) + zone

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        self._plain(crontab, zone=True)
        fields = {field: spec for field in FIELDS if (spec := _written(self._spec(field))) != "*"}
        return {"kind": "crontab", **fields, **({"tz": zone_name(self._tz)} if self._tz is not None else {})}

    def _next(self, moment: datetime, zone: tzinfo) -> datetime | None:
        return _after(self._pattern(), in_utc(moment), zone)

    def _pattern(self) -> Pattern:
        """Return its fields as they are now: a subclass, or who holds it, may have set them."""
        return _pattern_of(*(frozenset(getattr(self, field)) for field in FIELDS))

    def _spec(self, field: str) -> Spec:
        spec: Spec = getattr(self, f"_orig_{field}")
        return spec

    def __repr__(self) -> str:
        return f"<crontab: {' '.join(str(self._spec(field)) for field in IN_CRON)} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, crontab):
            same = all(getattr(self, field) == getattr(other, field) for field in FIELDS)
            return same and self._tz == other._tz and super().__eq__(other)
        return NotImplemented

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self._spec(field) for field in FIELDS), self._kept("nowfun")


@lru_cache(maxsize=4096)
def _pattern_of(*fields: frozenset[int]) -> Pattern:
    """Return the pattern of the five fields, once for all schedules that have it."""
    minutes, hours, weekdays, days, months = (tuple(sorted(values)) for values in fields)
    return Pattern(minutes, hours, weekdays, days, months)


@lru_cache(maxsize=4096)
def _after(pattern: Pattern, moment: datetime, zone: tzinfo) -> datetime | None:
    """Return the first time after *moment*, once for all entries with one pattern that have run at one time."""
    return next_after(pattern, moment, zone)


def zone_name(zone: tzinfo | None) -> str:
    """Return the name by which a zone can be found again.

    Raises:
        TypeError: it has none.
    """
    if zone is UTC:
        return "UTC"
    if isinstance(zone, ZoneInfo) and zone.key:
        return zone.key
    raise TypeError(f"The zone {zone!r} has no name to write. Take a zoneinfo.ZoneInfo.")


def _written(spec: Spec) -> int | str | list[int]:
    return spec if isinstance(spec, int | str) else sorted(spec)
