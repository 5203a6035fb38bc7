"""The Redis result backend: Celery's keys and channels, so that its readers and writers can share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.backend import Record, ResultBackend
from umbel.drivers.redis.celery_chords import CeleryChords
from umbel.drivers.redis.chunks import chunks
from umbel.drivers.redis.client import load_script
from umbel.drivers.redis.flows import RedisFlows, told_as_backend
from umbel.drivers.redis.opening import open_client
from umbel.drivers.redis.watching import RedisWatch
from umbel.watch import Watch

__all__ = ["RedisBackend", "record_args"]


class RedisBackend(CeleryChords, RedisFlows, ResultBackend):
    """Results under `celery-task-meta-<id>`, announced on the channel of the same name."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        options = options or {}
        self.client = open_client(url, options=options, timeout=timeout)
        prefix = str(options.get("global_keyprefix", ""))
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        self.key_prefix, self.prefix = prefix, f"{prefix}celery-task-meta-"
        self.ordered_chords = bool(options.get("result_chord_ordered", True))
        self._store = load_script("store")

    def open(self) -> None:
        with told_as_backend():
            self.client.call("PING")

    def close(self) -> None:
        self.client.close()

    def store(self, records: Sequence[Record]) -> list[bool]:
        flags: list[bool] = []
        with told_as_backend():
            for chunk in chunks(records, lambda record: len(record.meta)):
                args = [arg for record in chunk for arg in record_args(self, record)]
                flags += [flag == 1 for flag in self.client.run(self._store, *args)]
        return flags

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        if not ids:
            return []
        with told_as_backend():
            return self.client.get([self.prefix + each for each in ids])

    def watch(self) -> Watch:
        return RedisWatch(self)

    def forget(self, ids: Sequence[str]) -> None:
        if ids:
            with told_as_backend():
                self.client.delete([self.prefix + each for each in ids])

    def prune(self) -> int:
        return 0  # Redis lets keys expire by itself


def record_args(backend: RedisBackend, record: Record) -> tuple[Any, ...]:
    """Return what `store` in `scripts/_lib.lua` takes for one record."""
    key = backend.prefix + record.id
    ttl = b"" if record.expires is None else max(1, int(record.expires * 1000))
    return key, key, record.state, record.fence, ttl, record.meta
