"""Going on in the background. Whoever typed the command learns how the start went: it ends when the daemon is ready, or has failed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from typing import Any

from umbel.exceptions import ImproperlyConfigured

__all__ = ["Report", "detach"]

WAITS = 30.0  # seconds for which the command waits for the daemon
MOST = 200_000  # bytes of what a daemon says of its failure


class Report:
    """What the daemon tells the command that started it. The first thing said counts. Without a line nobody waits."""

    def __init__(self, line: socket.socket | None = None) -> None:
        self._line = line

    def ready(self) -> None:
        """Say that the start went well."""
        self._say("", 0)

    def failed(self, text: str, code: int) -> None:
        """Say why there is no daemon, and with which exit code the command should end."""
        self._say(text, code)

    def ended(self, code: int) -> None:
        """Say that the daemon ended with *code*, if it was not ready before."""
        self._say("It ended before it was ready. Its log says why, if it has one (--logfile).", code or 1)

    def _say(self, text: str, code: int) -> None:
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(OSError), line:  # nobody waits any more
                line.sendall(json.dumps({"text": text[-MOST // 8 :], "code": code}).encode())


def detach(output: str | None) -> Report:
    """Let this process end when the daemon has reported, and return in the daemon: without a terminal, printing to *output*.

    It must be called before any thread starts.

    Raises:
        ImproperlyConfigured: *output* cannot be written.
    """
    target = open_output(output)
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        theirs.close()
        os._exit(wait_for_report(ours))
    os.setsid()
    if os.fork():  # a leader of a session could get a terminal again
        os._exit(0)
    ours.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((nothing, 0), (target, 1), (target, 2)):
        os.dup2(source, number)
    for descriptor in (nothing, target):
        os.close(descriptor)
    return Report(theirs)


def open_output(path: str | None) -> int:
    """Open what is to hold what the daemon prints."""
    if path is None:
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"The log cannot be written to {path} ({exc.strerror}). Make its folder, or give another file with -f."
        ) from exc


def wait_for_report(line: socket.socket) -> int:
    """Print what the daemon says went wrong, and return the exit code."""
    said, deadline = b"", time.monotonic() + WAITS
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        data = line.recv(65536)
        if not data:
            break
        said += data
    else:
        sys.stderr.write(f"It is not ready after {WAITS:g} s and still starts. Its log tells the rest.\n")
        sys.stderr.flush()
        return 0
    report: dict[str, Any] = json.loads(said) if said else {"text": "It died before it was ready.", "code": 1}
    if report["text"]:
        sys.stderr.write(f"{report['text'].rstrip()}\n")
        sys.stderr.flush()
    return int(report["code"])
