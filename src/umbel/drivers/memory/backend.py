# ruff: noqa: ARG002 - not every driver needs every argument
"""The result backend in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Record, ResultBackend
from umbel.clock import Clock, SystemClock
from umbel.drivers.memory.flows import MemoryFlows
from umbel.drivers.memory.store import store_of
from umbel.watch import Inbox, Watch

__all__ = ["MemoryBackend"]


class MemoryBackend(MemoryFlows, ResultBackend):
    """Results that live and die with this process."""

    def __init__(
        self, url: str = "memory://", *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None
    ) -> None:
        self.state = store_of(url)
        self._changed = self.state.changed
        self._clock = clock or SystemClock()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def store(self, records: Sequence[Record]) -> list[bool]:
        with self._changed:
            now = self._clock.now()
            written = [self.state.write(record, now) for record in records]
            self._changed.notify_all()
            return written

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        with self._changed:
            return [self._meta(task_id) for task_id in ids]

    def _meta(self, task_id: str) -> bytes | None:
        found = self.state.result(task_id, self._clock.now())
        return found.meta if found else None

    def watch(self) -> Watch:
        return MemoryWatch(self)

    def forget(self, ids: Sequence[str]) -> None:
        with self._changed:
            for task_id in ids:
                self.state.results.pop(task_id, None)
            self._changed.notify_all()

    def prune(self) -> int:
        with self._changed:
            before = len(self.state.results)
            now = self._clock.now()
            for task_id in list(self.state.results):
                self.state.result(task_id, now)
            return before - len(self.state.results) + self.prune_flows(now)


class MemoryWatch(Inbox):
    """The store puts in what is written."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__()
        self._backend = backend
        backend.state.watches.add(self)

    def listen(self, ids: Sequence[str]) -> None:
        super().listen(ids)
        for task_id, document in zip(ids, self._backend.get(ids), strict=True):
            if document is not None:
                self.put(task_id, document)

    def close(self) -> None:
        super().close()
        self._backend.state.watches.discard(self)
