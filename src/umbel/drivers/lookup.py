"""Looking up the names of hosts, which the system does without a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_address

__all__ = ["in_time", "is_name"]


def is_name(host: str) -> bool:
    """Answer whether *host* must be looked up by servers of names; `localhost` is in a file.

    Raises:
        ValueError: it cannot be a name.
    """
    try:
        ip_address(host)
    except ValueError:
        host.encode("idna")
        return host != "localhost"
    return False


def in_time(connect: Callable[[], None], seconds: float) -> None:
    """Connect in a thread: looking up a name has no deadline of its own, and is left behind when it takes too long.

    Raises:
        TimeoutError: it took longer than *seconds*.
    """
    done, failed = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            connect()
        except BaseException as exc:  # noqa: BLE001 - raised again by who waits
            failed.append(exc)
        done.set()

    threading.Thread(target=work, name="umbel-connect", daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError(f"looking up its name and connecting took more than {seconds:g} s")
    if failed:
        raise failed[0]
