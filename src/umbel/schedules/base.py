"""What all schedules have: a zone, a clock, and Celery's questions, answered by `next_after`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from umbel.current import get_current_app

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["BaseSchedule", "in_utc", "own_zone", "schedstate"]

PACKAGE = __name__.rpartition(".")[0]
ASKED = ("is_due", "remaining_estimate", "remaining_delta")


class schedstate(NamedTuple):  # noqa: N801 - Celery's name
    """Celery's answer to whether something is due."""

    is_due: bool
    next: float | None  # seconds until it should be asked again; None: there is nothing to come


class BaseSchedule:
    """A schedule: a subclass defines `next_after`, or `is_due` and `remaining_estimate`, as Celery's do.

    Args:
        nowfun: returns the time, for `is_due` and `remaining_estimate`. Without it the app is asked.
        app: its `timezone` is that of the schedule. Without it the current app is asked, when the zone is needed.
    """

    nowfun: Callable[[], datetime] | None = None
    _app: Umbel | None = None
    _tz: tzinfo | None = None

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Umbel | None = None) -> None:
        self.nowfun = nowfun
        if app is not None:
            self._app = app

    # --- what a scheduler of umbel's asks

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first time after *moment* at which it is due, or None. A naive *moment* is in UTC.

        Of a subclass that has only `remaining_estimate`, that is asked, and it looks at the clock.
        """
        if type(self).remaining_estimate is BaseSchedule.remaining_estimate:
            raise NotImplementedError(f"{type(self).__name__} has neither next_after() nor remaining_estimate().")
        left = self.remaining_estimate(moment)
        return None if left is None else _later(self._clock(), left)

    def upcoming(self, moment: datetime, n: int = 5) -> list[datetime]:
        """Return the next *n* times after *moment*; fewer if there are no more."""
        times: list[datetime] = []
        while len(times) < n and (found := self.next_after(times[-1] if times else moment)) is not None:
            times.append(found)
        return times

    def describe(self) -> str:
        """Say it in English."""
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes an equal schedule of, as JSON can say it.

        Raises:
            TypeError: it cannot be said: it has a `nowfun`, a zone without a name, or is of a class of yours.
        """
        raise TypeError(f"A {type(self).__name__} cannot be written as JSON. What can: the schedules of umbel.schedules.")

    def is_custom(self) -> bool:
        """Answer whether a class from elsewhere decides by Celery's questions, so that a scheduler must ask `is_due`."""
        for cls in type(self).__mro__:
            if "next_after" in vars(cls):
                return False
            if not f"{cls.__module__}.".startswith(f"{PACKAGE}.") and any(name in vars(cls) for name in ASKED):
                return True
        return False

    # --- what Celery's beat asks

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Answer whether it is due by now, after a run at *last_run_at*, and in how many seconds to ask again."""
        left = self.remaining_estimate(last_run_at)
        if left is None:
            return schedstate(False, None)
        due = left <= timedelta()
        if due:
            left = self.remaining_estimate(self.now())
        return schedstate(due, None if left is None else max(left.total_seconds(), 0))

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:
        """Return how long it is from now to the next time after *last_run_at*; not above zero if that has come, None if there is none."""
        if type(self).next_after is BaseSchedule.next_after:
            raise NotImplementedError(f"{type(self).__name__} has neither remaining_estimate() nor next_after().")
        found = self.next_after(last_run_at)
        return None if found is None else found.astimezone(UTC) - self._clock()

    def now(self) -> datetime:
        """Return the time of its clock."""
        return (self.nowfun or self.app.now)()

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """Return *dt* in its zone. A naive one is in UTC, or else in this zone."""
        if dt.tzinfo is not None:
            return dt.astimezone(self.tz)
        return dt.replace(tzinfo=UTC).astimezone(self.tz) if naive_as_utc else dt.replace(tzinfo=self.tz)

    def to_local(self, dt: datetime) -> datetime:
        """Return *dt*; with `enable_utc=False`, in the zone of this machine."""
        return dt if self.utc_enabled else dt.astimezone()

    @property
    def app(self) -> Umbel:
        """Its app, or the current one."""
        return self._app or get_current_app()

    @app.setter
    def app(self, app: Umbel | None) -> None:
        self._app = app

    @property
    def tz(self) -> tzinfo:
        """Its zone: its own, or that of its app."""
        return self._tz or self.app.timezone

    @tz.setter
    def tz(self, zone: tzinfo | None) -> None:
        self._tz = zone

    @property
    def utc_enabled(self) -> bool:
        """The app's `enable_utc`."""
        return bool(self.app.conf.enable_utc)

    def _clock(self) -> datetime:
        return in_utc(self.now())

    def _plain(self, cls: type[BaseSchedule], *, zone: bool = False) -> None:
        """Refuse to be written as JSON, if that would leave something out."""
        if type(self) is not cls:
            BaseSchedule.to_dict(self)
        if self.nowfun is not None:
            raise TypeError(f"{self!r} has a nowfun, which cannot be written as JSON.")
        if self._tz is not None and not zone:
            raise TypeError(f"{self!r} has a zone of its own, {self._tz}, which is written for a crontab only.")

    def _kept(self, *names: str) -> dict[str, Any]:
        """Return what a pickle must keep beside the arguments of the class."""
        return {name: value for name in ("_tz", *names) if (value := getattr(self, name)) is not None}

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as Celery's, which are equal by what may change


def in_utc(moment: datetime) -> datetime:
    """Return *moment* in UTC; a naive one is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def own_zone(zone: tzinfo | str | None) -> tzinfo | None:
    """Return a zone by its name; a zone as it is.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(zone, str):
        return zone
    if zone.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"tz is {zone!r}, and this system knows no such time zone. Write a name such as 'Europe/Berlin'.") from None


def _later(moment: datetime, by: timedelta) -> datetime:
    return (moment.astimezone(UTC) + by).astimezone(moment.tzinfo)
