"""The places that tools replace to watch tasks run: `celery.app.trace.build_tracer` and `billiard.pool.Worker.workloop`.

Who replaces `build_tracer` (Sentry, New Relic) is asked for a tracer of each task before its first run in a process, and the task then
runs inside it. Who replaces `workloop` to do something at its end is called when a process of the pool ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from umbel import signals
from umbel.exceptions import NotSupported
from umbel.task import Task

__all__ = ["ExceptionWithTraceback", "Producer", "Worker", "build_tracer", "task_has_custom"]

MODULE: Final = "celery.app.trace"
MARK: Final = "_traced_by"

_value: ContextVar[Any] = ContextVar("umbel_traced_value")


class ExceptionWithTraceback(Exception):  # noqa: N818 - billiard's
    """An exception that carries a text of where it was raised. umbel makes none: its exceptions travel as documents."""

    def __init__(self, exc: BaseException, tb: str = "") -> None:
        super().__init__(exc)
        self.exc, self.tb = exc, tb


class Worker:
    """A process of the pool, for those who wrap what it does."""

    def workloop(self, *args: Any, **kwargs: Any) -> None:
        """Return at once: umbel's processes have their own loop."""


class Producer:
    """For those who wrap its `publish`: umbel does not send by it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotSupported("umbel has no kombu.Producer. Send tasks with apply_async() or app.send_task().")

    def publish(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


def task_has_custom(task: Task[..., Any], attr: str) -> bool:
    """Answer whether the class of *task* has *attr* of its own."""
    return getattr(type(task), attr, None) is not getattr(Task, attr, None)


def build_tracer(name: str, task: Task[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """Return what runs *task* once: what tools wrap. Its value is what the task returned; what the task raised goes through."""
    del name

    def trace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        del uuid, request
        return _value.get()(*args, **kwargs)

    trace.__qualname__ = f"trace({task.name})"
    return trace


def _before_run(task: Task[..., Any], **_: Any) -> None:
    """Let the task run inside the tracer of whoever has replaced `build_tracer`, once for each of them."""
    build = getattr(sys.modules.get(MODULE), "build_tracer", build_tracer)
    if build is build_tracer or vars(task).get(MARK) is build:
        return
    tracer = build(task.name, task)  # which may replace `run`, too
    run = task.run

    @wraps(run)
    def traced(*args: Any, **kwargs: Any) -> Any:
        request = task.request
        token = _value.set(run)
        try:
            return tracer(request.id, args, kwargs, dict(vars(request)))
        finally:
            _value.reset(token)

    vars(task).update({"run": traced, MARK: build})


def _at_end(**_: Any) -> None:
    if Worker.workloop is not _WORKLOOP:
        Worker().workloop()


_WORKLOOP: Final = Worker.workloop
signals.task_prerun.connect(_before_run, weak=False, dispatch_uid="umbel.celery_alias")
signals.worker_process_shutdown.connect(_at_end, weak=False, dispatch_uid="umbel.celery_alias")
