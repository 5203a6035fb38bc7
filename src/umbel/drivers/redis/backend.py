"""The Redis result backend: Celery's keys and channels, so that its readers and writers can share them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from umbel.backend import Record, ResultBackend
from umbel.drivers.redis.chunks import chunks
from umbel.drivers.redis.client import FAULTS, Client, load_script
from umbel.exceptions import BackendUnavailable, BrokerUnavailable

__all__ = ["RedisBackend", "record_args"]


class RedisBackend(ResultBackend):
    """Results under `celery-task-meta-<id>`, announced on the channel of the same name."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        options = options or {}
        self.client = Client(url, options=options, timeout=timeout)
        prefix = str(options.get("global_keyprefix", ""))
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        self.prefix = f"{prefix}celery-task-meta-"
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
            found: list[bytes | None] = self.client.call("MGET", *(self.prefix + each for each in ids))
        return found

    def wait(self, id: str, seen: bytes | None, timeout: float) -> bytes | None:
        key, deadline = f"{self.prefix}{id}", time.monotonic() + timeout
        with told_as_backend():
            try:
                return self._listen(key, seen, deadline)
            except FAULTS as exc:
                raise BackendUnavailable(f"Redis at {self.client.url} was lost while waiting for {id}: {exc}.") from exc

    def _listen(self, key: str, seen: bytes | None, deadline: float) -> bytes | None:
        with self.client.connection() as connection:
            connection.send_command("SUBSCRIBE", key)
            connection.read_response(disable_decoding=True)
            # Subscribed before it is read: what is written from here on is announced.
            document: bytes | None = self.client.call("GET", key)
            while document == seen and (left := deadline - time.monotonic()) > 0:
                if not connection.can_read(left):
                    break
                document = connection.read_response(disable_decoding=True)[2]
            connection.send_command("UNSUBSCRIBE", key, check_health=False)  # a PING has another reply while it is subscribed
            while connection.read_response(disable_decoding=True)[0] != b"unsubscribe":
                pass
        return document

    def forget(self, ids: Sequence[str]) -> None:
        if ids:
            with told_as_backend():
                self.client.call("DEL", *(self.prefix + each for each in ids))

    def prune(self) -> int:
        return 0  # Redis lets keys expire by itself


@contextmanager
def told_as_backend() -> Any:
    """Raise what the client says of the server as the backend's error."""
    try:
        yield
    except BrokerUnavailable as exc:
        raise BackendUnavailable(str(exc)) from exc


def record_args(backend: RedisBackend, record: Record) -> tuple[Any, ...]:
    """Return what `store` in `scripts/_lib.lua` takes for one record."""
    key = backend.prefix + record.id
    ttl = b"" if record.expires is None else max(1, int(record.expires * 1000))
    return key, key, record.state, record.fence, ttl, record.meta
