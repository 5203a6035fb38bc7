"""Names that Celery's users import from `celery.utils.nodenames`."""

from __future__ import annotations

from typing import Any

from umbel.ids import DEFAULT_NAME, anon_nodename, gethostname, node_format, nodesplit

__all__ = ["anon_nodename", "default_nodename", "gethostname", "host_format", "node_format", "nodename", "nodesplit"]


def nodename(name: str, hostname: str) -> str:
    """Return `name@hostname`."""
    return f"{name}@{hostname}"


def default_nodename(hostname: str | None) -> str:
    """Return the full name of a node of which one half, or nothing, is given."""
    name, host = nodesplit(hostname or "")
    return nodename(name or DEFAULT_NAME, host or gethostname())


def host_format(text: str, host: str | None = None, name: str | None = None, **_: Any) -> str:
    """Fill in `%h`, `%n` and `%d` of a machine: its name, the part before its first dot, and the rest."""
    machine = host or gethostname()
    short, _dot, domain = machine.partition(".")
    for letter, value in (("%h", machine), ("%n", name or short), ("%d", domain)):
        text = text.replace(letter, value)
    return text
