"""The keeper renews the lease of a solo worker, whose own process may hold the interpreter's lock for minutes.

    python -m umbel.worker.keeper      reads one line of JSON for each owner to keep, from standard input

It imports no app and runs no user code. It never renews for a parent that is gone (its input closes) or stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umbel.drivers import open_broker
from umbel.exceptions import OperationalError

__all__ = ["Keeper", "main"]

logger = logging.getLogger("celery.worker")
LOOK_EVERY = 0.5  # seconds
LONGEST_END = 5.0  # seconds: twice the deadline of the renewal that it may be in


class Keeper:
    """The parent's handle of its keeper process."""

    def __init__(
        self, url: str, options: dict[str, Any], queues: Sequence[str], *, lease: float, renewal: float, base_dir: str | None
    ) -> None:
        self._order = {
            "url": url, "options": options, "queues": list(queues), "lease": lease, "renewal": renewal,
            "base_dir": base_dir, "parent": os.getpid(),
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = ""

    def keep(self, owner: str) -> None:
        """Renew *owner*'s lease from now on, instead of any owner before."""
        self._owner = owner
        if self._process is None:
            # A group of its own: Ctrl-C would reach it before it has the time to ignore it.
            self._process = subprocess.Popen([sys.executable, "-m", "umbel.worker.keeper"], stdin=subprocess.PIPE, process_group=0)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({**self._order, "owner": owner}, default=str).encode() + b"\n")
            self._process.stdin.flush()

    async def watch(self) -> None:
        """Start the process again whenever it ends, for ever: without it a long task would lose its lease."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._process is not None and self._process.poll() is not None:
                logger.warning("The keeper of the lease ended (%s). Another is started.", self._process.returncode)
                assert self._process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
                self._process = None
                self.keep(self._owner)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(LONGEST_END)
            except subprocess.TimeoutExpired:  # it is stopped, or its broker keeps it longer than any deadline of ours
                self._process.kill()
                self._process.wait()


def main() -> None:
    """Renew until standard input closes."""
    # They reach the whole group; a warm stop still needs its lease.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    order: dict[str, Any] = {}
    broker = None
    next_renewal = 0.0
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], max(0.0, next_renewal - time.monotonic()) if broker else None)
        if ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            if not lines:
                continue
            order = json.loads(lines[-1])
            broker = broker or open_broker(order["url"], options=order["options"], base_dir=order["base_dir"])
        if broker is not None and time.monotonic() >= next_renewal:
            next_renewal = time.monotonic() + order["renewal"]
            if runs(order["parent"]):
                with contextlib.suppress(OperationalError):  # the parent says so, too
                    broker.renew(order["owner"], order["queues"], lease=order["lease"])


def runs(pid: int) -> bool:
    """Answer whether process *pid* is there and not stopped (SIGSTOP), where /proc can tell."""
    if os.getppid() != pid:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state not in {"T", "t", "Z"}


if __name__ == "__main__":
    main()
