"""Decisions about a delivery, without I/O: may it run, and what follows when its process died."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from umbel.broker import Delivery, Verb
from umbel.canvas.launch import decode_place
from umbel.exceptions import DecodeError, SerializationError
from umbel.execution.limits import Limits, limits_of
from umbel.flow import Place
from umbel.wire.message import Glance, decode, encode, glance
from umbel.wire.saferepr import one_line, saferepr
from umbel.wire.size import DEFAULT_LIMIT, check_read

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["Lost", "Postponed", "Refused", "Request", "Void", "admit", "lost", "place_in", "void"]

SEARCHED = 1 << 20  # bytes at either end of a message
TEXT = rb'("(?:[^"\\]|\\.)*+")'  # of JSON
FLOW_IN, ID_IN = re.compile(rb'"umbel_flow"\s*:\s*' + TEXT), re.compile(rb'"id"\s*:\s*' + TEXT)
SKEW = 1.0  # seconds that the clocks of a worker and its broker may differ


class Request(msgspec.Struct, eq=False, gc=False):
    """A delivery that may run. `acked`: its task asked for an early acknowledgement, and has it."""

    delivery: Delivery
    glance: Glance
    task: Task[..., Any]
    acked: bool = False
    asked: bool = False  # its acknowledgement was sent, and perhaps carried out
    terminated: int = 0  # the signal with which it was told to end
    expires: float | None = None  # seconds since the epoch, after which it must not start
    place: int = 0  # in the order in which requests came
    in_flow: Place | None = None  # where it stands in a workflow

    @property
    def alone(self) -> bool:
        """Must it be sent by itself, with its start written to the broker first?"""
        return self.delivery.suspect or self.delivery.attempts > 0

    def limits(self) -> Limits | None:
        """Return its time limits. This reads the whole message, so it is asked only of what runs for a while."""
        try:
            header = decode(self.delivery.raw).headers.get("timelimit")
        except DecodeError:  # it is for the child to say so
            header = None
        return limits_of(header, self.task)


@dataclass(frozen=True, slots=True)
class Refused:
    """A delivery that does not run here; it is settled at once."""

    delivery: Delivery
    verb: Verb
    reason: str
    glance: Glance | None = None


@dataclass(frozen=True, slots=True)
class Void:
    """A request that must not start any more: its result is REVOKED, with *why* as the reason."""

    request: Request
    why: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """A delivery that a Celery producer sent before its time: it goes to the delayed messages."""

    delivery: Delivery
    glance: Glance
    due: float  # seconds since the epoch
    raw: bytes  # the message, marked as one that has waited: or clocks that differ would send it round and round


def admit(
    delivery: Delivery, tasks: Mapping[str, Task[..., Any]], now: float, revoked: Container[str] = (), *, limit: int = DEFAULT_LIMIT
) -> Request | Refused | Void | Postponed:
    """Decide whether *delivery* may run at *now* (seconds since the epoch); whatever it holds, nothing is raised.

    *revoked* are the ids of revoked tasks. *limit* is `task_message_max_size`: the most bytes that a message may have,
    packed and unpacked.
    """
    try:
        return _admit(delivery, tasks, now, revoked, limit)
    except (SerializationError, ValueError, OverflowError) as exc:
        return Refused(delivery, Verb.BURY, f"the message cannot be read: {one_line(exc)}")


def _admit(
    delivery: Delivery, tasks: Mapping[str, Task[..., Any]], now: float, revoked: Container[str], limit: int
) -> Request | Refused | Void | Postponed:
    check_read(len(delivery.raw), limit)
    seen = glance(delivery.raw, limit=limit)
    due = moment(seen.eta) if seen.eta else None
    expires = moment(seen.expires) if seen.expires else None
    task = tasks.get(seen.task)
    if task is None:
        return Refused(delivery, Verb.PARK, seen.task, seen)
    request = Request(delivery, seen, task, expires=expires, in_flow=decode_place(seen.flow) if seen.flow else None)
    if why := void(request, now, revoked):
        return Void(request, why)
    if due is not None and due > now + SKEW and b'"umbel_waited"' not in delivery.raw:
        message = decode(delivery.raw, limit=limit)
        message.headers["umbel_waited"] = True
        return Postponed(delivery, seen, due, encode(message))
    return request


def place_in(raw: bytes) -> tuple[Place, str] | None:
    """Return the place in a workflow that an unreadable message names, and its id, if both can be found in it."""
    searched = raw if len(raw) <= 2 * SEARCHED else raw[:SEARCHED] + raw[-SEARCHED:]
    flow, task_id = FLOW_IN.search(searched), ID_IN.search(searched)
    if flow is None or task_id is None:
        return None
    try:
        return decode_place(msgspec.json.decode(flow[1], type=str)), msgspec.json.decode(task_id[1], type=str)
    except (DecodeError, msgspec.DecodeError):
        return None


def void(request: Request, now: float, revoked: Container[str]) -> str | None:
    """Return why *request* must not start: 'expired' or 'revoked'; None: it may."""
    if request.expires is not None and request.expires <= now:
        return "expired"
    return "revoked" if request.glance.id in revoked else None


def moment(text: str) -> float:
    """Return an ISO-8601 time as seconds since the epoch; without an offset it is UTC, as Celery reads it.

    Raises:
        ValueError: it is not such a time.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"{saferepr(text, 60)} is not an ISO 8601 time: {exc}") from exc
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
