"""A bell that rings when a file of the database changes: no process has to ring it, and none has to be found.

On Linux the kernel tells (inotify): an idle worker sleeps until another process commits. Elsewhere the bell says nothing,
and `Database.wait` looks again after a short time.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from pathlib import Path

__all__ = ["Bell"]

IN_MODIFY, IN_CREATE, IN_NONBLOCK, IN_CLOEXEC = 0x2, 0x100, 0o4000, 0o2000000
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


class Bell:
    """Hears changes of the file and of what SQLite keeps beside it. For one thread."""

    def __init__(self, path: str) -> None:
        self._name = os.fsencode(Path(path).name)
        self._pid = os.getpid()
        self._descriptor = listen(Path(path).parent)
        self.rang = time.monotonic()  # when it did last; perhaps just before it was there

    @property
    def hears(self) -> bool:
        """Does the system tell of changes, and to this process? After a fork it tells the parent."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def wait(self, seconds: float) -> bool:
        """Wait for a change, at most this long; answer whether there was one."""
        poll = select.poll()  # unlike `select` it knows descriptors above 1023, which a busy web server has
        poll.register(self._descriptor, select.POLLIN)
        rings = bool(poll.poll(seconds * 1000)) and self._read()
        if rings:
            self.rang = time.monotonic()
        return rings

    def _read(self) -> bool:
        """Take all events, and answer whether one is of our files: others may live in the folder."""
        ours = False
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return ours
            at = 0
            while at < len(data):
                length = EVENT.unpack_from(data, at)[3]
                at += EVENT.size
                ours = ours or data[at : at + length].startswith(self._name)
                at += length

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def listen(folder: Path) -> int:
    """Return a descriptor of inotify that tells of *folder*, or -1 where there is none or no more of them."""
    if not sys.platform.startswith("linux"):
        return -1
    libc = ctypes.CDLL(None)
    descriptor: int = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    if descriptor >= 0 and libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_MODIFY | IN_CREATE) < 0:
        os.close(descriptor)
        return -1
    return descriptor
