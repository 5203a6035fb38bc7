"""The bus in memory."""

from __future__ import annotations

import queue
from collections.abc import Sequence

from umbel.bus import Bus, Heard, Subscription, matches
from umbel.drivers.memory.store import Store, store_of

__all__ = ["MemoryBus"]


class MemoryBus(Bus):
    """Topics of this process."""

    def __init__(self, url: str = "memory://") -> None:
        self._state = store_of(url)

    def publish(self, topic: str, body: bytes) -> None:
        with self._state.changed:
            for topics, said in self._state.listeners:
                if any(matches(topic, wanted) for wanted in topics):
                    said.put(Heard(topic, body))

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return MemorySubscription(self._state, topics)

    def close(self) -> None:
        pass


class MemorySubscription(Subscription):
    """A queue of its own."""

    def __init__(self, state: Store, topics: Sequence[str]) -> None:
        self._state = state
        self._said: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._entry = (tuple(topics), self._said)
        with state.changed:
            state.listeners.append(self._entry)

    def receive(self, timeout: float) -> Heard | None:
        try:
            return self._said.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None

    def close(self) -> None:
        with self._state.changed:
            if self._entry in self._state.listeners:
                self._state.listeners.remove(self._entry)
