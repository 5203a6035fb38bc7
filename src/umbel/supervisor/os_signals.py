"""Signals as things that a loop takes up in its own time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterable
from types import FrameType
from typing import Any, Self

__all__ = ["Signals", "name_of", "told_by_its_terminal"]

ECHO = 0.2  # seconds: a TERM or INT that follows another sooner is an echo, as for a worker
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Signals:
    """Takes TERM, INT, QUIT, HUP (unless `nohup` asked to ignore it) and the ends of children, while the block runs."""

    def __init__(self) -> None:
        self._heard: deque[int] = deque()
        self._before: dict[int, Any] = {}
        self._last = float("-inf")
        self._waker, self._wakee = socket.socketpair()
        for end in (self._waker, self._wakee):
            end.setblocking(False)

    def __enter__(self) -> Self:
        for number in NUMBERS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, before in self._before.items():
            signal.signal(number, before)
        self._waker.close()
        self._wakee.close()

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._heard.append(number)

    def wait(self, seconds: float | None, files: Iterable[socket.socket]) -> None:
        """Wait for a signal, for something to read in *files*, or for *seconds*."""
        poll = select.poll()
        poll.register(self._wakee, select.POLLIN)
        for file in files:
            poll.register(file, select.POLLIN)
        poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            self._wakee.recv(4096)

    def take(self) -> list[int]:
        """Return what was heard, without echoes."""
        taken = []
        while self._heard:
            number, now = self._heard.popleft(), time.monotonic()
            if number in {signal.SIGQUIT, signal.SIGHUP}:
                taken.append(number)
            elif now - self._last >= ECHO:
                taken.append(number)
                self._last = now
        return taken


def name_of(number: int) -> str:
    """Return the name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def told_by_its_terminal(*, had_one: bool) -> bool:
    """Answer whether a SIGHUP means that the terminal of this process was closed."""
    return had_one and not has_terminal()


def has_terminal() -> bool:
    """Answer whether this process has a terminal that controls it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
