"""What is due of one entry, and when the next is: functions without I/O.

A *slot* is a moment of a schedule, in seconds since the epoch. What was handled before is one number, the last slot, so which slot is
due follows from the store alone, and not from when somebody looks: two schedulers that plan the same entry at different times name
its next run alike. That is why the run that stands for many missed slots bears the name of the first of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from umbel.beat.entry import Entry, utc
from umbel.schedule_store import State
from umbel.schedules import schedule as Interval  # noqa: N812 - a class; Celery's name for it says nothing

__all__ = ["Plan", "begin", "fire_time", "plan", "ran_at", "slot_id", "slot_of"]

MOST = 1000  # slots of one entry in one plan
LEAST = 0.01  # seconds: what a class of users' own is asked again after, at least
TICK = 1e-6  # seconds: datetimes are no finer


class Plan(NamedTuple):
    """What is due now."""

    slots: list[float]  # to run, in their order
    handled: float  # up to here all is run or left out
    looks_at: float | None  # when to plan again; None: it is over


def plan(entry: Entry, handled: float, runs: int, now: float) -> Plan:
    """Say what is due of *entry*, of which all is handled up to *handled* and which has run *runs* times."""
    left = math.inf if entry.max_runs is None else entry.max_runs - runs
    if left <= 0 or not entry.enabled:
        return Plan([], handled, None)
    handled = max(handled, entry.since or handled)
    if entry.schedule.is_custom():
        return plan_by_is_due(entry, handled, now)
    if (first := next_slot(entry, handled)) is None:
        return Plan([], handled, None)
    if fire_time(entry, first) > now:
        return Plan([], handled, fire_time(entry, first))
    if entry.misfire == "once":
        slots, handled = one_for_all(entry, first, now)
    else:
        slots, handled = each_in_grace(entry, handled, now, min(left, MOST if entry.overlap == "allow" else 1))
    following = next_slot(entry, handled)
    return Plan(slots, handled, None if following is None else fire_time(entry, following))


def begin(entry: Entry, now: float) -> float:
    """Return up to where an entry counts as handled that nobody has planned before: nothing is due at once, as with Celery."""
    return float(math.floor(now)) if entry.last_run_at is None else entry.last_run_at


def one_for_all(entry: Entry, first: float, now: float) -> tuple[list[float], float]:
    """Return the one run for all that were missed, and up to where all is handled."""
    until = max(first, last_of_interval(entry, first, now - entry.jitter))
    fresh = entry.patience is None or first >= now - entry.patience or some_slot(entry, now - entry.patience, now)
    return ([first] if fresh else []), until


def each_in_grace(entry: Entry, handled: float, now: float, most: float) -> tuple[list[float], float]:
    """Return each run that is not too late, and up to where all is handled."""
    oldest = -math.inf if entry.patience is None else now - entry.patience
    if oldest > handled:
        handled = last_of_interval(entry, handled, oldest - TICK)
    slots: list[float] = []
    for slot in slots_after(entry, handled):
        if fire_time(entry, slot) > now or len(slots) >= most:
            break
        handled = slot
        if slot >= oldest:
            slots.append(slot)
    return slots, handled


def last_of_interval(entry: Entry, base: float, moment: float) -> float:
    """Return the last slot up to *moment* if slots are counted from *base*, else *moment* itself."""
    every = interval(entry)
    return base + math.floor((moment - base) / every) * every if every and moment > base else max(moment, base)


def some_slot(entry: Entry, after: float, until: float) -> bool:
    """Answer whether there is a slot between two moments."""
    if every := interval(entry):
        return until - after >= every
    following = next_slot(entry, after - TICK)
    return following is not None and following <= until


def interval(entry: Entry) -> float:
    """Return the seconds between slots that are counted from the slot before; 0: they stand where the calendar has them."""
    when = entry.schedule
    return when.seconds if type(when) is Interval and not when.relative else 0.0


def slots_after(entry: Entry, handled: float) -> Iterator[float]:
    """Iterate over the slots that follow."""
    while (slot := next_slot(entry, handled)) is not None:
        yield slot
        handled = slot


def next_slot(entry: Entry, after: float) -> float | None:
    """Return the slot that follows *after*."""
    if entry.starts is not None and after < entry.starts:
        if interval(entry):
            return entry.starts if entry.ends is None or entry.starts <= entry.ends else None
        after = entry.starts - TICK
    moment = entry.schedule.next_after(utc(after))
    if moment is None or (entry.ends is not None and moment.timestamp() > entry.ends):
        return None
    return moment.timestamp()


def fire_time(entry: Entry, slot: float) -> float:
    """Return when *slot* runs: up to `jitter` seconds later, always alike."""
    if not entry.jitter:
        return slot
    digest = hashlib.blake2b(slot_id(entry.name, slot).encode(), digest_size=8).digest()
    return slot + entry.jitter * int.from_bytes(digest) / 2**64


def slot_id(name: str, slot: float) -> str:
    """Name a run: `report@2026-03-29T02:30:00Z`."""
    return f"{name}@{datetime.fromtimestamp(slot, UTC).isoformat().removesuffix('+00:00')}Z"


def slot_of(run: str) -> float:
    """Return the slot of a run that `slot_id` named."""
    return datetime.fromisoformat(run.rpartition("@")[2]).timestamp()


def plan_by_is_due(entry: Entry, handled: float, now: float) -> Plan:
    """Ask a class that says itself what is due, as users of Celery write them. It has no slots, but is due when it is asked.

    So a run bears the name of the moment up to which all was handled before it: another scheduler that is to send it again knows that, too.
    """
    due, following = entry.schedule.is_due(utc(handled))
    looks_at = None if following is None else now + max(following, LEAST)
    return Plan([handled], max(now, handled + TICK), looks_at) if due else Plan([], handled, looks_at)


def ran_at(entry: Entry, state: State) -> float:
    """Return the moment of the last run that *state* names."""
    return state.slot if entry.schedule.is_custom() else slot_of(state.id)
