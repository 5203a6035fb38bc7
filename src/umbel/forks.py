"""Which process this is, for those who ask with every message: `os.getpid` is a system call, and three of them were a tenth of a task.

A fork is noticed by Python's own hook. Who forks without it, as a library of C may, is not noticed here: what would share a connection
asks the system.
"""

from __future__ import annotations

import os

__all__ = ["process"]


class Process:
    """This one."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.note()

    def note(self) -> None:
        """Ask the system."""
        self.pid = os.getpid()


process = Process()
os.register_at_fork(after_in_child=process.note)
