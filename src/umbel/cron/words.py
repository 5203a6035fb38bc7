"""A pattern in English, such as `every 5 minutes from 09:00 to 17:59, Monday to Friday`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from umbel.cron.pattern import LIMITS, Pattern

__all__ = ["in_words", "joined"]

WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS: Final = (
    "", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
TIMES_LISTED: Final = 12  # at most so many times of a day are told one by one


def in_words(pattern: Pattern) -> str:
    """Return what *pattern* means; patterns that match the same times are told with the same words."""
    listed = _listed(pattern)
    times, days = listed or _repeated(pattern), _days(pattern)
    if not days:
        return f"{times} every day" if listed else times
    return f"{times}, {days}"


def joined(words: Sequence[str], last: str = "and") -> str:
    """Return `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _listed(pattern: Pattern) -> str:
    """Return the times of a day one by one, if they are few."""
    if len(pattern.minutes) * len(pattern.hours) > TIMES_LISTED or _progression(pattern.hours):
        return ""
    if len(pattern.minutes) > 1 and _progression(pattern.minutes):
        return ""
    return f"at {joined([f'{hour:02}:{minute:02}' for hour in pattern.hours for minute in pattern.minutes])}"


def _repeated(pattern: Pattern) -> str:
    """Return how often it is in an hour, and in which hours."""
    minutes, hours = pattern.minutes, pattern.hours
    step, stride = _step(minutes, *LIMITS["minute"]), _progression(hours)
    if step is not None:
        each = "every minute" if step == 1 else f"every {step} minutes"
        return each if pattern.every_hour else f"{each} {_hours(hours)}"
    if len(minutes) == 1 and stride and not pattern.every_hour:
        each = "every hour" if stride == 1 else f"every {stride} hours"
        return f"{each} from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[0]:02}"
    each = f"at {'minute' if len(minutes) == 1 else 'minutes'} {joined(_runs(minutes, str))} of every hour"
    return each if pattern.every_hour else f"{each} {_hours(hours)}"


def _hours(hours: tuple[int, ...]) -> str:
    """Return in which hours something is repeated."""
    if hours[-1] - hours[0] + 1 == len(hours):
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"in the hours {joined(_runs(hours, str))}"


def _progression(values: tuple[int, ...]) -> int | None:
    """Return the distance of four or more values that are evenly apart."""
    steps = {later - earlier for earlier, later in pairwise(values)}
    return steps.pop() if len(values) > 3 and len(steps) == 1 else None  # noqa: PLR2004 - three are told one by one


def _days(pattern: Pattern) -> str:
    """Return the words for weekdays, days and months; nothing for every day."""
    parts = []
    some_days, some_weekdays = len(pattern.days) < LIMITS["day_of_month"][0], len(pattern.weekdays) < LIMITS["day_of_week"][0]
    if some_days:
        step = _step(pattern.days, *LIMITS["day_of_month"])
        parts.append(
            f"on every {_ordinal(step)} day of the month from day 1"
            if step
            else f"on {'day' if len(pattern.days) == 1 else 'days'} {joined(_runs(pattern.days, str))} of the month"
        )
    if some_weekdays:
        week = sorted(day or 7 for day in pattern.weekdays)  # a week begins with Monday
        runs = _runs(week, lambda day: WEEKDAYS[day % 7])
        names = joined(runs, "or" if some_days else "and")
        some = f"if it is {names}" if some_days else f"on {names}"
        parts.append(names if not some_days and len(runs) == 1 and len(week) > 1 else some)
    if len(pattern.months) < LIMITS["month_of_year"][0]:
        parts.append(f"in {joined(_runs(pattern.months, MONTHS.__getitem__))}")
    return " ".join(parts) if some_days else ", ".join(parts)


def _step(values: tuple[int, ...], count: int, low: int) -> int | None:
    """Return n if *values* are every n-th of a field, and that goes on evenly from its end to its beginning, or is of days."""
    if len(values) < 2 or values[0] != low:  # noqa: PLR2004 - a step needs two
        return None
    step = values[1] - values[0]
    even = count % step == 0 or count == LIMITS["day_of_month"][0]
    return step if even and values == tuple(range(low, low + count, step)) else None


def _runs(values: Sequence[int], name: Callable[[int], str]) -> list[str]:
    """Return names of values, with three or more in a row as `a to c`."""
    words, at = [], 0
    while at < len(values):
        end = at
        while end + 1 < len(values) and values[end + 1] == values[end] + 1:
            end += 1
        if end - at > 1:
            words.append(f"{name(values[at])} to {name(values[end])}")
        else:
            words += [name(value) for value in values[at : end + 1]]
        at = end + 1
    return words


def _ordinal(number: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"
