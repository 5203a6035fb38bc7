"""The tasks that each app has, under Celery's names: what canvases are made of when they travel as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from umbel import states
from umbel.canvas.signatures import as_signature
from umbel.exceptions import Retry
from umbel.joining import allow_join_result
from umbel.result import GroupResult, result_from_tuple
from umbel.shared import build_task
from umbel.task import Task
from umbel.wire import failures

__all__ = ["UNLOCK", "builtin_tasks"]

UNLOCK = "celery.chord_unlock"


def _map(self: Task[..., Any], task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
    """Call a task for each of *it*, here."""
    run = as_signature(task, self.app).type
    return [run(item) for item in it]


def _starmap(self: Task[..., Any], task: Mapping[str, Any], it: Iterable[Sequence[Any]]) -> list[Any]:
    """Call a task with each of the arguments in *it*, here."""
    run = as_signature(task, self.app).type
    return [run(*item) for item in it]


def _chunks(self: Task[..., Any], task: Mapping[str, Any], it: Sequence[Sequence[Any]], n: int) -> list[list[Any]]:
    """Do what a group of `starmap` does, here: `chunks` of a client sends the group, and this is for a message that has it whole."""
    run = as_signature(task, self.app).type
    return [[run(*item) for item in it[start : start + n]] for start in range(0, len(it), n)]


def _accumulate(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the arguments, or that of *index*."""
    del self
    index = kwargs.get("index")
    return args if index is None else args[index]


def _group(self: Task[..., Any], tasks: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
    """Send the members of a group that arrived as one message."""
    del kwargs
    return _sent(self, "group", {"tasks": list(tasks)}, args[2] if len(args) > 2 else ())  # noqa: PLR2004 - after result and group_id


def _chain(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Send the steps of a chain that arrived as one message."""
    return _sent(self, "chain", kwargs, args)


def _chord(self: Task[..., Any], header: Any, body: Any, partial_args: Sequence[Any] = (), **kwargs: Any) -> Any:
    """Send a chord that arrived as one message."""
    del kwargs
    return _sent(self, "chord", {"header": header, "body": body, "kwargs": {}}, partial_args)


def _sent(self: Task[..., Any], kind: str, kwargs: Mapping[str, Any], args: Sequence[Any]) -> Any:
    fields = {"task": f"celery.{kind}", "args": (), "kwargs": dict(kwargs), "options": {}, "subtask_type": kind, "immutable": False}
    result = as_signature(fields, self.app).apply_async(tuple(args), arrived=True)
    return None if result is None else result.as_tuple()


def _chord_unlock(
    self: Task[..., Any], group_id: str, callback: Any, interval: float | None = None, max_retries: int | None = None,
    result: Iterable[Any] = (), **kwargs: Any,
) -> dict[str, Any]:  # fmt: skip
    """Look whether all members of a header have ended, as Celery's producers ask where results are in tables; if not, look again.

    What it returns is for the worker's parent, which sends the body, or tells of its failure, and acknowledges this message last.
    """
    del callback, kwargs
    members: GroupResult[Any] = GroupResult(group_id, [result_from_tuple(each, self.app) for each in result], app=self.app)
    again: dict[str, Any] = {
        "countdown": self.app.conf.result_chord_retry_interval if interval is None else interval,
        "max_retries": max_retries,
    }
    try:
        if not members.ready():
            self.retry(**again)
    except Retry:
        raise
    except Exception as exc:  # noqa: BLE001 - the backend is away; what ends the chord when no retries are left
        self.retry(exc=exc, **again)
    failed = next((each for each in members.tasks_of().values() if each.state in states.PROPAGATE_STATES), None)
    if failed is not None:
        return {"failed": failed.id, "with": failures.describe(failed.result)}
    with allow_join_result():
        return {"values": members.join(timeout=self.app.conf.result_chord_join_timeout)}


def _backend_cleanup(self: Task[..., Any]) -> None:
    """Delete what has expired in the result backend."""
    self.app.backend.prune()


RUNS: dict[str, Callable[..., Any]] = {
    "celery.map": _map,
    "celery.starmap": _starmap,
    "celery.chunks": _chunks,
    "celery.accumulate": _accumulate,
    "celery.group": _group,
    "celery.chain": _chain,
    "celery.chord": _chord,
    UNLOCK: _chord_unlock,
    "celery.backend_cleanup": _backend_cleanup,
}


def builtin_tasks(base: type[Task[..., Any]], app: Any) -> dict[str, Task[..., Any]]:
    """Make them for an app."""
    options = {"_app": app, "typing": False}
    own = {UNLOCK: {"max_retries": None, "ignore_result": True}}
    return {name: build_task(run, base, name, bind=True, options=options | own.get(name, {})) for name, run in RUNS.items()}
