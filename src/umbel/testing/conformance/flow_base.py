# ruff: noqa: D102 - the names are the sentences, the numbers are examples
"""What the parts of the suite of workflows share: fixtures, and short ways to say common things."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from umbel.backend import Arrival, Flows, Gone, Over, ResultBackend
from umbel.testing.conformance.base import BackendSuite

__all__ = ["LIVES", "ODD_IDS", "SHORT", "FlowSuite", "at_once", "failed", "part", "values_of"]

LIVES = 60.0  # seconds, so that nothing stays in a shared server
SHORT = 0.3  # seconds after which something expires
ODD_IDS = ["", "{}", "{a}b}", "a:b", "é漢字", "with space", "x" * 100, "'quoted\"", "%s%%", "0"]


def part(flow: str, position: int, *, join: int = 0, value: bytes | None = None, id: str = "") -> Arrival:
    """Make the arrival of a part that succeeded."""
    return Arrival(flow=flow, join=join, position=position, id=id or f"task-{position}", value=value or b"v%d" % position)


def failed(flow: str, position: int, *, join: int = 0, failure: bytes = b"why") -> Arrival:
    """Make the arrival of a part that failed."""
    return Arrival(flow=flow, join=join, position=position, id=f"task-{position}", value=None, failure=failure)


def values_of(backend: Flows, over: Over) -> list[bytes]:
    """Read the values of a join, page by page."""
    values: list[bytes] = []
    while page := backend.arrived(over.flow, over.join, start=len(values)):
        values += page
    return values


def at_once(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Make *calls* at the same moment, each in a thread."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], object]) -> object:
        start.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(begin, calls))


class FlowSuite(BackendSuite):
    """Fixtures, and short ways to say common things."""

    @pytest.fixture
    def other(self, make_backend: Callable[[], ResultBackend]) -> Iterator[ResultBackend]:
        backend = make_backend()
        yield backend
        backend.close()

    @pytest.fixture
    def flow(self) -> str:
        return str(uuid4())

    def begin(self, backend: Flows, flow: str, size: int, *, join: int = 0, expires: float | None = LIVES) -> None:
        """Open a join."""
        backend.begin_flow(flow, {}, {join: (size, b"what follows")}, expires=expires)

    def arrive(self, backend: Flows, *parts: Arrival, expires: float | None = LIVES) -> list[Over | None]:
        """Bring parts to joins that there are."""
        found = backend.arrive(parts, expires=expires)
        assert Gone() not in found
        return [each for each in found if not isinstance(each, Gone)]

    def overs(self, backend: Flows, flow: str, *, older: float = 0.0) -> list[Over]:
        """Return those of one flow, as a server may be shared."""
        return [over for over in backend.overs(older=older, limit=1000) if over.flow == flow]

    def finish(self, backend: Flows, flow: str) -> None:
        """Leave nothing that other tests would find."""
        backend.forget_flows([flow])
