"""What many coroutines send or wait for, done by one thread in few steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from umbel import publish, states
from umbel.exceptions import BackendUnavailable, SerializationError

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Sender", "Watcher"]

Sending = tuple[publish.Draft, "asyncio.Future[None]"]

MOST = 500  # messages in one step of the broker
FIRST_LOOK, LAST_LOOK = 0.01, 0.25  # seconds between two looks for results: at first, and after a while
AWAY = 30.0  # seconds without an answer of the backend after which those who wait are told
IDLE = 10.0  # seconds without work after which the thread ends; the next work starts another


class Worker:
    """A thread that exists while there is something to do."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name, self._work = name, work
        self._thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def ensure(self) -> None:
        """Start the thread unless it runs; the caller holds the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def ended(self) -> None:
        """Note that the thread is about to return; it holds the lock."""
        self._thread = None


class Sender:
    """Group commit: while one batch is on its way, the next one gathers."""

    def __init__(self, app: Umbel) -> None:
        self._app = app
        self.pid = os.getpid()
        self._gathered: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Sending]] = WeakKeyDictionary()  # in this turn of each loop
        self._waiting: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, list[Sending]]] = queue.SimpleQueue()
        self._worker = Worker("umbel-sender", self._run)

    async def send(self, draft: publish.Draft) -> None:
        """Return when *draft* is on the broker.

        Raises:
            BrokerUnavailable: the broker did not take it in time.
        """
        if self._app.breaker.outage is not None:  # known before it would wait behind the call that tries again
            self._app.breaker.refuse(self._app.broker)
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[None] = loop.create_future()
        if (gathered := self._gathered.get(loop)) is None:
            gathered = self._gathered[loop] = []
            loop.call_soon(self._hand_over, loop)
        gathered.append((draft, sent))
        if len(gathered) == MOST:  # what is sent in one step of the broker is told together, too
            self._hand_over(loop)
        await sent

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread what came together in one turn: each time it wakes, the loop may have to wait for it."""
        if (gathered := self._gathered.pop(loop, None)) is not None:
            with self._worker.lock:
                self._waiting.put((loop, gathered))
                self._worker.ensure()

    def _run(self) -> None:
        while True:
            try:
                batch = [self._waiting.get(timeout=IDLE)]
            except queue.Empty:
                with self._worker.lock:
                    if self._waiting.empty():
                        self._worker.ended()
                        return
                continue
            while sum(len(sendings) for _, sendings in batch) < MOST and not self._waiting.empty():
                batch.append(self._waiting.get())
            self._publish(batch)

    def _publish(self, batch: list[tuple[asyncio.AbstractEventLoop, list[Sending]]]) -> None:
        # A coroutine that was cancelled before its batch left sends nothing.
        drafts = [draft for _, sendings in batch for draft, sent in sendings if not sent.cancelled()]
        failed: Exception | None = None
        try:
            if drafts:
                publish.publish(self._app, drafts)
        except Exception as exc:  # noqa: BLE001 - told to every sender
            failed = exc
        for loop, sendings in batch:
            with contextlib.suppress(RuntimeError):  # it was closed: nobody waits there any more
                loop.call_soon_threadsafe(tell, sendings, failed)


def tell(sendings: list[Sending], failed: Exception | None) -> None:
    """Say on their loop to all who sent in one turn what became of it."""
    for _, sent in sendings:
        if sent.done():  # cancelled meanwhile
            continue
        if failed is None:
            sent.set_result(None)
        else:
            sent.set_exception(failed)


class Watcher:
    """Looks for all results that coroutines wait for, in one read of the backend."""

    def __init__(self, app: Umbel) -> None:
        self._app = app
        self.pid = os.getpid()
        self._awaited: dict[str, list[Future[bytes]]] = {}
        self._news = threading.Event()
        self._worker = Worker("umbel-watcher", self._run)

    async def ended(self, id: str, timeout: float | None) -> bytes:  # noqa: ASYNC109 - Celery's word
        """Return the final document of a task.

        Raises:
            TimeoutError: Python's own; it did not end in time.
            BackendUnavailable: the backend stayed away.
        """
        future: Future[bytes] = Future()
        with self._worker.lock:
            self._awaited.setdefault(id, []).append(future)
            self._news.set()
            self._worker.ensure()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        finally:
            with self._worker.lock:
                if future in (waiting := self._awaited.get(id, [])):
                    waiting.remove(future)
                    if not waiting:
                        del self._awaited[id]

    def _run(self) -> None:
        pause, answered = FIRST_LOOK, time.monotonic()
        while True:
            with self._worker.lock:
                ids = list(self._awaited)
                if not ids:
                    self._worker.ended()
                    return
                if self._news.is_set():
                    self._news.clear()
                    pause = FIRST_LOOK
            try:
                found = self._look(ids)
                answered = time.monotonic()
            except BackendUnavailable as exc:
                found = False
                if time.monotonic() - answered > AWAY:
                    self._fail(ids, exc)
            except Exception as exc:  # noqa: BLE001 - told to all who wait
                found = True
                self._fail(ids, exc)
            pause = FIRST_LOOK if found else min(LAST_LOOK, pause * 1.5)
            self._news.wait(pause)

    def _look(self, ids: list[str]) -> bool:
        found = False
        for task_id, data in zip(ids, self._app.backend.get(ids), strict=True):
            if data is not None and self._ended(data):
                found = True
                for future in self._take(task_id):
                    if future.set_running_or_notify_cancel():
                        future.set_result(data)
        return found

    def _ended(self, data: bytes) -> bool:
        """Tell whether a document is final. One that cannot be read is: who waits for it is told when reading it, nobody else."""
        try:
            return self._app.read_meta(data)["status"] in states.READY_STATES
        except SerializationError:
            return True

    def _fail(self, ids: list[str], exc: BaseException) -> None:
        for task_id in ids:
            for future in self._take(task_id):
                if future.set_running_or_notify_cancel():
                    future.set_exception(exc)

    def _take(self, id: str) -> list[Future[bytes]]:
        with self._worker.lock:
            return self._awaited.pop(id, [])
