"""Names that Celery's users import from `celery.utils.time`."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

__all__ = [
    "get_exponential_backoff_interval", "humanize_seconds", "is_naive", "localize", "make_aware", "maybe_iso8601", "maybe_make_aware",
    "maybe_timedelta", "timezone", "to_utc",
]  # fmt: skip

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class _Timezones:
    """Turns times and names into times and zones."""

    utc = UTC

    @property
    def local(self) -> tzinfo:
        """The zone of this machine."""
        return datetime.now(UTC).astimezone().tzinfo or UTC

    def get_timezone(self, zone: str | tzinfo) -> tzinfo:
        """Return a zone by its name."""
        return ZoneInfo(zone) if isinstance(zone, str) else zone

    tz_or_local = get_timezone

    def to_local(self, moment: datetime, local: tzinfo | None = None, orig: tzinfo | None = None) -> datetime:
        """Return *moment* in the zone *local*; a naive one is in *orig*, or UTC."""
        aware = localize(moment, orig or UTC) if is_naive(moment) else moment
        return aware.astimezone(local or self.local)

    def to_system(self, moment: datetime) -> datetime:
        """Return *moment* in the zone of this machine."""
        return moment.astimezone(self.local)


timezone = _Timezones()


def is_naive(moment: datetime) -> bool:
    """Answer whether *moment* has no zone."""
    return moment.tzinfo is None or moment.utcoffset() is None


def make_aware(moment: datetime, tz: tzinfo) -> datetime:
    """Say that the naive *moment* is in the zone *tz*."""
    return moment.replace(tzinfo=tz)


def maybe_make_aware(moment: Any, tz: tzinfo | None = None, naive_as_utc: bool = True) -> Any:
    """Give a naive time a zone: *tz*, else UTC, or this machine's if not *naive_as_utc*."""
    if not is_naive(moment):
        return moment
    return make_aware(moment, tz or (UTC if naive_as_utc else timezone.local))


def localize(moment: datetime, tz: tzinfo) -> datetime:
    """Return *moment* in the zone *tz*."""
    return make_aware(moment, tz) if is_naive(moment) else moment.astimezone(tz)


def to_utc(moment: datetime) -> datetime:
    """Say that the naive *moment* is in UTC."""
    return make_aware(moment, UTC)


def maybe_iso8601(moment: datetime | str | None) -> datetime | None:
    """Return the time that a text says; a time as it is."""
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment


def maybe_timedelta(delta: Any) -> Any:
    """Return a number of seconds as a timedelta, and anything else as it is."""
    return timedelta(seconds=delta) if isinstance(delta, int | float) else delta


def get_exponential_backoff_interval(factor: int, retries: int, maximum: int, full_jitter: bool = False) -> int:
    """Return the seconds before the retry number *retries* + 1: *factor*, doubled with each, up to *maximum*."""
    seconds = min(maximum, factor * 2**retries)
    return max(0, random.randrange(seconds + 1) if full_jitter else seconds)  # noqa: S311 - it spreads retries


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """Return seconds in the largest unit that they fill, such as `in 1.50 hours`."""
    secs = float(f"{float(secs):.2f}")
    for size, unit in _UNITS:
        if secs >= size:
            count = f"{secs / size:.2f}"
            return f"{prefix}{sep}{count} {unit}{'s' if float(count) != 1 else ''}"
    if microseconds and secs > 0:
        return f"{prefix}{sep}{secs:.2f} seconds"
    return now
