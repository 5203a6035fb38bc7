"""What a result backend promises. `umbel.testing.conformance` holds each sentence of it as a test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

__all__ = ["Record", "ResultBackend"]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One state of one task, to be stored."""

    id: str
    state: str
    meta: bytes  # the result document, encoded: what a reader of the backend gets (Celery's JSON by default)
    fence: int = 0  # of the delivery that wrote it; 0: unknown (written outside a worker)
    expires: float | None = None  # seconds to live from now; None: for ever


class ResultBackend(ABC):
    """A place for states and results, keyed by task id."""

    @abstractmethod
    def open(self) -> None:
        """Check that the engine answers. Optional before other calls."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice and after a fork."""

    @abstractmethod
    def store(self, records: Sequence[Record]) -> list[bool]:
        """Write each record and tell those who wait for its id. False: refused.

        Refused are: any write over SUCCESS; a write with a fence (not 0) smaller than the one stored; and a state that
        is not final, with the same fence, over one that is (FAILURE, REVOKED).
        """

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the documents of *ids*, in order; None where there is none or it has expired."""

    @abstractmethod
    def wait(self, id: str, seen: bytes | None, timeout: float) -> bytes | None:
        """Return the document of *id* as soon as it differs from *seen*, or what there is after *timeout* seconds."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> None:
        """Delete the documents of *ids*."""

    @abstractmethod
    def prune(self) -> int:
        """Delete what has expired, where the engine does not by itself; return how many."""
