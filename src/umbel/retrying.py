"""What `Task.retry` decides: is there another run, with which arguments, and when."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from umbel import publish
from umbel.arguments import Arity
from umbel.exceptions import Retry
from umbel.priorities import turned, turns
from umbel.retry import RetryPolicy

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.context import Context
    from umbel.task import Task

__all__ = ["build_again", "build_retry", "retry_policy_of"]

OURS = ("redelivered", "umbel_attempts", "umbel_suspect", "umbel_turn")  # headers that tell of one delivery, not of the task


def retry_policy_of(task: Task[..., Any]) -> RetryPolicy:
    """Read the attributes of *task* that say when the worker retries by itself."""
    override = task.request.get("override_max_retries")
    return RetryPolicy(
        autoretry_for=tuple(task.autoretry_for),
        dont_autoretry_for=tuple(task.dont_autoretry_for),
        max_retries=task.retry_kwargs.get("max_retries", task.max_retries) if override is None else override,
        default_delay=task.retry_kwargs.get("countdown", task.default_retry_delay),
        backoff=task.retry_backoff,
        backoff_max=task.retry_backoff_max,
        jitter=task.retry_jitter,
    )


def build_retry(
    task: Task[..., Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    exc: BaseException | None,
    *,
    eta: Any,
    countdown: float | None,
    max_retries: int | None,
    options: Mapping[str, Any],
) -> Retry:
    """Build the exception that carries the next run, as an item to publish in its `sig`.

    Raises:
        BaseException: *exc*, or the error being handled, if there is no next run.
    """
    request = task.request
    if request.called_directly:
        _reraise(exc or sys.exc_info()[1] or Retry("Task can be retried", None))
    if max_retries is not None:
        request.update(override_max_retries=max_retries)
    most = task.max_retries if max_retries is None else max_retries
    if most is not None and request.retries >= most:
        given_up = task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{request.args} kwargs:{request.kwargs}",
        )
        vars(given_up).update(task_args=request.args, task_kwargs=request.kwargs)
        _reraise(exc or given_up)
    if eta is None and countdown is None:
        countdown = task.default_retry_delay
    again = {**_carried(task.app, request), **options, "retries": request.retries + 1}
    if options.keys() & {"time_limit", "soft_time_limit"}:
        hard, soft = again.pop("timelimit")
        again = {"time_limit": hard, "soft_time_limit": soft, **again}
    again.update({"countdown": countdown} if countdown is not None else {"eta": eta})
    positional, named = _arguments(task, request, args, kwargs)
    draft = task.draft(positional, named, again)
    publish.announce((draft,))
    return Retry(exc=exc, when=countdown if countdown is not None else eta, is_eager=request.is_eager, sig=draft.item)


def build_again(task: Task[..., Any], exc: BaseException, countdown: float) -> Retry:
    """Build the exception that sends the same run once more, which is not counted as a retry: it was not the task that failed."""
    request = task.request
    again = {**_carried(task.app, request), "parent_id": request.parent_id, "retries": request.retries, "countdown": countdown}
    draft = task.draft(list(request.args or ()), dict(request.kwargs or {}), again)
    publish.announce((draft,))
    return Retry(exc=exc, when=countdown, is_eager=request.is_eager, sig=draft.item)


def _reraise(exc: BaseException) -> NoReturn:
    active = sys.exc_info()[1]
    if active is None or active is exc:
        raise exc
    raise exc from active


def _carried(app: Umbel, request: Context) -> dict[str, Any]:
    """Return what the next run inherits."""
    options = request.as_execution_options()
    embed = {
        "callbacks": options.pop("link"),
        "errbacks": options.pop("link_error"),
        "chain": options.pop("chain"),
        "chord": options.pop("chord"),
    }
    hard, soft = options.pop("time_limit"), options.pop("soft_time_limit")
    options.update(
        embed=embed,
        timelimit=[hard, soft],
        parent_id=request.id,
        ignore_result=request.ignore_result,
        headers={key: value for key, value in options["headers"].items() if key not in OURS} | _place(request),
        stamped_headers=request.stamped_headers,
        stamps=request.stamps,
    )
    where = request.delivery_info or {}
    if request.consumed_from:  # whatever the exchange was: the worker that runs it now consumes this queue
        options["queue"] = request.consumed_from
    elif where.get("exchange"):
        options.update(exchange=where["exchange"], routing_key=where.get("routing_key"))
    elif where.get("routing_key"):
        options["queue"] = where["routing_key"]
    if (priority := where.get("priority")) is not None:  # the broker's number
        queue = options.get("queue") or where.get("routing_key") or ""
        options["priority"] = turned(app.router, queue, priority) if turns(app.conf) else priority
    return options


def _place(request: Context) -> dict[str, Any]:
    """Return the headers that keep the next run where this one is in its workflow."""
    return {name: value for name in ("umbel_flow", "umbel_errback") if (value := request.get(name)) is not None}


def _arguments(
    task: Task[..., Any], request: Context, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Keep of the old arguments what the new ones do not replace."""
    old_args, old_kwargs = list(request.args or ()), dict(request.kwargs or {})
    if args is None and kwargs is None:
        return old_args, old_kwargs
    if args is not None and kwargs is not None:
        return args, kwargs
    arity = Arity.of(task.run, skip_first=False)
    names = arity.names if arity else ()
    if kwargs is None:
        replaced = names[: len(args or ())]
        return args or (), {key: value for key, value in old_kwargs.items() if key not in replaced}
    clash = next((place for place, name in enumerate(names[: len(old_args)]) if name in kwargs), len(old_args))
    by_name = dict(zip(names[clash:], old_args[clash:], strict=False))
    return old_args[:clash], {**old_kwargs, **by_name, **kwargs}
