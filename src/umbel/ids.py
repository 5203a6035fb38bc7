"""Names of tasks, nodes and producers."""

from __future__ import annotations

import os
import re
import socket
import uuid as stdlib_uuid
from functools import lru_cache
from hashlib import sha1

from umbel.forks import process

__all__ = [
    "LONGEST_NAME", "anon_nodename", "check_queue_name", "gethostname", "is_name", "node_format", "nodename", "nodesplit",
    "reply_oid", "uuid", "uuid_of", "uuids",
]  # fmt: skip

DEFAULT_NAME = "celery"
LONGEST_NAME = 1024  # characters of a task's name or id: it becomes a key, and stands in every line about it
_FORMAT = re.compile(r"%(.)")
_URLS = stdlib_uuid.NAMESPACE_URL.bytes
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid() -> str:
    """A new random id (UUID version 4) as text."""
    # Half the time of str(uuid.uuid4()); urandom is read at each call, so a fork never repeats an id.
    return _uuid4(os.urandom(16).hex())


def uuids(count: int) -> list[str]:
    """So many ids, for one read of urandom."""
    digits = os.urandom(16 * count).hex()
    return [_uuid4(digits[start : start + 32]) for start in range(0, 32 * count, 32)]


def uuid_of(text: str) -> str:
    """Return the id that always belongs to *text* (UUID version 5, in the name space of URLs)."""
    digits = sha1(_URLS + text.encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def _uuid4(digits: str) -> str:
    """Write 32 random hexadecimal digits as an id."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def is_name(text: object) -> bool:
    """Whether *text* may be the name or the id of a task: not empty, not too long, and without anything that a terminal obeys."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST_NAME and text.isprintable()


def check_queue_name(name: object) -> None:
    """Refuse what cannot name a queue: drivers make keys of it.

    Raises:
        ValueError: it is empty, too long, no text, or has characters in it that cannot be printed.
    """
    if not is_name(name):
        raise ValueError(f"The name of a queue is {ascii(name)[:60]}. It must be a text of 1 to {LONGEST_NAME} printable characters.")


def gethostname() -> str:
    """The name of this machine."""
    return socket.gethostname()


def nodesplit(name: str) -> tuple[str | None, str]:
    """Splits `name@host`; without an @ all of it is the host."""
    left, at, right = name.partition("@")
    return (left, right) if at else (None, left)


def nodename(name: str | None = None, *, host: str | None = None, index: int = 0) -> str:
    """The full name of a node, with the missing half filled in.

    Args:
        name: `name@host`, either half or nothing. `%h` stands for this machine's name, `%n` for its part before the
            first dot, `%d` for the rest, `%i` for the index, `%I` for `-index` or nothing, `%%` for a percent sign.
        host: this machine's name, if it is not to be asked.
        index: of a worker among those of one supervisor; 0: it has none.
    """
    machine = host or gethostname()
    left, right = nodesplit(name or "")
    short, _, domain = machine.partition(".")
    return _expand(f"{left or DEFAULT_NAME}@{right or machine}", {"h": machine, "n": short, "d": domain, **_numbers(index)})


def node_format(text: str, node: str, *, index: int = 0) -> str:
    """Fills in the name of a node, for example in the name of a log file.

    Args:
        text: `%n` stands for the part before the @, `%h` for the host, `%d` for its domain, `%p` for the full name,
            `%i` for the index, `%I` for `-index` or nothing.
        node: the full name of the node.
        index: of a worker among those of one supervisor; 0: it has none.
    """
    left, host = nodesplit(node)
    domain = host.partition(".")[2]
    places = {"n": left or DEFAULT_NAME, "h": host, "d": domain, "p": node}
    return _expand(text, places | _numbers(index))


def anon_nodename() -> str:
    """The name of a process that is no worker, as `gen4711@host`."""
    return _anonymous(process.pid)


def reply_oid(app_id: int) -> str:
    """The id under which this process expects replies for one app: one for all threads, as each may read what another sent."""
    return _oid(process.pid, app_id)


def _numbers(index: int) -> dict[str, str]:
    return {"i": str(index), "I": f"-{index}" if index else ""}


def _expand(text: str, places: dict[str, str]) -> str:
    # An unknown letter stays as it is: a name is not a place to fail in.
    return _FORMAT.sub(lambda found: "%" if found[1] == "%" else places.get(found[1], found[0]), text)


@lru_cache(maxsize=8)
def _anonymous(pid: int) -> str:
    return f"gen{pid}@{gethostname()}"


@lru_cache(maxsize=1024)
def _oid(pid: int, app_id: int) -> str:
    return str(stdlib_uuid.uuid3(stdlib_uuid.NAMESPACE_OID, f"{_node():x}-{pid:x}-{app_id:x}"))


@lru_cache(maxsize=1)
def _node() -> int:
    # Random per process tree rather than uuid.getnode(), which may run a program to find the network card.
    return int.from_bytes(os.urandom(16), "big")
