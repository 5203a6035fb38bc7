"""Calls that run where they are made, as `task_always_eager` and `Task.apply` ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import publish, states
from umbel.backend import Record
from umbel.canvas.chains import chain
from umbel.canvas.eager import run_canvas
from umbel.canvas.replacing import eager_replacements
from umbel.canvas.signatures import Signature, as_signature
from umbel.current import reach
from umbel.meta import result_of
from umbel.result import EagerResult
from umbel.said import store_eager

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = ["call_eagerly"]

MEANINGLESS = frozenset({"countdown", "eta", "expires", "throw", "logfile", "loglevel"})


def call_eagerly(
    app: Umbel, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
) -> EagerResult[Any]:
    """Write the message of a call, read it, run it and its retries in this thread, and return the result.

    Raises:
        EncodeError: the arguments cannot be written.
        Exception: what the task raised, if `task_eager_propagates` or *throw* says so.
    """
    throw = options.get("throw")
    if options and publish.is_followed(options):
        return _with_following(app, task, args, kwargs, options)
    kept = {key: value for key, value in options.items() if key not in MEANINGLESS}
    # A result that is not stored is still what the caller of an eager task gets.
    draft = publish.draft(publish.plan_of(app, task.name, task), task.name, args, kwargs, {**kept, "ignore_result": False}, tell=False)
    replacements: dict[str, Any] = {}
    token = eager_replacements.set(replacements)
    try:
        outcome, _ = reach("runner")(app, draft.item.raw)
    finally:
        eager_replacements.reset(token)
    if (replaced := replacements.get(draft.item.id)) is not None:
        return _as_its_own(task, draft.item.id, replaced)
    meta: Mapping[str, Any] = app.read_meta(outcome.meta) if outcome.meta is not None else {"result": None}
    state = outcome.state or states.FAILURE
    value = result_of({**meta, "status": state})
    result: EagerResult[Any] = EagerResult(draft.item.id, value, state, meta.get("traceback"), name=task.name)
    if outcome.meta is not None and task.store_eager_result:
        app.backend.store([Record(id=result.id, state=state, meta=outcome.meta, expires=app.result_expires)])
    if app.conf.task_eager_propagates if throw is None else throw:
        result.maybe_throw()
    return result


def _as_its_own(task: Task[..., Any], task_id: str, replaced: EagerResult[Any]) -> EagerResult[Any]:
    """Return what became of the canvas that replaced a task as the result of the task."""
    found: EagerResult[Any] = EagerResult(task_id, replaced.result, replaced.state, replaced.traceback, name=replaced.name)
    store_eager(task, task_id, found.state, found.result, found.traceback)
    return found


def _with_following(
    app: Umbel, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
) -> EagerResult[Any]:
    """Run a call and its callbacks, errbacks and the rest of its chain."""
    rest = [as_signature(each, app) for each in reversed(options.get("chain") or ())]
    options = {key: value for key, value in options.items() if key != "chain"}
    sig: Signature[Any] = Signature(task, args, kwargs, app=app)
    found: EagerResult[Any] = run_canvas(chain.of([sig, *rest], app=app) if rest else sig, (), {}, options)
    return found
