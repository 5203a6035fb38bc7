"""Which process this is, for those who ask with every message: `os.getpid` is a system call, and three of them were a tenth of a task.

A fork is noticed by Python's own hook, which every program that goes on to run Python after a fork has to call (uWSGI's C code does, too).
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
