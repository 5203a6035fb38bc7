"""Telling systemd how far we are (`Type=notify`), without a library: one datagram to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
import time

__all__ = ["VARIABLE", "notify", "reloading"]

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send *state*, such as `READY=1`, if we were started by one who wants to know."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.settimeout(1.0)  # whoever does not listen is not waited for
        out.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def reloading() -> None:
    """Say that workers are being replaced; `READY=1` ends it (`Type=notify-reload`)."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
