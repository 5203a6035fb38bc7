"""Where coroutines run in a pool whose slots are threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any

__all__ = ["LoopThread", "ended"]

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

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* on the loop, with the context of this thread, and return what it returns."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=run, args=(self._loop,), name="tasks-loop", daemon=True).start()
        value, exc = asyncio.run_coroutine_threadsafe(ended(coroutine), self._loop).result()
        if exc is not None:
            raise exc
        return value

    def close(self) -> None:
        """Stop the loop."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)


def run(loop: asyncio.AbstractEventLoop) -> None:
    """Run *loop* until it is stopped; what a task has left on it and raises SystemExit does not end it for the others."""
    while True:
        try:
            loop.run_forever()
        except BaseException:
            logger.exception("Something that a task has left on the loop raised this. The loop goes on.")
        else:
            return
