"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from umbel.supervisor import notify
from umbel.supervisor.link import Role, make_line
from umbel.supervisor.os_signals import name_of

__all__ = ["Command", "WorkerProcess", "ended_how", "means_well"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The command line of the supervisor, which its workers are started with again, so that they load all code anew."""

    words: Sequence[str]
    folder: str  # that it was given in, so that paths in it mean the same


class WorkerProcess:
    """A process that is to serve as *node*."""

    def __init__(self, command: Command, node: str, index: int, *, quiet: bool) -> None:
        self.node = node
        self.line, theirs = make_line()
        environment = {name: value for name, value in os.environ.items() if name != notify.VARIABLE}  # we tell systemd
        role = Role(node=node, index=index, quiet=quiet, descriptor=theirs.fileno())
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own program with the words that it was given
                [sys.executable, "-m", "umbel", *command.words], cwd=command.folder, env=role.put_into(environment),
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0,  # Ctrl-C is for the supervisor
            )  # fmt: skip
        except OSError:
            self.line.close()
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid
        self.started = time.monotonic()
        self.ready = False
        self._speaks = True  # its end of the line is open
        self.exitcode: int | None = None  # as of `subprocess`: a signal is below 0

    def hear(self) -> bool:
        """Take what the worker said; answer whether it is ready since now."""
        try:
            said = self.line.recv(64)
        except OSError:
            return False
        self._speaks, self.ready = bool(said), bool(said)
        return self.ready

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self.exitcode is None:
            os.kill(self.pid, number)  # it is there until we have waited for it

    def end(self, status: int) -> None:
        """Note that it has ended, and how."""
        self.exitcode = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.line.close()

    @property
    def lines(self) -> list[socket.socket]:
        """The line, while there is something to hear on it."""
        return [self.line] if self.exitcode is None and self._speaks and not self.ready else []


def ended_how(exitcode: int) -> str:
    """Say how a process ended."""
    return f"was ended by {name_of(-exitcode)}" if exitcode < 0 else f"ended with exit code {exitcode}"


def means_well(process: WorkerProcess) -> bool:
    """Answer whether a process that was told to stop did so: one that could not listen yet is ended by the signal itself."""
    return process.exitcode == 0 or (process.exitcode == -signal.SIGTERM and not process.ready)
