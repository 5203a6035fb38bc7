"""What is large goes to the server in several calls: a script holds up the whole server, and a reply must come in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["CHUNK", "chunks", "size_of"]

T = TypeVar("T")

CHUNK = 200  # messages, results or letters in one call of a script
MOST_BYTES = 8_000_000  # in one call, if it is about more than one; what the scripts take in one step has the same bound


def chunks(items: Iterable[T], size: Callable[[T], int], most: int = CHUNK) -> Iterator[list[T]]:
    """Cut *items* into what one call may be about: *most* of them, and not too many bytes."""
    chunk, total = list[T](), 0
    for item in items:
        more = size(item)
        if chunk and (len(chunk) == most or total + more > MOST_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += more
    if chunk:
        yield chunk


def size_of(args: Iterable[Any]) -> int:
    """Return how many bytes are in the arguments of a script: what is long is bytes."""
    return sum(len(arg) for arg in args if isinstance(arg, bytes))
