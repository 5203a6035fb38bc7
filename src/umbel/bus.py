"""What a bus promises: those who listen hear what is said now; nothing is kept. `umbel.testing.conformance` tests it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Bus", "Heard", "Subscription", "matches"]


class Heard(NamedTuple):
    """One thing that was said."""

    topic: str
    body: bytes


class Subscription(ABC):
    """One listener. It hears what is published after it was made, in the order of each publisher. For one thread."""

    @abstractmethod
    def receive(self, timeout: float) -> Heard | None:
        """Return the next thing that was said; None after *timeout* seconds."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Safe twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Bus(ABC):
    """Topics. All methods raise `BrokerUnavailable` if the engine does not answer in time."""

    @abstractmethod
    def publish(self, topic: str, body: bytes) -> None:
        """Say *body* to all who listen to *topic* now. Without a listener it is gone."""

    @abstractmethod
    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to *topics*; one that ends in `*` stands for all that begin so."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections. Safe twice and after a fork."""


def matches(topic: str, wanted: str) -> bool:
    """Answer whether *topic* is *wanted*, or begins as *wanted* does before its `*`."""
    return topic.startswith(wanted[:-1]) if wanted.endswith("*") else topic == wanted
