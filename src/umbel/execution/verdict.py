"""Decisions about a delivery, without I/O: may it run, and what follows when its process died."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from umbel import states
from umbel.broker import Delivery, Verb
from umbel.exceptions import DecodeError
from umbel.wire.message import Glance, glance

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["Lost", "Postponed", "Refused", "Request", "admit", "lost"]

SKEW = 1.0  # seconds that the clocks of a worker and its broker may differ


@dataclass(slots=True, eq=False)
class Request:
    """A delivery that may run. `acked`: its task asked for an early acknowledgement, and has it."""

    delivery: Delivery
    glance: Glance
    task: Task[..., Any]
    acked: bool = False
    asked: bool = False  # its acknowledgement was sent, and perhaps carried out

    @property
    def alone(self) -> bool:
        """Must it be sent by itself, with its start written to the broker first?"""
        return self.delivery.suspect or self.delivery.attempts > 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A delivery that does not run here; it is settled at once."""

    delivery: Delivery
    verb: Verb
    reason: str
    glance: Glance | None = None
    state: str | None = None  # to be stored


@dataclass(frozen=True, slots=True)
class Postponed:
    """A delivery that a Celery producer sent before its time: it goes to the delayed messages."""

    delivery: Delivery
    glance: Glance
    due: float  # seconds since the epoch


def admit(delivery: Delivery, tasks: Mapping[str, Task[..., Any]], now: float) -> Request | Refused | Postponed:
    """Decide whether *delivery* may run at *now* (seconds since the epoch)."""
    try:
        seen = glance(delivery.raw)
        due = moment(seen.eta)
        expires = moment(seen.expires)
    except (DecodeError, ValueError) as exc:
        return Refused(delivery, Verb.BURY, f"the message cannot be read: {exc}")
    task = tasks.get(seen.task)
    if task is None:
        return Refused(delivery, Verb.PARK, seen.task, seen)
    if expires is not None and expires <= now:
        return Refused(delivery, Verb.ACK, "expired", seen, states.REVOKED)
    if due is not None and due > now + SKEW and b'"umbel_waited"' not in delivery.raw:
        return Postponed(delivery, seen, due)
    return Request(delivery, seen, task)


def moment(text: str | None) -> float | None:
    """Return an ISO-8601 time as seconds since the epoch; without an offset it is UTC, as Celery reads it.

    Raises:
        ValueError: it is not such a time.
    """
    if not text:
        return None
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class Lost:
    """What follows when the process of a started task died."""

    verb: Verb
    attempts: int
    failed: bool  # store FAILURE


def lost(*, attempts: int, most: int, acked: bool, again: bool) -> Lost:
    """Decide about a task that had started for the *attempts*-th time and whose process died.

    *most* is `task_max_deliveries`; *again* is `task_reject_on_worker_lost`; *acked*: its message is gone already.
    """
    if acked or not again:
        return Lost(Verb.ACK, attempts, failed=True)
    if attempts >= most:
        return Lost(Verb.BURY, attempts, failed=True)
    return Lost(Verb.GIVE_BACK, attempts, failed=False)
