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
    from umbel.canvas import Signature, chain, chord, chunks, group, maybe_signature, signature, subtask, xmap, xstarmap
    from umbel.current import current_app, current_task
    from umbel.ids import uuid
    from umbel.shared import shared_task
    from umbel.task import Task

__all__ = [
    "Celery", "Signature", "Task", "Umbel", "__version__", "chain", "chord", "chunks", "current_app", "current_task", "group",
    "install_as_celery", "maybe_signature", "shared_task", "signature", "states", "subtask", "uuid", "xmap", "xstarmap",
]  # fmt: skip

__version__ = "0.1.0"

_PLACES = {
    **dict.fromkeys(
        ("Signature", "chain", "chord", "chunks", "group", "maybe_signature", "signature", "subtask", "xmap", "xstarmap"), "umbel.canvas"
    ),
    "Celery": "umbel.app",
    "Task": "umbel.task",
    "Umbel": "umbel.app",
    "current_app": "umbel.current",
    "current_task": "umbel.current",
    "shared_task": "umbel.shared",
    "uuid": "umbel.ids",
}
_MODULES = frozenset(
    {"app", "canvas", "exceptions", "result", "schedules", "signals", "states"}
)  # reached as attributes, as in `umbel.states.SUCCESS`


def install_as_celery(*, companions: bool = True, distribution: bool = False) -> None:
    """Let `import celery` and its modules give umbel's very objects in this process, for code that was written for Celery.

    Args:
        companions: also for the few names of kombu and billiard that code of tasks needs, whether these are installed or not.
        distribution: also answer `importlib.metadata` that Celery is installed, for tools that ask.

    Raises:
        RuntimeError: Celery itself, or kombu or billiard, is imported already.
    """
    import_module("umbel.contrib.celery_alias").install(companions=companions, distribution=distribution)


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
