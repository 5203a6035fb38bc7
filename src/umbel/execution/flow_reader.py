"""Reading the record of a workflow: what cannot be read is told from what is not there, and ends no worker."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from msgspec import structs

from umbel.backend import Over, ResultBackend
from umbel.canvas.records import decode_head, decode_join, decode_node
from umbel.exceptions import DecodeError
from umbel.flow import Join, Node
from umbel.publish import CHUNK

__all__ = ["FlowReader", "Unreadable", "chunks"]

logger = logging.getLogger("celery.worker")
T = TypeVar("T")


class Unreadable(dict[str, Any]):
    """What stands for the signature of a node that cannot be read; who starts it is told *why*."""

    def __init__(self, why: Exception) -> None:
        super().__init__()
        self.why = why


class FlowReader:
    """Reads in pieces; *check* is called before each, and raises if the lease has ended."""

    def __init__(self, backend: ResultBackend, accept: frozenset[str], check: Callable[[], None]) -> None:
        self._backend, self._accept, self._check = backend, accept, check

    def nodes(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Node]:
        """Return those of *places* of which something can be read."""
        found: dict[tuple[str, int], Node] = {}
        for some in chunks(list(dict.fromkeys(places))):
            self._check()
            for place, node in zip(some, self._backend.nodes(some), strict=True):
                if node is not None and (known := self._node(place, node)) is not None:
                    found[place] = known
        return found

    def _node(self, place: tuple[str, int], data: bytes) -> Node | None:
        """Read a node; of one whose task cannot be read, where it stands; None: nothing of it can be."""
        try:
            return self._read(data)
        except DecodeError as exc:
            logger.error("The workflow %s is broken: nothing is known of its node %d. %s", *place, exc)  # noqa: TRY400 - as below
            return None

    def _read(self, data: bytes) -> Node:
        try:
            return decode_node(data, self._accept)
        except Exception as exc:  # noqa: BLE001 - rubbish may raise anything
            why = exc
        return structs.replace(decode_head(data), signature=Unreadable(why))

    def whole(self, flow: str) -> Iterator[Node]:
        """Yield all nodes of *flow* of which something can be read, in silence."""
        for some in chunks(self._backend.node_numbers(flow)):
            self._check()
            for data in self._backend.nodes([(flow, number) for number in some]):
                with contextlib.suppress(DecodeError):
                    yield self._read(data or b"")

    def join(self, over: Over, data: bytes) -> Join | None:
        """Read what is known of a join; None: nothing is."""
        try:
            return decode_join(data)
        except DecodeError as exc:
            logger.error("Nothing follows a join of the workflow %s: %s", over.flow, exc)  # noqa: TRY400 - the record is broken, not we
            return None

    def values(self, over: Over) -> list[bytes] | None:
        """Return the values of a join, encoded; None: they are not there any more."""
        found: list[bytes] = []
        while len(found) < over.size:
            self._check()
            page = self._backend.arrived(over.flow, over.join, start=len(found))
            if not page:
                return None
            found += page
        return found


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield *items* in pieces that are not too large for one call of a driver."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
