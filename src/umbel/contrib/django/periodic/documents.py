"""From a row of the table to what the scheduler reads."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.conf import settings  # type: ignore[import-untyped]
from django.utils import timezone  # type: ignore[import-untyped]

from umbel.beat.timetable import read_row
from umbel.schedules.crontab import IN_CRON

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.beat.entry import Entry

__all__ = ["COLUMNS", "document", "entry", "schedule", "text"]

SECONDS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
COLUMNS: Final = (
    "pk", "name", "task", "enabled", "kind", "every", "unit", "crontab", "timezone", "clocked_at", "args", "kwargs", "queue", "priority",
    "expires", "headers", "options", "one_off", "max_runs", "starts", "ends", "misfire", "grace", "overlap", "jitter", "since",
    "last_run_at",
)  # fmt: skip


def schedule(task: Any) -> dict[str, Any]:
    """Return the schedule of a row, as `umbel.schedules.from_dict` reads it.

    Raises:
        ValueError: it says none.
    """
    if task.kind == "crontab":
        fields = task.crontab.split()
        if len(fields) != len(IN_CRON):
            raise ValueError(f"{task.crontab!r} has {len(fields)} fields. Write five: minute, hour, day of month, month, day of week.")
        return {"kind": "crontab", **dict(zip(IN_CRON, fields, strict=True)), **({"tz": task.timezone} if task.timezone else {})}
    if task.kind == "clocked":
        if task.clocked_at is None:
            raise ValueError("It is to run once, and has no time. Say when.")
        return {"kind": "clocked", "at": aware(task.clocked_at).isoformat()}
    if task.kind != "interval":
        raise ValueError(f"{task.kind!r} is no kind of schedule. It may be 'interval', 'crontab' or 'clocked'.")
    if task.every is None:
        raise ValueError("It is to run at intervals, and has none. Say how long.")
    return {"kind": "schedule", "run_every": float(task.every * SECONDS[task.unit])}


def document(task: Any) -> dict[str, Any]:
    """Return all that a row says: an object of the model, or a tuple of `COLUMNS`."""
    said: dict[str, Any] = {"task": task.task, "schedule": schedule(task), "enabled": task.enabled}
    if options := call_options(task):
        said["options"] = options
    if most := 1 if task.one_off else task.max_runs:
        said["max_runs"] = most
    for key, value in (("starts", task.starts), ("ends", task.ends), ("since", task.since), ("last_run_at", task.last_run_at)):
        if value is not None:
            said[key] = aware(value).timestamp()
    kept = (("args", task.args), ("kwargs", task.kwargs), ("jitter", task.jitter), ("grace", task.grace))
    said |= {key: value for key, value in kept if value or (key == "grace" and value is not None)}
    return said | {"misfire": task.misfire, "overlap": task.overlap}


def call_options(task: Any) -> dict[str, Any]:
    """Return the options of its calls."""
    fields = {"queue": task.queue or None, "priority": task.priority, "expires": task.expires, "headers": task.headers or None}
    return {**(task.options or {}), **{key: value for key, value in fields.items() if value is not None}}


def text(task: Any) -> bytes:
    """Return the row for the scheduler; of one that cannot be used, what lets the scheduler say so."""
    try:
        return msgspec.json.encode(document(task))
    except (TypeError, ValueError, KeyError, RecursionError) as exc:
        return msgspec.json.encode({"task": task.task, "schedule": {"kind": f"{task.kind}: {exc}"}})


def entry(task: Any, app: Umbel) -> Entry:
    """Return the entry that the scheduler makes of it.

    Raises:
        ValueError, TypeError, ImproperlyConfigured: it cannot be one.
    """
    return read_row(task.name, msgspec.json.encode(document(task)), None, app)


def aware(moment: datetime) -> datetime:
    """Return *moment* with a zone: with USE_TZ = False, Django's are in TIME_ZONE."""
    if moment.tzinfo is None:
        made: datetime = timezone.make_aware(moment, timezone.get_default_timezone() if settings.TIME_ZONE else None)
        return made
    return moment
