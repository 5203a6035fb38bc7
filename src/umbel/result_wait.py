"""Waiting for results: one subscription for each backend in a process, however many threads and coroutines wait for how many ids.

A reader joins the hub of its backend with the ids that it waits for, and leaves. The hub's thread is there while somebody waits, and a
little longer; it gives each document to those who wait for its id, as bytes: who waits reads them, and is told of what cannot be read.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from umbel import exceptions
from umbel.exceptions import BackendUnavailable
from umbel.watch import in_chunks

if TYPE_CHECKING:
    from umbel.backend import ResultBackend
    from umbel.watch import Watch

__all__ = ["Hub", "Waiting", "aended", "close_hub", "ended", "hub_of", "read"]

SLICE = 5.0  # seconds: the longest single wait for the backend
AWAY = 30.0  # seconds without an answer of the backend after which those who wait are told
PAUSE = 0.5  # seconds between attempts while it is away
IDLE = 10.0  # seconds that the subscription outlives the last who waited: the next result is often waited for soon

Take = Callable[[str, bytes], bool]  # is given each new document of an id, and answers whether it is the last


class Waiting:
    """One reader, and what came for it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake  # called in the thread of the hub
        self.ids: set[str] = set()
        self._news: deque[tuple[str, bytes]] = deque()
        self.failure: Exception | None = None

    def put(self, id: str, document: bytes) -> None:
        """Take a document."""
        self._news.append((id, document))

    def taken(self) -> Iterator[tuple[str, bytes]]:
        """Yield what came.

        Raises:
            BackendUnavailable: the backend stayed away.
        """
        while self._news:
            yield self._news.popleft()
        if self.failure is not None:
            raise self.failure


class Hub:
    """What all who wait for results of one backend share."""

    def __init__(self, backend: ResultBackend) -> None:
        self._backend = backend
        self._changed = threading.Condition()
        self._readers: dict[str, list[Waiting]] = {}
        self._added: dict[str, None] = {}  # ids that the watch does not know yet
        self._dropped: dict[str, None] = {}  # and those that it knows in vain
        self._thread: threading.Thread | None = None
        self._watch: Watch | None = None
        self._closed = False
        self.gone: deque[Waiting] = deque()  # readers whose result nobody keeps any more

    def join(self, waiting: Waiting, ids: Iterable[str]) -> None:
        """Give *waiting* each document of *ids* from now on, and those that are there."""
        with self._changed:
            for task_id in ids:
                if task_id not in waiting.ids:
                    waiting.ids.add(task_id)
                    self._readers.setdefault(task_id, []).append(waiting)
                    self._added[task_id] = None  # also if others wait for it: it is read again for who comes later
                    self._dropped.pop(task_id, None)
            self._closed = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="umbel-results", daemon=True)
                self._thread.start()
            self._stir()

    def leave(self, waiting: Waiting, ids: Iterable[str] | None = None) -> None:
        """Give *waiting* nothing more of *ids*; None: of none."""
        with self._changed:
            for task_id in list(waiting.ids if ids is None else ids):
                if task_id in waiting.ids:
                    waiting.ids.remove(task_id)
                    readers = self._readers[task_id]
                    readers.remove(waiting)
                    if not readers:
                        del self._readers[task_id]
                        self._added.pop(task_id, None)
                        self._dropped[task_id] = None
            if not self._readers:
                self._stir()

    def close(self) -> None:
        """End the subscription; who waits goes on with another."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._stir()
        if thread is not None and thread is not threading.current_thread():
            thread.join(PAUSE)

    def abandon(self) -> None:
        """Let go of the parent's subscription, in its fork."""
        if self._watch is not None:
            with contextlib.suppress(Exception):
                self._watch.close()

    def _stir(self) -> None:
        self._changed.notify_all()
        if self._watch is not None:
            self._watch.wake()

    # --- in its thread

    def _run(self) -> None:
        answered, failed = time.monotonic(), 0
        while self._has_work():
            try:
                news = self._step()
            except BackendUnavailable as exc:
                self._unwatch()
                failed += 1
                if time.monotonic() - answered > AWAY:
                    self._fail(exc)
                elif failed > 1:  # the first may only say that an idle connection was closed
                    self._rest()
            except Exception as exc:  # noqa: BLE001 - told to all who wait
                self._unwatch()
                self._fail(exc)
            else:
                answered, failed = time.monotonic(), 0
                self._tell(news)

    def _has_work(self) -> bool:
        """Wait for somebody who waits; False: nobody came, and the thread ends."""
        while self.gone:
            self.leave(self.gone.popleft())
        with self._changed:
            if self._watch is None:
                self._dropped.clear()
            if not self._readers and not self._dropped:
                self._changed.wait_for(lambda: self._readers or self._closed, IDLE)
            if self._closed or not (self._readers or self._dropped):
                self._closed = False
                self._unwatch()
                if self._readers:
                    return True
                self._dropped.clear()
                self._thread = None
                _hubs.known.pop(self._backend, None)  # it holds its backend: a backend that nobody uses any more can go
                return False
            return True

    def _step(self) -> Mapping[str, bytes]:
        watch = self._watch
        if watch is None:
            watch = self._backend.watch()
            with self._changed:
                self._watch, self._dropped, self._added = watch, {}, dict.fromkeys(self._readers)
        with self._changed:
            added, self._added = list(self._added), {}
            dropped, self._dropped = list(self._dropped), {}
            idle = not self._readers
        for ids in in_chunks(dropped):
            watch.drop(ids)
        for ids in in_chunks(added):
            watch.listen(ids)
        return {} if idle else watch.wait(SLICE)

    def _unwatch(self) -> None:
        with self._changed:  # nobody wakes it from here on
            watch, self._watch = self._watch, None
        if watch is not None:
            with contextlib.suppress(BackendUnavailable):
                watch.close()

    def _rest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, PAUSE)

    def _tell(self, news: Mapping[str, bytes]) -> None:
        told: dict[Waiting, None] = {}
        with self._changed:
            for task_id, document in news.items():
                for waiting in self._readers.get(task_id, ()):
                    waiting.put(task_id, document)
                    told[waiting] = None
        for waiting in told:
            waiting.wake()

    def _fail(self, exc: Exception) -> None:
        with self._changed:
            everybody = dict.fromkeys(waiting for readers in self._readers.values() for waiting in readers)
            for waiting in everybody:
                waiting.ids.clear()
                waiting.failure = exc
            self._dropped.update(dict.fromkeys(self._readers))
            self._readers, self._added = {}, {}
        for waiting in everybody:
            waiting.wake()


