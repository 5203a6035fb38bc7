"""What is large goes to the server in several calls: a script holds up the whole server, and a reply must come in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from umbel.broker import Item
from umbel.drivers.chunks import chunks as cut

__all__ = ["CHUNK", "chunks", "grouped", "size_of"]

T = TypeVar("T")

CHUNK = 200  # messages, results or letters in one call of a script
MOST_BYTES = 8_000_000  # in one call, if it is about more than one; what the scripts take in one step has the same bound


def chunks(items: Iterable[T], size: Callable[[T], int], most: int = CHUNK) -> Iterator[list[T]]:
    """Cut *items* into what one call may be about: *most* of them, and not too many bytes."""
    return cut(items, size, most, MOST_BYTES)


def size_of(args: Iterable[Any]) -> int:
    """Return how many bytes are in the arguments of a script: what is long is bytes."""
    return sum(len(arg) for arg in args if isinstance(arg, bytes))


def grouped(items: Sequence[Item]) -> dict[tuple[str, str, int], list[Item]]:
    """Group *items* by what the messages of one call have in common; each group keeps their order.

    That is the queue; whether they have a key ("once") or wait ("later"), else "", and are of one LPUSH; and the priority. What has a key
    is one group, as two of one key may have two priorities.
    """
    groups: dict[tuple[str, str, int], list[Item]] = {}
    for item in items:
        how = "once" if item.once else "" if item.due is None else "later"
        groups.setdefault((item.queue, how, 0 if item.once else item.priority), []).append(item)
    return groups
