"""Times in messages: what a caller may say, and what is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

__all__ = ["Moment", "moment", "seconds"]

MOST_NEGATIVE = -(2**31)  # seconds; Celery refuses what is further in the past

WAYS = "Give seconds from now as a number, a timedelta, a datetime, or the text of one, such as 2030-01-31T12:00:00+00:00."


class Moment(NamedTuple):
    """One point in time."""

    text: str  # as the message has it
    at: float  # seconds since the epoch


def moment(value: float | str | datetime | timedelta, now: float, zone: tzinfo) -> Moment:
    """Understand a time that a caller gave.

    Args:
        value: seconds from now, a timedelta from now, a datetime or its ISO-8601 text. Without an offset it means UTC, as Celery's
            workers read it.
        now: seconds since the epoch.
        zone: the zone in which a relative time is written.

    Raises:
        ValueError: it is out of range, or not a time.
        TypeError: it is of another type.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float):
        if value < MOST_NEGATIVE:
            raise ValueError(f"A time {value} s from now is too far in the past. The limit is {MOST_NEGATIVE}.")
        try:
            return Moment(datetime.fromtimestamp(now + value, zone).isoformat(), now + value)
        except (ValueError, OverflowError) as exc:
            raise ValueError(f"A time {value} s from now cannot be written: {exc}. The last year is 9999.") from exc
    if isinstance(value, str):
        try:
            when, text = datetime.fromisoformat(value), value
        except ValueError:
            raise ValueError(f"{value!r} is not a time. {WAYS}") from None
    elif isinstance(value, datetime):
        when, text = value, value.isoformat()
    else:
        raise TypeError(f"{value!r} is not a time. {WAYS}")
    return Moment(text, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def seconds(value: float | timedelta | None) -> float | None:
    """Return a life time in seconds; None and 0 mean for ever."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return float(value) if value else None
