"""A pattern of minutes, hours, days and months, and the next time that a clock on the wall shows it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import MAXYEAR, date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final, TypeAlias

from umbel.cron.grammar import crontab_parser

__all__ = ["LIMITS", "Pattern", "Spec", "expand"]

Spec: TypeAlias = int | str | Iterable[int]

# Of each field: how many values, and the first.
LIMITS: Final = {"minute": (60, 0), "hour": (24, 0), "day_of_week": (7, 0), "day_of_month": (31, 1), "month_of_year": (12, 1)}
DAYS_IN_MONTH: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # at most
FEBRUARY: Final = 2
WEEK: Final = 7


def expand(spec: Spec, field: str) -> frozenset[int]:
    """Return the values that *spec* means in a field; of equal texts the same object, as there may be many schedules.

    Raises:
        ParseException: the text is incomplete.
        ValueError: something in it is out of range, or not understood.
        TypeError: it is none of a number, a text, and numbers.
    """
    if isinstance(spec, str):
        return _read(spec, field)
    count, low = LIMITS[field]
    if isinstance(spec, int):
        values = frozenset((int(spec),))
    elif isinstance(spec, Iterable) and not isinstance(spec, bytes | bytearray):
        values = frozenset(spec)
    else:
        raise TypeError(f"{field} is {spec!r}, a {type(spec).__name__}. Write a number, a text such as '*/5', or a list of numbers.")
    for value in values:
        if not isinstance(value, int):
            raise TypeError(f"{field} has {value!r} in it, a {type(value).__name__}. A list is one of numbers; a text may be '1,2,mon'.")
        if not low <= value < low + count:
            raise ValueError(f"{field} {value} is out of range. Allowed: {low}-{low + count - 1}.")
    if not values:
        raise ValueError(f"{field} is empty: it would never match. Write '*' for every value.")
    return values


@lru_cache(maxsize=4096)
def _read(text: str, field: str) -> frozenset[int]:
    return frozenset(crontab_parser(*LIMITS[field]).parse(text))


@dataclass(frozen=True)
class Pattern:
    """Minutes, hours, days and months; a time matches if it is in all five."""

    minutes: tuple[int, ...]  # each sorted
    hours: tuple[int, ...]
    weekdays: tuple[int, ...]  # Sunday is 0
    days: tuple[int, ...]
    months: tuple[int, ...]

    @cached_property
    def every_hour(self) -> bool:
        """Whether it leaves out no hour: then it fires in both passes of an hour that comes twice."""
        return len(self.hours) == LIMITS["hour"][0]

    def possible(self) -> bool:
        """Answer whether one of the days is in one of the months."""
        return any(self.days[0] <= DAYS_IN_MONTH[month] for month in self.months)

    def matches(self, wall: datetime) -> bool:
        """Answer whether a clock that shows *wall* shows this pattern."""
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.day in self.days
            and wall.month in self.months
            and wall.isoweekday() % WEEK in self.weekdays
        )

    def at_or_after(self, wall: datetime) -> datetime | None:
        """Return the first matching minute that is not before the minute *wall*; None after the last year."""
        day = self._day(wall.date())
        if day is None:
            return None
        if day == wall.date():
            time = self._time(wall.hour, wall.minute)
            if time is not None:
                return _wall(day, *time)
            day = self._day(day + timedelta(days=1)) if day < date.max else None
            if day is None:
                return None
        return _wall(day, self.hours[0], self.minutes[0])

    def _time(self, hour: int, minute: int) -> tuple[int, int] | None:
        """Return the first hour and minute from these on, of the same day."""
        at = bisect_left(self.hours, hour)
        if at < len(self.hours) and self.hours[at] == hour:
            first = bisect_left(self.minutes, minute)
            if first < len(self.minutes):
                return hour, self.minutes[first]
            at += 1
        return (self.hours[at], self.minutes[0]) if at < len(self.hours) else None

    def _day(self, day: date) -> date | None:
        """Return the first matching day from *day* on: one step for each month of the pattern that is looked at."""
        year, month, first = day.year, day.month, day.day
        at = bisect_left(self.months, month)
        if at == len(self.months) or self.months[at] != month:
            first = 1
        while True:
            if at == len(self.months):
                year, at = year + 1, 0
            if year > MAXYEAR:
                return None
            month = self.months[at]
            left = self._days_of(year, month) >> first
            if left:
                return date(year, month, first + (left & -left).bit_length() - 1)
            at, first = at + 1, 1

    def _days_of(self, year: int, month: int) -> int:
        """Return the matching days of a month, as bits."""
        length = DAYS_IN_MONTH[month] - (month == FEBRUARY and not (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)))
        return self._day_masks[date(year, month, 1).isoweekday() % WEEK] & ((2 << length) - 1)

    @cached_property
    def _day_masks(self) -> list[int]:
        """The matching days of a month of 31, as bits, for each weekday on which it may begin."""
        return [sum(1 << day for day in self.days if (first + day - 1) % WEEK in self.weekdays) for first in range(WEEK)]


def _wall(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - what a clock on the wall shows
