"""The independent ledger: one line for each thing that a run of a task does, appended to a file. It knows nothing of queues.

A line is `<monotonic seconds> <what> <key> <run> <pid> <node> <detail> .`; CLOCK_MONOTONIC is the same in all processes of the host.
`what`: begin, beat (it still runs), end, sent (a task's own call returned). The kernel appends each in one step, but where a page
ends a SIGKILL may cut it: so each begins with a line feed of its own, and what has no dot at its end was never said.
"""

import itertools
import os
import time
from typing import Self

_number = itertools.count(1)
_NODE = os.environ.get("CHAOS_NODE", "-")


def append(path: str, line: str) -> None:
    """Append one line in one write."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"\n{line}".encode())
    finally:
        os.close(file)


class Run:
    """One run of one task, from its begin line to its end line; without an end line it was ended from outside."""

    def __init__(self, key: str, detail: object = "-") -> None:
        self.key, self.name, self._detail = key, f"{os.getpid()}.{next(_number)}", detail

    def say(self, what: str, detail: object = "-") -> None:
        append(os.environ["CHAOS_LEDGER"], f"{time.monotonic():.6f} {what} {self.key} {self.name} {os.getpid()} {_NODE} {detail} .")

    def __enter__(self) -> Self:
        self.say("begin", self._detail)
        return self

    def __exit__(self, *_: object) -> None:
        self.say("end", self._detail)
