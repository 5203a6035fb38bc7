"""What is kept of a workflow: its nodes, and its joins as they fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from umbel.backend import Arrival
from umbel.drivers.joins import JoinState

__all__ = ["Flow", "Join", "Lasting"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lasting(Generic[T]):
    """A value, and when it expires."""

    value: T
    ends: float | None


@dataclass(slots=True)
class Join(JoinState):
    """A join with its values."""

    data: bytes = b""
    values: dict[int, bytes] = field(default_factory=dict)  # by position; empty again when it was sent
    grown: dict[str, int] = field(default_factory=dict)  # by key: the first position

    def arrive(self, part: Arrival) -> bool:
        """Note *part*; answer whether it ends the join."""
        news = self.note(part, is_there=lambda: part.position in self.values)
        if news and part.value is not None:
            self.values[part.position] = part.value
        return news and self.decider is not None

    def grow(self, by: int, key: str) -> int | None:
        """Wait for *by* parts more, once for each *key*; return the first of their positions."""
        if self.decider is not None:
            return None
        if key not in self.grown:
            self.grown[key] = self.size
            self.size += by
        return self.grown[key]

    def send(self) -> None:
        """Note that what follows was published; the values have no reader any more."""
        self.sent = True
        self.values.clear()


@dataclass(slots=True)
class Flow:
    """The record of one workflow."""

    ends: float | None
    nodes: dict[int, bytes] = field(default_factory=dict)
    joins: dict[int, Join] = field(default_factory=dict)

    def renew(self, ends: float | None) -> None:
        """Let it live until *ends*, unless it lives longer already."""
        self.ends = None if ends is None or self.ends is None else max(ends, self.ends)
