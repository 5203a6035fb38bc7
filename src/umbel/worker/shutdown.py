"""The ladder on which a worker stops.

1. The first signal: nothing more is claimed, what has not started is given back, what runs goes on.
2. After `worker_soft_shutdown_timeout`, if it is set: what still runs is ended and given back; no attempt is lost.
3. The second signal, or SIGQUIT without that time: the same, now. Nobody waits for a server longer than `LAST`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from umbel import signals
from umbel.context import Context
from umbel.supervisor.link import Link

__all__ = ["Shutdown"]

logger = logging.getLogger("celery.worker")

ECHO = 0.2  # seconds: a group that is signalled, and a parent that then signals its children, mean one stop and not two
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
LAST = 0.8  # seconds that a worker has, after it was told to go now


class Shutdown:
    """What was asked for, and the exit code that follows from it. Signals arrive in the main thread, the loop may be in another."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.exitcode = 0
        self.patience = 0.0  # seconds that what runs has after the first signal; 0: as long as it takes, but none after SIGQUIT
        self._heard: float | None = None  # when the last signal came
        self._told = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._flag = mmap.mmap(-1, 1)  # shared with the children, as it is made before the fork
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal handler may put into it at any moment
        self.link: Link | None = None  # to a supervisor; once it is cut, nobody looks after us
        self.on_cold: Callable[[], object] | None = None  # ends what runs; called in the main thread

    @contextlib.contextmanager
    def seen_by_tasks(self) -> Iterator[None]:
        """Let `request.stopping` say in tasks, here and in what is forked in the block, whether we were told to stop."""
        before, Context.stop_flag = Context.stop_flag, self._flag
        try:
            yield
        finally:
            Context.stop_flag = before

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell *loop* from now on."""
        self._loop = loop
        if self.link is not None:
            loop.add_reader(self.link.socket, self._listen)
        threading.Thread(target=self._exit_when_over, name="shutdown", daemon=True).start()
        if self._told.is_set():  # told before there was a loop to tell
            self._stop.set()

    def _listen(self) -> None:
        assert self._loop is not None, "it is the loop that reads"
        if self.link is not None and self.link.is_cut():
            self._loop.remove_reader(self.link.socket)
            logger.error("The supervisor is gone, so this worker stops, too, when its tasks have ended.")
            self.warm()

    def warm(self) -> None:
        """Ask for a warm stop, from any thread."""
        self._flag[0] = 1
        self._told.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def cold(self) -> None:
        """End now, from the main thread: in order if the servers answer in time, and in any case after `LAST` seconds."""
        self._over.put(None)
        if self.on_cold is not None:
            self.on_cold()
        self.warm()

    def _exit_when_over(self) -> None:
        self._over.get()
        time.sleep(LAST)
        os._exit(self.exitcode)

    @property
    def asked(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stop.is_set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until the worker is told to stop, or for *seconds*."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        before, now = self._heard, time.monotonic()
        if before is not None and number != signal.SIGQUIT and (number == signal.SIGHUP or now - before < ECHO or self.link is not None):
            # HUP never means more than a warm stop: systemd with SendSIGHUP says it beside TERM. Of a supervisor the second word is
            # QUIT: a TERM may come from both, it and a systemd that tells the whole group, and in between any time may pass.
            return
        self._heard = now
        name = signal.Signals(number).name
        if number == signal.SIGTERM and os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
            number = signal.SIGQUIT
        if before is not None or (number == signal.SIGQUIT and not self.patience):
            signals.worker_shutting_down.send(sender=self._node, sig=name, how="Cold", exitcode=self.exitcode)
            say("worker: Cold shutdown (MainProcess)")
            self.cold()
            return
        if number == signal.SIGINT:
            self.exitcode = 1
            say("worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!")
        soft = number == signal.SIGQUIT
        signals.worker_shutting_down.send(sender=self._node, sig=name, how="Soft" if soft else "Warm", exitcode=self.exitcode)
        say(f"Initiating Soft Shutdown, terminating in {self.patience} seconds" if soft else "worker: Warm shutdown (MainProcess)")
        self.warm()

    @contextlib.contextmanager
    def handled_signals(self) -> Iterator[None]:
        """Handle TERM, INT, QUIT, and HUP unless `nohup` asked to ignore it, while the block runs, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def say(text: str) -> None:
    """Print to the terminal, past redirection; not if the signal came in the middle of another print."""
    if sys.__stdout__ is not None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print(f"\n{text}", file=sys.__stdout__, flush=True)
