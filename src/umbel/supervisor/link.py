"""The line between a supervisor and one worker.

The worker says one word on it, that it is ready. It hears one thing, its end: the supervisor is gone. The system closes the
line of a process that was killed, too, so no worker is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass

__all__ = ["VARIABLE", "Link", "Role", "make_line"]

VARIABLE = "UMBEL_SUPERVISED"  # of the environment of a worker; taken out of it before any code of a user runs
READY = b"ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a supervisor makes of a worker: it has the command line of the supervisor, and this."""

    node: str
    index: int
    quiet: bool
    descriptor: int  # of the line

    def put_into(self, environment: dict[str, str]) -> dict[str, str]:
        """Return *environment* with this in it."""
        values = {"node": self.node, "index": self.index, "quiet": self.quiet, "descriptor": self.descriptor}
        return environment | {VARIABLE: json.dumps(values)}

    @classmethod
    def take(cls) -> Role | None:
        """Return what this process is to be, once; None if no supervisor started it."""
        text = os.environ.pop(VARIABLE, None)
        return None if text is None else cls(**json.loads(text))


class Link:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # not for the programs of tasks
        self.socket = socket.socket(fileno=descriptor)
        self.socket.setblocking(False)

    def say_ready(self) -> None:
        """Tell the supervisor."""
        with contextlib.suppress(OSError):  # it is gone, which the worker hears by itself
            self.socket.send(READY)

    def is_cut(self) -> bool:
        """Answer whether the supervisor is gone; it says nothing else."""
        try:
            return not self.socket.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True


def make_line() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the worker's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs
