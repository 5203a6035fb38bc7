"""Copies of a child: what its tasks fork, with `multiprocessing` or `os.fork`.

A copy is a program like any other: signals end it, and it says nothing in the place of the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

__all__ = ["end_copy", "mind_copies"]


def mind_copies(handlers: Mapping[int, Callable[..., object]], ends: Iterable[socket.socket]) -> None:
    """See that copies of this process have neither its *handlers* of signals nor its *ends* of sockets, and do not run its loop.

    Invariant: a signal that reaches a copy before it has dropped the handlers waits until then. Handled by them, or forgotten by Python,
    as what is pending at a fork is, it would be lost: a pool of `multiprocessing` that ends its processes would wait for one for ever.
    """
    this, forks = os.getpid(), threading.local()

    def before() -> None:
        forks.it, forks.loop = os.getpid() == this, None
        if forks.it:
            forks.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
            with contextlib.suppress(RuntimeError):
                forks.loop = asyncio.get_running_loop()

    def in_parent() -> None:
        if forks.it:
            signal.pthread_sigmask(signal.SIG_SETMASK, forks.mask)

    def in_copy() -> None:
        if not forks.it:
            return  # it is a copy of a copy
        signal.set_wakeup_fd(-1)
        drop(handlers)
        signal.pthread_sigmask(signal.SIG_SETMASK, forks.mask)
        for end in ends:
            end.close()
        if forks.loop is not None:
            end_next(forks.loop)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_copy)


def drop(handlers: Mapping[int, Callable[..., object]]) -> None:
    """Let signals do what they do in a program without *handlers*."""
    for number, handler in handlers.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)


def end_next(loop: asyncio.AbstractEventLoop) -> None:
    """End this copy when what has forked it comes back to the loop: other coroutines are not to take their next step here, too."""
    ready = getattr(loop, "_ready", None)
    if isinstance(ready, deque):
        ready.appendleft(asyncio.Handle(end_copy, (), loop))
    else:
        loop.call_soon(end_copy)


def end_copy() -> NoReturn:
    """End this copy with nothing but what it has printed."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
