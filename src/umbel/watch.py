# ruff: noqa: D102 - the interface has the docstring
"""Waiting for many results at once: what a driver gives to the one thread of a process that waits for all of them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

__all__ = ["CHUNK", "Inbox", "Polling", "Reads", "Watch", "in_chunks"]

CHUNK = 500  # ids in one read or one subscription
FIRST_LOOK = 0.01  # seconds between two looks at first
SHARE = 4  # a look at many ids takes at most one part in so many of the time

T = TypeVar("T")


class Watch(ABC):
    """A subscription to the documents of many ids. It belongs to one thread; `wake` alone may be called by others."""

    @abstractmethod
    def listen(self, ids: Sequence[str]) -> None:
        """From now on tell of these ids: of the documents that are there, and of all that are written.

        Raises:
            BackendUnavailable: the store is away; close this watch and make another.
        """

    @abstractmethod
    def drop(self, ids: Sequence[str]) -> None:
        """Tell of these ids no more."""

    @abstractmethod
    def wait(self, timeout: float) -> Mapping[str, bytes]:
        """Return the documents that came, as soon as there are any; empty after *timeout*, or if somebody woke it.

        Of several documents of one id the last is enough, and one may be told twice.

        Raises:
            BackendUnavailable: the store is away; close this watch and make another.
        """

    @abstractmethod
    def wake(self) -> None:
        """End a wait, or the next one."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Safe twice, and in a fork, where it leaves the parent's alone and takes no lock."""


class Reads(Protocol):
    """What of a backend a look needs."""

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the documents of *ids*."""


class Polling(Watch):
    """Looks again and again: for a store that tells nobody. A driver with a bell overrides `pause`."""

    last_look = 0.25  # seconds between two looks after a while

    def __init__(self, backend: Reads) -> None:
        self._backend = backend
        self.seen: dict[str, bytes | None] = {}
        self.woken = threading.Event()
        self._pause = FIRST_LOOK

    def listen(self, ids: Sequence[str]) -> None:
        self.seen.update(dict.fromkeys(ids))
        self._pause = FIRST_LOOK

    def drop(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            self.seen.pop(task_id, None)

    def look(self) -> dict[str, bytes]:
        """Return the documents that differ from what was seen."""
        news: dict[str, bytes] = {}
        for ids in in_chunks(list(self.seen)):
            news |= self.compared(dict(zip(ids, self._backend.get(ids), strict=True)))
        return news

    def compared(self, found: Mapping[str, bytes | None]) -> dict[str, bytes]:
        """Return those of the documents found that differ from what was seen, and note them as seen."""
        news = {task_id: document for task_id, document in found.items() if document is not None and document != self.seen[task_id]}
        self.seen.update(news)
        return news

    def wait(self, timeout: float) -> Mapping[str, bytes]:
        deadline = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            news = self.look()
            now = time.monotonic()
            if news or now >= deadline:
                self._pause = FIRST_LOOK if news else self._pause
                return news
            self.pause(min(deadline - now, SHARE * (now - began)), deadline - now)
            if self.woken.is_set():
                self.woken.clear()
                return {}

    def pause(self, least: float, most: float) -> None:
        """Wait until it is worth to look again, or somebody woke it; *least* seconds, so that looks do not take all of the time."""
        self.woken.wait(min(most, max(self._pause, least)))
        self._pause = min(self.last_look, self._pause * 1.5)

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        self.seen.clear()


class Inbox(Watch):
    """For a store in this process, which puts documents in here as they are written."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ids: set[str] = set()
        self._news: dict[str, bytes] = {}
        self._woken = False
        self.was_woken = False  # did somebody end the last wait?

    def put(self, id: str, document: bytes) -> None:
        """Take a document that was written; any thread may call it."""
        with self._changed:
            if id in self._ids:
                self._news[id] = document
                self._changed.notify_all()

    def listen(self, ids: Sequence[str]) -> None:
        with self._changed:
            self._ids.update(ids)

    def drop(self, ids: Sequence[str]) -> None:
        with self._changed:
            self._ids.difference_update(ids)
            for task_id in ids:
                self._news.pop(task_id, None)

    def wait(self, timeout: float) -> Mapping[str, bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._woken, timeout)
            news, self._news = self._news, {}
            self.was_woken, self._woken = self._woken, False
            return news

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        self._ids, self._news = set(), {}


def in_chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Cut *items* into parts of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
