"""The two kinds of errbacks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["is_new_style"]


def is_new_style(task: Task[..., Any] | None) -> bool:
    """Whether an errback takes request, exception and traceback: it is known here, not bound, and takes more than one argument.

    Any other takes the id of the task that failed.
    """
    if task is None or getattr(task, "_bound", True):
        return False
    taken = [each.kind for each in inspect.signature(task.run).parameters.values()]
    positional = [kind for kind in taken if kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}]
    return len(positional) > 1 or inspect.Parameter.VAR_POSITIONAL in taken
