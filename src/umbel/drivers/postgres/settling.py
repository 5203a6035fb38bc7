"""Settlements as the arrays that `umbel.settle` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from umbel.backend import Record
from umbel.broker import Delivery, Item, Settlement, Verb, encode_evidence, plain

__all__ = ["apart", "arrays_of", "batches", "claim_of", "columns", "documents", "floating", "keys_of", "tag_of"]

T = TypeVar("T")
PUT_AWAY = frozenset({Verb.BURY, Verb.PARK})
GONE = frozenset({Verb.ACK, Verb.RETRY})


def tag_of(owner: int, seq: int, position: int, fence: int) -> str:
    """Return the tag of a claim: its key in the table."""
    return f"{owner}:{seq}:{position}:{fence}"


def claim_of(delivery: Delivery) -> list[int]:
    """Return owner, seq, position and fence."""
    return [int(part) for part in delivery.tag.split(":")]


def batches(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Yield *settlements* in their order, in parts in which no claim and no result comes twice."""
    yield from apart(settlements, lambda each: [each.delivery.tag, *(f"r {record.id}" for record in each.records)])


def columns(items: Sequence[Item]) -> tuple[list[Any], ...]:
    """Return what `umbel.publish` takes."""
    return (
        [each.queue for each in items],
        [each.priority for each in items],
        [floating(each.due) for each in items],
        [each.id for each in items],
        [each.raw for each in items],
    )


def keys_of(items: Sequence[Item]) -> tuple[list[Any], ...]:
    """Return what `umbel.publish_once` takes in addition; nothing if no item has a key."""
    keys = [each.once for each in items]
    return (keys, [float(each.once_for) for each in items]) if any(keys) else ()


def documents(records: Sequence[Record]) -> tuple[list[Any], ...]:
    """Return what `umbel.store` takes."""
    return (
        [each.id for each in records],
        [each.state for each in records],
        [each.fence for each in records],
        [floating(each.expires) for each in records],
        [each.meta for each in records],
    )


def floating(number: float | None) -> float | None:
    """Return *number* as a float: psycopg writes no array of integers and floats."""
    return None if number is None else float(number)


def arrays_of(settlements: Sequence[Settlement]) -> tuple[list[Any], ...]:
    """Return what `umbel.settle` takes; what rides on a settlement bears its number, from 1."""
    claims = list(zip(*(claim_of(each.delivery) for each in settlements), strict=True))
    numbered = list(enumerate(settlements, start=1))
    moved = [row_of(number, each) for number, each in numbered if each.verb not in GONE]
    items = [(number, item) for number, each in numbered for item in items_of(each)]
    records = [(number, record) for number, each in numbered for record in each.records]
    tallies = [(number, each.tally) for number, each in numbered if each.tally]
    return (
        *(list(column) for column in claims),
        [int(each.verb) for each in settlements],
        *([row[column] for row in moved] for column in range(7)),
        [number for number, _ in items],
        *columns([item for _, item in items]),
        [number for number, _ in records],
        *documents([record for _, record in records]),
        [number for number, _ in tallies],
        [tally for _, tally in tallies],
    )


def row_of(number: int, each: Settlement) -> tuple[Any, ...]:
    """Return number, attempts, suspect, due, reason, evidence, raw of what is not acknowledged."""
    away = each.verb in PUT_AWAY
    return (
        number,
        each.attempts,
        each.suspect,
        floating(each.due),
        plain(each.reason) if away else "",
        encode_evidence(each.evidence) if away else b"",
        each.raw if each.verb is Verb.DELAY else None,
    )


def items_of(each: Settlement) -> list[Item]:
    """Return the messages that are published with a settlement."""
    if each.verb is not Verb.RETRY:
        return list(each.follow_ups)
    assert each.replacement is not None, "a retry needs its replacement"
    return [each.replacement, *each.follow_ups]


def apart(things: Sequence[T], names: Callable[[T], Iterable[str]]) -> Iterator[list[T]]:
    """Yield *things* in their order, in parts within which no name comes twice: one statement writes a row once."""
    part, used = list[T](), set[str]()
    for each in things:
        mine = list(names(each))
        if not used.isdisjoint(mine):
            yield part
            part, used = [], set()
        part.append(each)
        used.update(mine)
    if part:
        yield part
