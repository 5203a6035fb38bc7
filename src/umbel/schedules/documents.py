"""Schedules from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from umbel.schedules.base import BaseSchedule
from umbel.schedules.clocked import clocked
from umbel.schedules.crontab import crontab
from umbel.schedules.interval import every, schedule
from umbel.schedules.solar import solar

__all__ = ["from_dict"]


def _every(run_every: float, start: str | None = None) -> every:
    return every(run_every, start=None if start is None else datetime.fromisoformat(start))


def _clocked(at: str) -> clocked:
    return clocked(datetime.fromisoformat(at))


KINDS: Final[dict[str, Callable[..., BaseSchedule]]] = {
    "clocked": _clocked, "crontab": crontab, "every": _every, "schedule": schedule, "solar": solar,
}  # fmt: skip
NOT_JSON: Final = {"app", "nowfun"}


def from_dict(document: Mapping[str, Any]) -> BaseSchedule:
    """Return the schedule that `to_dict` wrote.

    Raises:
        ValueError: it is of no known kind, or what it says is not a schedule.
        ParseException: a field of a crontab is incomplete.
        ImproperlyConfigured: it is by the sun, and the package `ephem` is not installed.
    """
    said = dict(document)
    kind = said.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of schedule. Known: {', '.join(KINDS)}.")
    if wrong := NOT_JSON & said.keys():
        raise ValueError(f"A {kind} cannot have {', '.join(sorted(wrong))} in JSON.")
    try:
        return KINDS[kind](**said)
    except (TypeError, OverflowError) as exc:
        raise ValueError(f"{said!r} is no {kind}: {exc}") from exc
