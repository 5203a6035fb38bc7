"""Waiting for results on Redis: one connection that has subscribed to the channels of all that are waited for."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from umbel.drivers.redis.client import FAULTS
from umbel.drivers.redis.flows import told_as_backend
from umbel.exceptions import BackendUnavailable
from umbel.watch import CHUNK, Watch, in_chunks

if TYPE_CHECKING:
    from umbel.drivers.redis.backend import RedisBackend

__all__ = ["RedisWatch"]

QUIET = 5.0  # seconds without news after which the server is asked whether it is there, and some of the documents are read again


class RedisWatch(Watch):
    """The channel of a result has the name of its key, and each document is published there as it is written, by Celery, too."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend, self._prefix = backend, len(backend.prefix.encode())
        self._bell, self._ring = os.pipe()  # ends the wait for the connection
        os.set_blocking(self._ring, False)  # who rings must not wait for one who does not hear
        self._open = True
        self._connection: Any = None
        self._ids: dict[str, None] = {}
        self._news: dict[str, bytes] = {}
        self._heard = time.monotonic()
        self._asked = False

    def listen(self, ids: Sequence[str]) -> None:
        with told_as_backend(), self._told():
            for some in in_chunks(ids):
                self._say("SUBSCRIBE", some)
        # Subscribed before they are read: what is written from here on is announced.
        self._read(ids)
        self._ids.update(dict.fromkeys(ids))

    def drop(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            self._ids.pop(task_id, None)
            self._news.pop(task_id, None)
        if self._connection is not None:
            with told_as_backend(), self._told():
                for some in in_chunks(ids):
                    self._say("UNSUBSCRIBE", some)

    def _say(self, command: str, ids: Sequence[str]) -> None:
        """Send it and wait until all of it was confirmed; documents may come between."""
        if self._connection is None:
            self._connection = self._backend.client.connect(near=self._backend.prefix + ids[0])
            self._heard = time.monotonic()
        # No check of its health: that PING has another reply while it is subscribed.
        self._connection.send_command(command, *(self._backend.prefix + each for each in ids), check_health=False)
        left, wanted = len(ids), command.lower().encode()
        while left:
            left -= self._take() == wanted

    def _take(self) -> bytes:
        """Read one message, and keep the document in it; return what kind it is."""
        kind, channel, *rest = self._connection.read_response(disable_decoding=True)
        self._heard, self._asked = time.monotonic(), False
        if kind == b"message":
            self._news[channel[self._prefix :].decode()] = rest[0]
        return bytes(kind)

    def _read(self, ids: Sequence[str]) -> None:
        for some in in_chunks(ids):
            for task_id, document in zip(some, self._backend.get(some), strict=True):
                if document is not None:
                    self._news.setdefault(task_id, document)  # what was announced meanwhile is newer

    def wait(self, timeout: float) -> Mapping[str, bytes]:
        deadline = time.monotonic() + timeout
        with told_as_backend(), self._told():
            while self._connection is not None:
                while self._connection.can_read(0):
                    self._take()
                if self._news or (left := deadline - time.monotonic()) <= 0 or self._woken(left):
                    break
                self._look_around()
        news, self._news = self._news, {}
        return news

    def _woken(self, seconds: float) -> bool:
        """Wait until there is something to read; answer whether somebody rang."""
        waiting = select.poll()  # unlike `select` it knows descriptors above 1023, which a busy web server has
        waiting.register(self._bell, select.POLLIN)
        waiting.register(self._connection._sock, select.POLLIN)  # noqa: SLF001 - there is no other way to wait for two things
        if any(descriptor == self._bell for descriptor, _ in waiting.poll(min(seconds, QUIET) * 1000)):
            os.read(self._bell, 65536)
            return True
        return False

    def _look_around(self) -> None:
        """After a silence ask whether the server is there, and read again in turn what may have been announced to nobody."""
        if time.monotonic() < self._heard + QUIET:
            return
        if self._asked:
            raise BackendUnavailable(f"Redis at {self._backend.client.url} did not answer for {QUIET:g} s.")
        self._connection.send_command("PING", check_health=False)
        self._heard, self._asked = time.monotonic(), True
        some = list(islice(self._ids, CHUNK))
        for task_id in some:  # at the end of the row
            del self._ids[task_id]
            self._ids[task_id] = None
        self._read(some)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FAULTS as exc:
            raise BackendUnavailable(f"Redis at {self._backend.client.url} was lost while waiting for results: {exc}.") from exc

    def wake(self) -> None:
        if self._open:
            with suppress(OSError):
                os.write(self._ring, b"!")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*FAULTS):
                connection.disconnect()
        if self._open:
            self._open = False
            os.close(self._bell)
            os.close(self._ring)
