"""What is no signature, and what to write in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel.result import ResultBase
from umbel.wire.saferepr import saferepr

__all__ = ["calls_in", "keywords", "no_signature", "positional", "refuse_queue"]

SHOWN = 60  # characters of a value
MAKE = "Make one with task.s(...)"


def no_signature(value: Any) -> TypeError:
    """Return the error that says so, with what the user most likely meant."""
    shown = saferepr(value, SHOWN)
    if _is_task(value):
        return TypeError(f"{shown} is a task, and no signature. Write {value.name.rpartition('.')[2]}.s(...).")
    if isinstance(value, ResultBase):
        return TypeError(f"{shown} is the result of a call that is sent already. Write task.s(...), and not task.delay(...).")
    if isinstance(value, str):
        return TypeError(f"{shown} is no signature. Make one of a task's name with app.signature({shown}, args=(...)).")
    if value is None or callable(value):
        return TypeError(f"{shown} is no signature. {MAKE}.")
    return TypeError(f"{shown} is no signature. {MAKE}; task(...) runs it here.")


def _is_task(value: Any) -> bool:
    return hasattr(value, "apply_async") and hasattr(value, "s") and isinstance(getattr(value, "name", None), str)


def positional(task: Any, args: Any) -> tuple[Any, ...]:
    """Return positional arguments as a tuple.

    Raises:
        TypeError: they are a text, a mapping or a single value.
    """
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        shown = saferepr(args, SHOWN)
        raise TypeError(f"The arguments of {task} are {shown}. Give a list or a tuple: of one argument it is ({shown},).")
    return tuple(args)


def keywords(task: Any, kwargs: Any) -> dict[str, Any]:
    """Return keyword arguments as a dict.

    Raises:
        TypeError: they are none.
    """
    try:
        return dict(kwargs)
    except (TypeError, ValueError):
        raise TypeError(f"The keyword arguments of {task} are {saferepr(kwargs, SHOWN)}. Give a dict: {{'x': 1}}.") from None


def calls_in(it: Any) -> Any:
    """Return what holds the arguments of many calls.

    Raises:
        TypeError: it cannot be gone through.
    """
    if isinstance(it, Iterable):
        return it
    raise TypeError(f"{saferepr(it, SHOWN)} holds no calls: give a list, or anything else that can be gone through.")


def refuse_queue(options: Mapping[str, Any], task: str) -> None:
    """Refuse a queue that no step could be sent to.

    Raises:
        TypeError: it is neither a name nor a queue.
    """
    queue = options.get("queue")
    if queue is not None and not isinstance(queue, str) and not hasattr(queue, "name"):
        raise TypeError(f"The option queue of {task} is {saferepr(queue, SHOWN)}. Give the name of a queue.")
