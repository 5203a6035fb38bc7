"""The zygote: a process forked after the app is loaded and before any thread starts, from which all children are forked.

A fork of a process with threads may deadlock in the child; the zygote never starts a thread. It also is what outlives a
parent that was killed: when the pipe to the parent closes, it kills all children *before* the parent's lease can lapse,
so that none of them runs beside the re-run of its task.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence

from umbel.pools.evidence import RSS_UNIT

__all__ = ["ENDS_WITHIN", "Zygote"]

logger = logging.getLogger("celery.pool")

ORDER = struct.Struct("<i")  # the number of the child to fork
REPORT = struct.Struct("<iiiq")  # number, pid (0: it could not be forked), wait status (-1: just forked), peak memory in bytes, or errno
PR_SET_PDEATHSIG = 1
ENDS_WITHIN = 2.0  # seconds


class Zygote:
    """The parent's handle of its zygote."""

    def __init__(self, live: Callable[[int], None], close: Sequence[socket.socket]) -> None:
        """Fork the zygote; *live(number)* is what a child does, in the child. *close*: the parent's ends of the slots.

        Only the parent may hold those: its children see them close when it stops or dies.
        """
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for end in (self.control, *close):
                end.close()
            try:
                attend(theirs, live)
            except BaseException:
                logger.critical("The zygote (pid %d) ends because of an unforeseen error.", os.getpid(), exc_info=True)
            finally:
                os._exit(0)
        theirs.close()

    def spawn(self, number: int) -> None:
        """Ask for a child; `report` tells its pid."""
        self.control.send(ORDER.pack(number))

    def report(self) -> tuple[int, int, int, int]:
        """Return (number, pid, wait status or -1 for a start, bytes of memory at most); waits. EOFError: the zygote is gone.

        A pid of 0 says that the fork failed; then the last is why, as an errno.
        """
        data = self.control.recv(REPORT.size)
        if not data:
            raise EOFError("the zygote is gone")
        number, pid, status, peak = REPORT.unpack(data)
        return number, pid, status, peak

    def close(self) -> None:
        """End the zygote, and with it all children that are still there. One that does not end in time is killed."""
        self.control.close()
        latest = time.monotonic() + ENDS_WITHIN
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > latest:
                    os.kill(self.pid, signal.SIGKILL)  # the kernel kills its children, too, where it can
                    os.waitpid(self.pid, 0)
                    return
                time.sleep(0.002)


def attend(control: socket.socket, live: Callable[[int], None]) -> None:
    """Fork children as ordered and report their ends, until the parent is gone; then kill them all."""
    # The parent decides when to end. A handler, and not SIG_IGN, which children and their programs would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    waker, wakee = socket.socketpair()
    wakee.setblocking(False)
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakee.fileno(), warn_on_full_buffer=False)
    children: dict[int, int] = {}  # pid -> number
    poll = select.poll()  # unlike `select` it knows descriptors above 1023, which a worker of many slots has
    poll.register(control, select.POLLIN)
    poll.register(waker, select.POLLIN)
    try:
        while True:
            ready = {number for number, _ in poll.poll()}
            if control.fileno() in ready:
                order = control.recv(ORDER.size)
                if not order:
                    return
                (number,) = ORDER.unpack(order)
                try:
                    pid = fork_child(number, control, live)
                except OSError as exc:  # no more processes, or no memory: those that are there go on
                    control.send(REPORT.pack(number, 0, -1, exc.errno or 0))
                    continue
                children[pid] = number
                control.send(REPORT.pack(number, pid, -1, 0))
            if waker.fileno() in ready:
                waker.recv(4096)
                reap(control, children)
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reap(control: socket.socket, children: dict[int, int]) -> None:
    """Report all children that have ended."""
    while children:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = children.pop(pid, None)
        if number is not None:
            control.send(REPORT.pack(number, pid, status, used.ru_maxrss * RSS_UNIT))


def fork_child(number: int, control: socket.socket, live: Callable[[int], None]) -> int:
    """Fork one child, which dies with the zygote where the kernel can promise that."""
    zygote = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        die_with_parent(zygote)
        live(number)
        status = 0
    except BaseException:
        logger.critical("Process pid:%d ends because of an unforeseen error.", os.getpid(), exc_info=True)
    finally:
        os._exit(status)


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the closed socket ends an idle child."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
