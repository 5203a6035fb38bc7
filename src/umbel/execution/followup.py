"""What follows the end of a task or of a join in its workflow: decided here as values, carried out by `follower`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from umbel.backend import Arrival, Over
from umbel.flow import Follow, Node, Part, Place

__all__ = ["Due", "Ending", "Steps", "after_join", "after_task", "arrivals_of", "digest", "errback_id", "packed", "unpacked"]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a workflow that has ended, or that will never start because of one that has."""

    flow: str
    node: int | None
    part: Part | None = None
    id: str
    value: bytes | None = None  # None: it failed
    failure: bytes = b""  # then: its result document
    told: bool = True  # do its errbacks hear of it? Not of what was revoked
    root: str = ""
    raw: bytes = b""  # its message; empty: it was never sent
    task: str = ""  # then: its name
    since: int = 0  # when the record was written to, as far as the sender of its message knew
    priority: int | None = None  # of its message, as the broker has it
    until: float = 0.0  # not 0: it has not ended, but goes on at this time, and so long its record must live
    heard: tuple[str, ...] = ()  # digests of errbacks of a whole chain, which were told of this failure before
    broken_off: bool = False  # it has succeeded, but what follows it cannot be carried out: the errbacks of that hear of it

    @property
    def parentage(self) -> dict[str, Any]:
        """What a message that follows it says of it, as `launch` takes it."""
        return {"root_id": self.root or None, "parent_id": self.id, "parent_priority": self.priority}

    @classmethod
    def at(cls, place: Place, **what: Any) -> Ending:
        """Make one of a task that stood at *place*."""
        return cls(flow=place.flow, node=place.node, part=place.part, since=place.since, **what)


class Due(msgspec.Struct, frozen=True):
    """A join that is over, and the task with which it was."""

    over: Over
    after: str = ""  # its id; empty: it ended in another worker
    root: str = ""
    priority: int | None = None  # of its message
    failure: bytes = b""  # why what follows it cannot be carried out, as a result document


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """What follows: nodes that start, nodes that end with the failure, values that go to joins, and who is told."""

    starts: Sequence[int] = ()
    doomed: Sequence[int] = ()
    arrivals: Sequence[Arrival] = ()
    errbacks: Sequence[Mapping[str, Any]] = ()


def after_task(ending: Ending, node: Node | None) -> Steps:
    """Decide what follows a task; *node* is its own, if it has one."""
    follow = node.follow if node else Follow()
    parts = (*follow.parts, *((ending.part,) if ending.part else ()))
    return _after(follow, parts, ending)


def after_join(follow: Follow, ending: Ending) -> Steps:
    """Decide what follows a join that is over: *ending* has the list of its values, or the failure that those behind it get."""
    return _after(follow, follow.parts, ending)


def _after(follow: Follow, parts: Sequence[Part], ending: Ending) -> Steps:
    arrivals = arrivals_of(parts, ending)
    if ending.value is None:
        return Steps(doomed=follow.steps, arrivals=arrivals, errbacks=follow.errbacks if ending.told else ())
    return Steps(starts=(*follow.steps, *follow.links), arrivals=arrivals)


def arrivals_of(parts: Sequence[Part], ending: Ending) -> list[Arrival]:
    """Return what the joins of *parts* are to be told."""
    return [
        Arrival(
            flow=ending.flow, join=part.join, position=part.position, id=ending.id, value=ending.value,
            failure=ending.failure if ending.value is None else b"",
        )
        for part in parts
    ]  # fmt: skip


def errback_id(failed: str, position: int, signature: Mapping[str, Any]) -> str:
    """Return the id of an errback: always the same for the same failure, so that of two messages only one starts."""
    given = (signature.get("options") or {}).get("task_id")
    return str(given or uuid5(NAMESPACE_OID, f"errback {failed} {position}"))


def digest(signature: Mapping[str, Any]) -> str:
    """Return what stands for an errback among those that have heard of a failure."""
    return hashlib.sha256(repr(signature).encode("utf-8", "surrogatepass")).hexdigest()[:16]


HEARD = b"\x00heard "  # no document begins so


def packed(arrival: Arrival, heard: Sequence[str]) -> Arrival:
    """Put those who have *heard* of a failure before its document, so that who answers for the join knows them, whoever it is."""
    if not heard or arrival.value is not None:
        return arrival
    return msgspec.structs.replace(arrival, failure=b"\x00".join((HEARD + ",".join(heard).encode("ascii"), arrival.failure)))


def unpacked(failure: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return who has heard of a failure, and its document."""
    if not failure.startswith(HEARD):
        return (), failure
    heard, _, document = failure.removeprefix(HEARD).partition(b"\x00")
    return tuple(heard.decode("ascii", "replace").split(",")), document
