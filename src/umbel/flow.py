"""A workflow while it runs, as values: its tasks, its joins, and what follows each.

A canvas of any shape is compiled into two things. A *node* is one task with what follows it. A *join* is a place where many parts come
together; it is over when all are there, or when one has failed. Nodes and joins of one canvas are a *flow*, a record in the result
backend. A message names its place in the flow, so it does not grow with what follows.

    chain(a, group(b, c), d)    a → b, c        b → join 0, part 0    c → join 0, part 1    join 0 → d
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Follow", "Join", "Member", "Node", "Part", "Place"]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One of the parts that a join waits for."""

    join: int
    position: int  # of its value in the list that what follows the join is given


class Follow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What follows a success, and who is told of a failure.

    Invariant: what is in `steps` and `parts` ends with this one if it fails; what is in `links` is simply not sent.
    """

    steps: tuple[int, ...] = ()  # nodes that start with the value; of several, they are a group
    parts: tuple[Part, ...] = ()  # joins to which the value goes
    links: tuple[int, ...] = ()  # nodes of callbacks: they start with the value, too
    errbacks: tuple[dict[str, Any], ...] = ()  # signatures


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a flow."""

    id: str  # of the task: fixed when the canvas was, so that each copy of its message has it
    signature: dict[str, Any]  # task, args, kwargs, options, immutable, in Celery's form
    follow: Follow = Follow()

    @property
    def turn(self) -> int:
        """How often the task was replaced that has this id: of each turn one message starts."""
        options = self.signature.get("options")
        found = options.get("replaced_task_nesting") if isinstance(options, dict) else 0
        return found if isinstance(found, int) else 0


class Join(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place where the parts of a group come together."""

    size: int
    group: str  # the id of the group
    follow: Follow = Follow()
    to_group: bool = (
        False  # is what follows a group? Its members fail with the exception of the header's member, one task with a ChordError
    )


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that needs no node, for those who look at the flow."""

    name: str
    id: str
    part: Part | None  # None: nothing follows it
    index: int | None = None  # then: its place in the group


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a message stands; the header `umbel_flow` is its JSON."""

    flow: str  # the id of the record
    node: int | None = None  # None: a member of a large group, which has no node of its own, as nothing but a join follows it
    part: Part | None = None  # of such a member
    copy: str = ""  # names one publishing of a message that a worker sends: of two copies only one starts. Empty: a client sent it
    turn: int = 0  # how often the task was replaced by another one of its id: of each turn one copy starts
    since: int = 0  # seconds since the epoch when the record was written to, as far as the sender knows: it lives from then on
