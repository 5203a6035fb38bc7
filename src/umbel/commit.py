"""Sending when Django's transaction commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from umbel import states
from umbel.exceptions import EncodeError, ImproperlyConfigured
from umbel.ids import uuid
from umbel.result import AsyncResult, EagerResult, GroupResult
from umbel.wire.serializers import encode

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["on_commit"]


def on_commit(
    task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], using: str | None, options: dict[str, Any]
) -> AsyncResult[Any]:
    """Send when the transaction of the database *using* commits; what cannot be sent is refused now.

    Raises:
        EncodeError: the arguments cannot be written.
        ImproperlyConfigured: there is no Django, or it has no settings.
    """
    _transaction_of(task.name)
    try:
        encode(options.get("serializer") or task.serializer, (args, kwargs))
    except EncodeError as exc:
        raise EncodeError(f"The arguments of {task.name} cannot be sent: {exc}") from exc
    options["task_id"] = options.get("task_id") or uuid()
    result = pending_result(task, options)

    def send() -> None:
        try:
            sent = task.apply_async(args, kwargs, **options)
        except Exception as exc:
            if isinstance(result, EagerResult):  # it has run: the commit raises what it raised, as `task_eager_propagates` says
                result.take_over(EagerResult(result.id, exc, states.FAILURE, format_exc()))
            raise
        if isinstance(result, EagerResult) and isinstance(sent, EagerResult):
            result.take_over(sent)

    _when_committed(task.name, send, using)
    return result


def _transaction_of(name: str) -> Any:
    """Return Django's module."""
    try:
        from django.db import transaction  # type: ignore[import-untyped]
    except ImportError as exc:
        raise ImproperlyConfigured(
            f"{name}: sending on commit needs Django, which is not installed. Use delay(), or: pip install 'umbel[django]'.",
        ) from exc
    return transaction


def _when_committed(name: str, send: Callable[[], Any], using: str | None) -> None:
    transaction = _transaction_of(name)
    from django.core.exceptions import ImproperlyConfigured as DjangoUnconfigured  # type: ignore[import-untyped]

    try:
        transaction.on_commit(send, using=using)
    except DjangoUnconfigured as exc:
        raise ImproperlyConfigured(
            f"{name}: sending on commit needs Django's settings. Set DJANGO_SETTINGS_MODULE, or use delay(). Django says: {exc}",
        ) from exc


def pending_result(task: Task[..., Any], options: Mapping[str, Any]) -> AsyncResult[Any]:
    """Return the result of a call that will be sent, or, with `task_always_eager`, run here."""
    if task.app.conf.task_always_eager:
        return EagerResult(options["task_id"], None, states.PENDING, name=task.name)
    result: AsyncResult[Any] = AsyncResult(options["task_id"], app=task.app, task_name=task.name)
    ignore = options.get("ignore_result")
    result.ignored = bool(task.ignore_result if ignore is None else ignore)
    return result


def canvas_on_commit(sig: Any, result: Any, using: str | None, how: Mapping[str, Any]) -> Any:
    """Send *sig*, whose ids are fixed, when the transaction of the database *using* commits; return *result*, which is its.

    Raises:
        ImproperlyConfigured: there is no Django, or it has no settings.
    """
    if not sig.app.conf.task_always_eager or result is None:
        _when_committed(repr(sig), lambda: sig.apply_async(**how), using)
        return result
    pending = _pending(result)

    def run() -> None:
        _take_over(pending, sig.apply(throw=False))
        if sig.app.conf.task_eager_propagates:
            pending.maybe_throw()

    _when_committed(repr(sig), run, using)
    return pending


def _pending(result: Any) -> Any:
    """Return *result*, those in it and those before it, as results of what will run here."""
    last: Any = None
    below: Any = None
    while result is not None:
        found: Any
        if isinstance(result, GroupResult):
            found = GroupResult(result.id, [_pending(each) for each in result.results], app=result.app)
        else:
            found = EagerResult(result.id, None, states.PENDING, name=result.name_given)
        last = found if last is None else last
        if below is not None:
            below.parent = found
        below, result = found, result.parent
    return last


def _take_over(pending: Any, ran: Any) -> None:
    """Tell the results that were returned what became of them; *ran* has the same shape."""
    while pending is not None:
        if isinstance(pending, GroupResult):
            for each, its in zip(pending.results, ran.results, strict=True):
                _take_over(each, its)
        else:
            pending.take_over(ran)
        pending, ran = pending.parent, ran.parent
