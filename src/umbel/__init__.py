"""umbel: a distributed task queue that speaks Celery's API, settings and messages.

Names are imported when they are first used, so that `umbel.exceptions` or the command line does not pay for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from umbel.later import IN_PACKAGE, told

if TYPE_CHECKING:
    from umbel import states
    from umbel.app import Celery, Umbel
    from umbel.current import current_app, current_task
    from umbel.ids import uuid
    from umbel.shared import shared_task
    from umbel.task import Task

__all__ = ["Celery", "Task", "Umbel", "__version__", "current_app", "current_task", "shared_task", "states", "uuid"]

__version__ = "0.1.0"

_PLACES = {
    "Celery": "umbel.app",
    "Task": "umbel.task",
    "Umbel": "umbel.app",
    "current_app": "umbel.current",
    "current_task": "umbel.current",
    "shared_task": "umbel.shared",
    "uuid": "umbel.ids",
}
_MODULES = frozenset({"app", "exceptions", "result", "signals", "states"})  # reached as attributes, as in `umbel.states.SUCCESS`


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name in _MODULES:
        return import_module(f"umbel.{name}")
    if name in IN_PACKAGE:
        raise ImportError(told(f"umbel.{name}", IN_PACKAGE[name]), name=f"umbel.{name}")  # of an AttributeError an import drops the text
    if name not in _PLACES:
        raise AttributeError(f"umbel has no {name!r}. Public: {', '.join(__all__)}.")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value
