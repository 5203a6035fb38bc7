"""From times on the wall to moments: what happens to them where the clock is changed.

The rules, which `docs/explanation/schedules.md` tells with examples:

* A time that the clock skips fires as much later as it skipped: at the moment that it would have been without the change. If another time
  of the pattern is at that moment, there is one firing.
* A time that comes twice fires when it comes first. Only a pattern of every hour fires in both passes: it would be silent for an hour.

Zones are asked for offsets only, so any `tzinfo` will do. Where the offset is the same some hours before and after, no change is near, and
the answer is one subtraction. (The nearest two changes of a zone since 1970 are a week apart.)
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from umbel.cron.pattern import Pattern

__all__ = ["next_after", "on_the_wall"]

MINUTE: Final = timedelta(minutes=1)
TICK: Final = timedelta(microseconds=1)
NEAR: Final = timedelta(hours=25)  # longer than the longest change: Samoa left out a day
JUMP: Final = timedelta(days=2)  # longer than the difference of any two offsets
FAR: Final = timedelta(days=3)
FIRST: Final = datetime(1, 1, 5)  # noqa: DTZ001 - without a zone, as all times here
LAST: Final = datetime(9999, 12, 25)  # noqa: DTZ001 - between these two nothing here overflows


class Piece(NamedTuple):
    """A time without changes: in UTC, without a zone."""

    start: datetime
    stop: datetime
    before: timedelta  # the offset of the piece before
    offset: timedelta

    def skipped(self) -> bool:
        """Answer whether it began with the clock going forward."""
        return self.before < self.offset

    def repeats(self) -> bool:
        """Answer whether it began with the clock going back."""
        return self.before > self.offset


def next_after(pattern: Pattern, moment: datetime, zone: tzinfo) -> datetime | None:
    """Return when *pattern* fires first after *moment*, in *zone*; None if never, that is, not before the last year."""
    at = max(moment.astimezone(UTC).replace(tzinfo=None), FIRST)
    while at < LAST:
        offset = _offset(zone, at)
        wall = pattern.at_or_after(_next_minute(at + offset))
        if wall is None or wall >= LAST:
            return None
        found = wall - offset
        if found - at > FAR and _steady(zone, at - NEAR, at, at + NEAR):
            at = found - JUMP  # nothing fires before
        elif found - at <= FAR and _steady(zone, at - NEAR, at, found + NEAR):
            return _in_zone(found, zone)
        else:
            end = (at + FAR).replace(microsecond=0)
            near = _through_changes(pattern, zone, at, end)
            if near is not None:
                return _in_zone(near, zone)
            at = end - TICK
    return None


def on_the_wall(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment at which a clock in *zone* shows the naive *wall*, by the rules above."""
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)  # Python's rule for fold=0 is the same


def _through_changes(pattern: Pattern, zone: tzinfo, at: datetime, end: datetime) -> datetime | None:
    """Return the first firing after *at* and before *end*, where the clock is changed."""
    for piece in _pieces(zone, (at - NEAR).replace(microsecond=0), end):
        if piece.stop > at:
            times = [time for time in (_own(pattern, piece, at), _caught_up(pattern, piece, at)) if time is not None]
            if times:
                return min(times)
    return None


def _own(pattern: Pattern, piece: Piece, at: datetime) -> datetime | None:
    """Return the first firing after *at* that the clock shows in a piece."""
    wall = _next_minute(max(at, piece.start - TICK) + piece.offset)
    if piece.repeats() and not pattern.every_hour:
        wall = max(wall, _next_minute(piece.start + piece.before - TICK))  # what the clock shows until then was there before
    found = pattern.at_or_after(wall)
    return found - piece.offset if found is not None and found - piece.offset < piece.stop else None


def _caught_up(pattern: Pattern, piece: Piece, at: datetime) -> datetime | None:
    """Return the first firing after *at* of those for times that the clock skipped when a piece began."""
    if not piece.skipped():
        return None
    found = pattern.at_or_after(_next_minute(max(at, piece.start - TICK) + piece.before))
    return found - piece.before if found is not None and found < piece.start + piece.offset else None


def _pieces(zone: tzinfo, begin: datetime, end: datetime) -> Iterator[Piece]:
    """Cut a time into pieces without changes."""
    before = offset = _offset(zone, begin)
    start = at = begin
    while at < end:
        later = min(at + timedelta(hours=12), end)
        if _offset(zone, later) == offset:
            at = later
            continue
        at = _change(zone, at, later)
        yield Piece(start, at, before, offset)
        start, before, offset = at, offset, _offset(zone, at)
    yield Piece(start, end, before, offset)


def _change(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """Return the second at which the offset that *low* has ends."""
    offset = _offset(zone, low)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
    return high


def _steady(zone: tzinfo, *times: datetime) -> bool:
    """Answer whether the offset is the same at these times."""
    return zone is UTC or len({_offset(zone, time) for time in times}) == 1


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    """Return what a clock in *zone* is ahead of UTC."""
    return at.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta()


def _in_zone(at: datetime, zone: tzinfo) -> datetime:
    return at.replace(tzinfo=UTC).astimezone(zone)


def _next_minute(wall: datetime) -> datetime:
    """Return the first full minute after *wall*."""
    return wall.replace(second=0, microsecond=0) + MINUTE
