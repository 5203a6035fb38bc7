"""Schedules by the sun. The package `ephem` computes; it comes with the extra `umbel[solar]`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from umbel.exceptions import ImproperlyConfigured
from umbel.schedules.base import BaseSchedule, in_utc

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["solar"]

DAY: Final = timedelta(days=1)
DAYS: Final = 400  # so many are searched: everywhere what happens at all happens within a year
PART: Final = timedelta(hours=6)  # ephem looks no further than the next noon or midnight of the sun
APART: Final = timedelta(minutes=30)  # at least, two events of one kind
FIRST: Final = datetime(1, 1, 5, tzinfo=UTC)  # between these two nothing here overflows
LAST: Final = datetime(9998, 1, 1, tzinfo=UTC)


class Event(NamedTuple):
    """How ephem is asked for an event."""

    method: str
    horizon: str = "0"  # degrees
    center: bool = False  # whether the middle of the sun counts, or its upper edge


EVENTS: Final = {
    "dawn_astronomical": Event("next_rising", "-18", center=True),
    "dawn_civil": Event("next_rising", "-6", center=True),
    "dawn_nautical": Event("next_rising", "-12", center=True),
    "dusk_astronomical": Event("next_setting", "-18", center=True),
    "dusk_civil": Event("next_setting", "-6", center=True),
    "dusk_nautical": Event("next_setting", "-12", center=True),
    "solar_noon": Event("next_transit"),
    "sunrise": Event("next_rising", "-0:34"),
    "sunset": Event("next_setting", "-0:34"),
}


class solar(BaseSchedule):  # noqa: N801 - Celery's name
    """At sunrise, sunset, dawn, dusk or noon of a place. On days on which the sun does not get there, it is not due.

    Args:
        event: one of `dawn_astronomical`, `dawn_nautical`, `dawn_civil`, `sunrise`, `solar_noon`, `sunset`, `dusk_civil`,
            `dusk_nautical`, `dusk_astronomical`.
        lat: degrees to the north.
        lon: degrees to the east.
        nowfun: returns the time, for `is_due`.
        app: whose `timezone` the times are told in.

    Raises:
        ValueError: there is no such event or place.
        ImproperlyConfigured: the package `ephem` is not installed.
    """

    _all_events: ClassVar[set[str]] = set(EVENTS)

    def __init__(self, event: str, lat: float, lon: float, nowfun: Callable[[], datetime] | None = None, app: Umbel | None = None) -> None:
        if event not in EVENTS:
            raise ValueError(f"{event!r} is no event of the sun. Known: {', '.join(sorted(EVENTS))}.")
        for name, value, most in (("lat", lat, 90), ("lon", lon, 180)):
            if not -most <= value <= most:
                raise ValueError(f"{name} {value} is out of range. Allowed: {-most} to {most}.")
        self.event, self.lat, self.lon = event, lat, lon
        self.ephem = _ephem()
        super().__init__(nowfun=nowfun, app=app)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return when the sun next does it after *moment*, to the second."""
        at = max(in_utc(moment), FIRST)
        noon = timedelta(hours=12 - self.lon / 15)
        night = datetime(at.year, at.month, at.day, tzinfo=UTC) + noon - DAY - timedelta(hours=12)
        for _ in range(DAYS):
            if night >= LAST:
                break
            for found in self._between(night, night + DAY):
                if found > at:
                    return found.astimezone(self.tz)
            night += DAY
        return None

    def _between(self, night: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the events of a day, always found from its beginning, so that whoever asks gets the same second."""
        event, place = EVENTS[self.event], self.ephem.Observer()
        place.lat, place.lon, place.elev, place.pressure, place.horizon = str(self.lat), str(self.lon), 0, 0, event.horizon
        more = {} if event.method == "next_transit" else {"use_center": event.center}
        at = night
        while at < end:
            try:
                found = getattr(place, event.method)(self.ephem.Sun(), start=at.replace(tzinfo=None), **more)
            except self.ephem.CircumpolarError:  # not in the half turn that began before
                at += PART
                continue
            at = (found.datetime() + timedelta(seconds=0.5)).replace(microsecond=0, tzinfo=UTC)
            if at < end:
                yield at
                at += APART

    def describe(self) -> str:
        """Say it in English."""
        north, east = f"{abs(self.lat):g}° {'S' if self.lat < 0 else 'N'}", f"{abs(self.lon):g}° {'W' if self.lon < 0 else 'E'}"
        name, _, kind = self.event.partition("_")
        words = {"solar": "solar noon", "dawn": f"{kind} dawn", "dusk": f"{kind} dusk"}
        return f"at {words.get(name, name)} at {north} {east}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        self._plain(solar)
        return {"kind": "solar", "event": self.event, "lat": self.lat, "lon": self.lon}

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon) and super().__eq__(other)
        return NotImplemented

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon, self.nowfun), self._kept()


def _ephem() -> Any:
    try:
        return importlib.import_module("ephem")
    except ImportError:
        raise ImproperlyConfigured("solar() needs the package ephem. Install it with: pip install 'umbel[solar]'") from None
