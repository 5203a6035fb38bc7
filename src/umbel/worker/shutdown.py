"""How a worker is told to stop, by signals or from its own parts: warm, after what runs; cold, at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from umbel import signals

__all__ = ["Shutdown"]


class Shutdown:
    """What was asked for, and the exit code that follows from it. Signals arrive in the main thread, the loop may be in another."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.exitcode = 0
        self._asked = 0
        self._told = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.on_cold: Callable[[], None] | None = None  # ends what runs; called in the main thread

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell *loop* from now on."""
        self._loop = loop
        if self._told.is_set():  # told before there was a loop to tell
            self._stop.set()

    def warm(self) -> None:
        """Ask for a warm stop, from any thread."""
        self._told.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    @property
    def asked(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stop.is_set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until the worker is told to stop, or for *seconds*."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._asked += 1
        name = signal.Signals(number).name
        if number == signal.SIGQUIT or (self._asked > 1 and number == signal.SIGINT):
            signals.worker_shutting_down.send(sender=self._node, sig=name, how="Cold", exitcode=self.exitcode)
            say("worker: Cold shutdown (MainProcess)")
            if self.on_cold is not None:
                self.on_cold()
            self.warm()
            return
        if number == signal.SIGINT:
            self.exitcode = 1
            say("worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!")
        signals.worker_shutting_down.send(sender=self._node, sig=name, how="Warm", exitcode=self.exitcode)
        say("worker: Warm shutdown (MainProcess)")
        self.warm()

    @contextlib.contextmanager
    def handled_signals(self) -> Iterator[None]:
        """Handle TERM, INT and QUIT while the block runs, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def say(text: str) -> None:
    """Print to the terminal, past redirection."""
    if sys.__stdout__ is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"\n{text}", file=sys.__stdout__, flush=True)
