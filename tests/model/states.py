"""What the model of delivery is made of: the broker's tables, the nodes, and what is on its way between them."""

from __future__ import annotations

from typing import Any, NamedTuple

LEASE = 2  # ticks; a tick is the time between two renewals
Name = tuple[int, int]  # node, epoch


class Owner(NamedTuple):
    """A row in the queue's table of owners."""

    name: Name
    left: int = LEASE  # ticks until the lease lapses
    reaped: bool = False
    last: tuple[int, tuple[Any, ...]] = (0, ())  # number of the last claim, and its tags
    took: tuple[int, tuple[Any, ...]] = (0, ())  # number of the last recovery, and its tags


class Claim(NamedTuple):
    """A claimed message."""

    owner: Name
    tag: tuple[str, int, int]
    message: int
    fence: int
    started: bool = False  # its start was marked


class Held(NamedTuple):
    """What a node believes that it holds."""

    tag: tuple[str, int, int]
    message: int
    fence: int
    attempts: int
    suspect: bool
    status: str = "waits"  # waits, marked, runs, ended, stored, rides
    verb: str = "ack"  # how it is to be settled: ack, give back, bury


class Wire(NamedTuple):
    """One request of a node: on its way, or carried out with the reply on its way."""

    what: tuple[Any, ...]  # kind, owner, ...
    reply: Any = None
    done: bool = False
    age: int = 0  # ticks since it was sent


class Node(NamedTuple):
    """A worker. Its three threads for claims, settling and care share one line here; the lease has its own."""

    up: bool = True
    epoch: int = 1
    joined: bool = False
    deadline: int = 0  # ticks until its own end of its lease
    unbroken: int | None = None  # ticks of unbroken connection
    seq: int = 0  # of the last claim that returned
    call: tuple[Any, ...] | None = None  # a claim without an answer
    number: int = 1  # of the next recovery
    held: tuple[Held, ...] = ()
    work: Wire | None = None
    lease: Wire | None = None


class State(NamedTuple):
    """Everything."""

    ready: tuple[int, ...]
    marks: tuple[tuple[int, bool], ...]  # attempts and suspect, of each message
    nodes: tuple[Node, ...]
    claims: tuple[Claim, ...] = ()
    owners: tuple[Owner, ...] = ()
    acked: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    results: tuple[int, ...] = ()  # the fence of each message's final result; 0: none
    starts: tuple[int, ...] = ()  # how often the start of each message was marked
    fence: int = 0
    late: tuple[tuple[Any, ...], ...] = ()  # requests given up by their senders and still on their way
    crashes: int = 0  # what may still go wrong
    stops: int = 0
    losses: int = 0
    slowness: int = 0
    outages: int = 0
    suspensions: int = 0
    out: bool = False  # the broker does not answer
    bad: str = ""  # an invariant that a step has broken


def put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    """Replace one item."""
    return (*items[:at], item, *items[at + 1 :])


def owner_of(state: State, name: Name) -> Owner | None:
    """The row of an owner that was not reaped."""
    return next((o for o in state.owners if o.name == name and not o.reaped), None)


def with_owner(state: State, owner: Owner) -> State:
    """Write an owner's row."""
    others = [o for o in state.owners if o.name != owner.name]
    return state._replace(owners=tuple(sorted([*others, owner])))


def with_claims(state: State, *, without: tuple[Claim, ...] = (), new: tuple[Claim, ...] = ()) -> State:
    """Take claims away and add some."""
    return state._replace(claims=tuple(sorted([*(c for c in state.claims if c not in without), *new])))
