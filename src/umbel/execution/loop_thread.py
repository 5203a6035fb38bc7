"""Where coroutines run in a pool whose slots are threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

__all__ = ["LoopThread", "ended"]

LAST = 0.2  # seconds
logger = logging.getLogger("celery.worker")


async def ended(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return what *awaitable* returns, or what it raises: a task of asyncio that raises SystemExit ends its loop."""
    try:
        return await awaitable, None
    except BaseException as exc:  # noqa: BLE001 - handed on
        return None, exc


class LoopThread:
    """One long-lived event loop of this process, in a thread of its own, made when the first coroutine runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def wait_for(
        self, coroutine: Coroutine[Any, Any, Any], waiting: Callable[[Callable[[], object]], AbstractContextManager[None]] | None = None
    ) -> Any:
        """Run *coroutine* on the loop, with the context of this thread, and return what it returns.

        Meanwhile *waiting* is entered, with what cancels the coroutine from any thread.
        """
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=run, args=(self._loop,), name="tasks-loop", daemon=True)
                self._thread.start()
        loop, told, tasks = self._loop, Future[tuple[Any, BaseException | None]](), list[asyncio.Task[Any]]()

        def start() -> None:
            task = loop.create_task(ended(coroutine))
            task.add_done_callback(lambda _: told.set_result((None, asyncio.CancelledError()) if task.cancelled() else task.result()))
            tasks.append(task)

        def cancel() -> None:
            tasks[0].cancel()

        loop.call_soon_threadsafe(start)
        with contextlib.nullcontext() if waiting is None else waiting(partial(loop.call_soon_threadsafe, cancel)):
            value, exc = told.result()
        if exc is not None:
            raise exc
        return value

    def close(self) -> None:
        """Stop the loop, and wait a moment for its thread: something may hold it up."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LAST)


def run(loop: asyncio.AbstractEventLoop) -> None:
    """Run *loop* until it is stopped; what a task has left on it and raises SystemExit does not end it for the others."""
    while True:
        try:
            loop.run_forever()
        except BaseException:
            logger.exception("Something that a task has left on the loop raised this. The loop goes on.")
        else:
            if not asyncio.all_tasks(loop):  # else it would complain of each
                loop.close()
            return
