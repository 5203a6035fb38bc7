"""What many coroutines send, done by one thread in few steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from umbel import publish

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Sender"]

Sending = tuple[publish.Draft, "asyncio.Future[None]"]

MOST = 500  # messages in one step of the broker
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
