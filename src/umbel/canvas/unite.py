"""What `a | b` becomes. The table of rules is in docs/explanation/workflows.md.

It is told by the kinds of both sides, so that this module needs none of their classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["joined", "prepared", "unite", "unrolled"]


def unite(left: Any, right: Any) -> Any:
    """Return *left* and then *right*, as a new canvas that shares nothing with either."""
    return joined(left.clone(), right.clone())


def joined(left: Any, right: Any) -> Any:
    """Return *left* and then *right*. Both belong to it from now on: to fold many copies each of them once."""
    right = unrolled(right)
    if _is_empty_group(right):
        return left
    if left.subtask_type == "group":
        return _chord(left, right)
    if left.subtask_type == "chord":
        return _after_chord(left, right)
    if left.subtask_type == "chain":
        return _after_chain(left, right)
    return _chain(left, [left, *_steps(right)])


def unrolled(sig: Any) -> Any:
    """Return the only member of a group of one; anything else as it is."""
    if sig.subtask_type == "group" and len(sig.tasks) == 1:
        return sig.tasks[0]
    return sig


def _after_chord(left: Any, right: Any) -> Any:
    if right.subtask_type in {"group", "chain", "chord"}:
        return _chain(left, [left, *_steps(right)])
    left.body = right if left.body is None else joined(left.body, right)
    return left


def _after_chain(left: Any, right: Any) -> Any:
    if not left.tasks:
        return right if right.subtask_type in {"group", "chord"} else _chain(left, _steps(right), left)
    if right.subtask_type == "chain":
        for step in right.tasks:
            left = joined(left, step)
        return left
    *before, last = left.tasks
    if last.subtask_type == "group":
        last = _chord(last, right)
    elif last.subtask_type == "chord":
        last.body = right if last.body is None else joined(last.body, right)
    else:
        before, last = [*before, last], right
    if not before:
        return last
    left.tasks = [*before, last]
    return left


def _steps(sig: Any) -> list[Any]:
    return list(sig.tasks) if sig.subtask_type == "chain" else [sig]


def _is_empty_group(sig: Any) -> bool:
    """Answer whether there is no task in a group, nor in what is in it."""
    return sig.subtask_type == "group" and _has_no_task(sig)


def _has_no_task(sig: Mapping[str, Any]) -> bool:
    return sig.get("subtask_type") in {"group", "chain"} and all(map(_has_no_task, sig["kwargs"]["tasks"]))


def _chain(near: Any, tasks: list[Any], like: Any = None) -> Any:
    made = near.TYPES["chain"].of(tasks, app=near._app)  # noqa: SLF001 - the same package
    if like is not None:
        made.options.update(like.options)
        made.args, made.immutable = like.args, like.immutable
    return made


def _chord(header: Any, body: Any) -> Any:
    return header.TYPES["chord"](header, body=body, app=header._app)  # noqa: SLF001


def prepared(tasks: list[Any]) -> list[Any]:
    """Return the steps of a chain as they run: no chain inside, no empty group, and no group before another step.

    A canvas made by `|` is so already; one that was read, or whose `tasks` were changed, may be not.
    """
    flat: list[Any] = []
    for task in tasks:
        if task.subtask_type == "chain" and not (task.args or task.kwargs.keys() - {"tasks"} or task.options):
            flat += prepared(list(task.tasks))
        elif not _is_empty_group(task):
            flat.append(task)
    steps: list[Any] = []
    for task in flat:
        if steps and steps[-1].subtask_type == "group":
            steps[-1] = _chord(steps[-1], task)
        elif steps and steps[-1].subtask_type == "chord" and steps[-1].body is None:
            steps[-1].body = task
        else:
            steps.append(task)
    return steps
