"""Names of Celery's that are not built yet: who uses one is told so, and is not left with a bare AttributeError."""

from __future__ import annotations

from typing import Any, Final, NoReturn

__all__ = ["EVENTS", "IN_PACKAGE", "Later", "told"]

EVENTS: Final = "Events are not built yet. The log and signals tell what a worker does."

# What `from umbel import …` is asked for.
IN_PACKAGE: Final = {
    "events": EVENTS,
}


def told(what: str, why: str) -> str:
    """Return the sentence."""
    return f"{what} comes with a later version of umbel. {why}"


class Later:
    """An attribute of a task or an app that is not built yet."""

    def __init__(self, why: str) -> None:
        self._why, self._name = why, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type) -> NoReturn:
        raise AttributeError(told(f"{getattr(owner, 'name', None) or kind.__name__}.{self._name}", self._why), name=self._name, obj=owner)
