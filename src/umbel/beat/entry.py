"""One periodic task: what is sent when, and what is done if that moment was missed or the run before has not ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from umbel.broker_urls import broker_url, is_rabbitmq
from umbel.connections import comes_to_caller
from umbel.exceptions import ImproperlyConfigured
from umbel.ids import LONGEST_NAME, is_name
from umbel.schedules import BaseSchedule, crontab, maybe_schedule
from umbel.schedules import schedule as interval

if TYPE_CHECKING:
    from umbel.config import Settings

__all__ = ["MISFIRES", "OVERLAPS", "Entry", "entry_of", "utc"]

MISFIRES: Final = ("once", "skip", "all")
OVERLAPS: Final = ("allow", "skip", "queue", "replace")
LONGEST = LONGEST_NAME - 30  # characters of a name: its runs have the moment behind it
GRACE = 60.0  # seconds that `misfire="skip"` has if no grace is given: longer than any failover


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One periodic task.

    Args:
        name: it is known by this, and its runs are.
        task: the name of the task.
        schedule: when.
        args: arguments of each call.
        kwargs: keyword arguments of each call.
        options: of `apply_async`.
        misfire: what becomes of moments that were missed: `once` runs once for all of them, `skip` runs those that are not older
            than the grace, `all` runs each.
        grace: seconds after which a missed moment is not run any more; None: `skip` has 60, the others have none.
        overlap: what is done if the run before has not ended: `allow` runs beside it, `skip` leaves this one out, `queue` waits for
            it, `replace` revokes it.
        jitter: seconds by which a run is late at most, always the same for one moment.
        starts: the first moment, in seconds since the epoch.
        ends: the last moment.
        since: nothing before it is made up for, in seconds since the epoch: when it was last switched on.
        enabled: False: nothing is sent.
        max_runs: after so many it is over.
        last_run_at: in seconds since the epoch, for an entry that has not run yet.
    """

    name: str
    task: str
    schedule: BaseSchedule
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    misfire: str = "once"
    grace: float | None = None
    overlap: str = "allow"
    jitter: float = 0.0
    starts: float | None = None
    ends: float | None = None
    since: float | None = None
    enabled: bool = True
    max_runs: int | None = None
    last_run_at: float | None = None

    @property
    def runs_alone(self) -> bool:
        """May it not run beside itself?"""
        return self.overlap != "allow"

    @property
    def patience(self) -> float | None:
        """Seconds after which a missed moment is not run any more; None: never."""
        return GRACE if self.grace is None and self.misfire == "skip" else self.grace


FIELDS: Final = frozenset(Entry.__dataclass_fields__) - {"name"}


def entry_of(name: str, said: Mapping[str, Any], app: Any = None) -> Entry:
    """Read an entry of `beat_schedule`, or of a store.

    Raises:
        TypeError: it says something that no entry has.
        ImproperlyConfigured: it says nothing of what it must, or what cannot be.
    """
    said = dict(said)
    relative, one_off, _ = said.pop("relative", False), said.pop("one_off", False), said.pop("total_run_count", None)
    if unknown := sorted(set(said) - FIELDS):
        raise TypeError(
            f"The periodic task {name!r} says {', '.join(unknown)}. It may say {', '.join(sorted(FIELDS | {'relative', 'one_off'}))}."
        )
    _check(name, said)
    if app is not None and said.get("overlap", "allow") != "allow":
        _check_overlap(name, said["overlap"], app.conf)
    for key in ("starts", "ends", "since", "last_run_at"):
        said[key] = epoch(said.get(key))
    for key in ("args", "kwargs", "options"):  # None: nothing, as Celery takes it
        if said.get(key, ()) is None:
            del said[key]
    if one_off:
        said["max_runs"] = 1
    when = said["schedule"] = maybe_schedule(said["schedule"], relative, app=app)
    if app is not None and isinstance(when, crontab) and said.get("grace") is None and said.get("misfire", "once") == "once":
        said["grace"] = app.conf.beat_cron_starting_deadline
    if isinstance(when, interval) and not when.seconds:
        raise ImproperlyConfigured(f"The periodic task {name!r} is to run every 0 seconds. Say a time above zero.")
    return Entry(name=name, **said)


def _check(name: str, said: Mapping[str, Any]) -> None:
    if not is_name(name) or len(name) > LONGEST:
        raise ImproperlyConfigured(f"{name!r} is no name of a periodic task. It must be a text of 1 to {LONGEST} printable characters.")
    for needed in ("task", "schedule"):
        if said.get(needed) is None:
            raise ImproperlyConfigured(f"The periodic task {name!r} has no {needed!r}. Say which task runs, and when.")
    for key, known in (("misfire", MISFIRES), ("overlap", OVERLAPS)):
        if said.get(key, known[0]) not in known:
            raise ImproperlyConfigured(f"The periodic task {name!r} has {key}={said[key]!r}. It may be {', '.join(known)}.")


def _check_overlap(name: str, overlap: str, conf: Settings) -> None:
    """Refuse what these settings cannot tell or do: found out later, it would be in the way of all others."""
    if not conf.result_backend or comes_to_caller(conf):
        raise ImproperlyConfigured(
            f"The periodic task {name!r} has overlap={overlap!r}: whether its run before has ended is known from its result, which each "
            "scheduler must be able to read. Set result_backend to a store, such as redis://localhost:6379/0."
        )
    if overlap == "replace" and is_rabbitmq(broker_url(conf)) and not conf.umbel_state_url:
        raise ImproperlyConfigured(
            f"The periodic task {name!r} has overlap='replace': its run before is revoked, and RabbitMQ keeps no revoked ids. Set "
            "umbel_state_url to a store, such as redis://localhost:6379/0."
        )


def epoch(moment: datetime | float | None) -> float | None:
    """Return *moment* in seconds since the epoch; one without a zone is in UTC."""
    if moment is None or isinstance(moment, int | float):
        return moment
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def utc(seconds: float) -> datetime:
    """Return the moment that is *seconds* after the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