class Hubs:
    """Those of this process."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin_again)

    def begin(self) -> None:
        """Know none."""
        self.lock = threading.Lock()
        self.known: WeakKeyDictionary[ResultBackend, Hub] = WeakKeyDictionary()

    def begin_again(self) -> None:
        """Let go of the parent's: their threads are not in this process."""
        for hub in list(self.known.values()):
            hub.abandon()
        self.begin()


_hubs = Hubs()


def hub_of(backend: ResultBackend) -> Hub:
    """Return the hub of *backend* in this process."""
    hub = _hubs.known.get(backend)
    if hub is None:
        with _hubs.lock:
            hub = _hubs.known.get(backend)
            if hub is None:
                hub = _hubs.known[backend] = Hub(backend)
    return hub


def close_hub(backend: ResultBackend) -> None:
    """End the subscription to *backend*, before it is closed."""
    hub = _hubs.known.get(backend)
    if hub is not None:
        hub.close()


class Left(dict[str, bytes | None]):
    """The ids whose last document did not come yet, each with the one that came last."""

    def __init__(self, ids: Iterable[str], take: Take) -> None:
        super().__init__(dict.fromkeys(ids))
        self._take = take

    def end_with(self, id: str, document: bytes) -> bool:
        """Take a document unless it was told before; answer whether it is the last."""
        if self.get(id, document) == document:
            return False
        self[id] = document
        if self._take(id, document):
            del self[id]
            return True
        return False


def read(backend: ResultBackend, ids: Sequence[str], deadline: float | None) -> list[bytes | None]:
    """Return the documents of *ids*; while the backend is away, ask again until *deadline*, or for 30 s.

    Raises:
        BackendUnavailable: it stayed away.
    """
    given_up = time.monotonic() + AWAY
    documents: list[bytes | None] = []
    while True:
        try:
            while len(documents) < len(ids):
                some = next(in_chunks(ids[len(documents) :]))
                documents += backend.get(some)
        except BackendUnavailable:
            if time.monotonic() > (given_up if deadline is None else min(deadline, given_up)):
                raise
            time.sleep(PAUSE)
        else:
            return documents


def ended(
    backend: ResultBackend, ids: Sequence[str], take: Take, timeout: float | None, quiet: Callable[[], object] | None = None
) -> Iterator[str]:
    """Yield each of *ids* when its last document came.

    Args:
        backend: where they are.
        ids: each once.
        take: is given each new document, and says which is the last.
        timeout: seconds for all of them.
        quiet: called after each wait.

    Raises:
        TimeoutError: ours; not all ended in time.
        BackendUnavailable: the backend stayed away.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    left = Left(ids, take)
    for task_id, document in zip(ids, read(backend, ids, deadline), strict=True):
        if document is not None and left.end_with(task_id, document):
            yield task_id
    if not left:
        return
    news = threading.Event()
    waiting, hub = Waiting(news.set), hub_of(backend)
    hub.join(waiting, left)
    try:
        while left:
            span = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if span <= 0:
                raise exceptions.TimeoutError("The operation timed out.")
            news.wait(span)
            news.clear()
            for task_id, document in waiting.taken():
                if left.end_with(task_id, document):
                    yield task_id
            if left and quiet is not None:
                quiet()
    finally:
        hub.leave(waiting)


async def aended(backend: ResultBackend, ids: Sequence[str], take: Take, timeout: float | None) -> AsyncIterator[str]:  # noqa: ASYNC109
    """Do as `ended` does without blocking the event loop."""
    import asyncio

    loop, news = asyncio.get_running_loop(), asyncio.Event()
    deadline = None if timeout is None else loop.time() + timeout

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            loop.call_soon_threadsafe(news.set)

    left = Left(ids, take)
    if timeout is not None and timeout <= 0:  # one look, which the hub may not have taken yet
        for task_id, document in zip(ids, await asyncio.to_thread(read, backend, ids, 0.0), strict=True):
            if document is not None and left.end_with(task_id, document):
                yield task_id
    waiting, hub = Waiting(wake), hub_of(backend)
    hub.join(waiting, left)
    try:
        while left:
            try:
                await asyncio.wait_for(news.wait(), None if deadline is None else max(0.0, deadline - loop.time()))
            except TimeoutError:
                raise exceptions.TimeoutError("The operation timed out.") from None
            news.clear()
            for task_id, document in waiting.taken():
                if left.end_with(task_id, document):
                    yield task_id
    finally:
        hub.leave(waiting)
