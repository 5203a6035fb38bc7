"""What is large goes to an engine in several calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["chunks"]

T = TypeVar("T")


def chunks(items: Iterable[T], size: Callable[[T], int], most: int, heaviest: int) -> Iterator[list[T]]:
    """Cut *items* into what one call may be about: *most* of them, and *heaviest* bytes, if it is about more than one."""
    chunk, total = list[T](), 0
    for item in items:
        more = size(item)
        if chunk and (len(chunk) == most or total + more > heaviest):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += more
    if chunk:
        yield chunk
