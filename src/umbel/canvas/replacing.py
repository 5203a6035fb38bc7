"""`Task.replace` and `Task.add_to_chord`: a running task puts another canvas in its place, or further members into its chord.

All ids are derived from the id of the running task, so a second run of it makes the same. What is sent twice starts once: the messages name
a copy, and the backend lets one copy start.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from umbel import publish
from umbel.canvas.compile import Compiler
from umbel.canvas.embed import embeds, goes_on_as_it_came
from umbel.canvas.fresh import derived, fresh_id
from umbel.canvas.launch import FLOW_HEADER, OwnCall, call_of, decode_place
from umbel.canvas.options import LINKS
from umbel.canvas.patience import patiently
from umbel.canvas.places import any_number, follow_at
from umbel.canvas.sending import begin, publish_as
from umbel.canvas.signatures import as_signature
from umbel.canvas.spread import spread
from umbel.canvas.writing import Writer, become_parts
from umbel.exceptions import Ignore, ImproperlyConfigured
from umbel.flow import Follow, Node, Part, Place
from umbel.ids import uuid
from umbel.moments import seconds

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.context import Context
    from umbel.task import Task

__all__ = ["add_to_chord", "eager_replacements", "replace"]

# What eager tasks were replaced with, by their id; None: no eager call runs here.
eager_replacements: ContextVar[dict[str, Any] | None] = ContextVar("umbel_eager_replacements", default=None)


def replace(task: Task[..., Any], sig: Any) -> NoReturn:
    """Put *sig* in the place of the running task.

    Raises:
        Ignore: always: the worker ends this run and stores nothing.
        ImproperlyConfigured: *sig* is a chord without a body.
        Retry: a server stayed away: the task is attempted again.
    """
    request = task.request
    sig = _as_one(task, as_signature(sig, task.app).clone())
    stamps = {} if request.stamped_headers is None else {name: (request.stamps or {}).get(name) for name in request.stamped_headers}
    if stamps:
        sig.stamp(**{**stamps, "stamped_headers": list(stamps)})
    if request.is_eager:
        _run_instead(request, sig)

    def send() -> None:
        with derived(request.id or "", f"replaced {request.replaced_task_nesting} "):
            _send_instead(task, request, sig.clone())

    patiently(task, send)
    raise Ignore("Replaced by new task")


def _as_one(task: Task[..., Any], sig: Any) -> Any:
    """Return a canvas with one last task: that of a group gives the list of the values."""
    if sig.subtask_type == "chord" and sig.body is None:
        raise ImproperlyConfigured(f"{task.name}: a chord without a body cannot replace a task. Give it one: chord(header, body).")
    last = sig
    while last.subtask_type in {"chain", "chord"}:
        last = last.tasks[-1] if last.subtask_type == "chain" else last.body
    if last.subtask_type == "group":
        return sig | task.app.signature("celery.accumulate", kwargs={"index": 0})
    return sig


def _run_instead(request: Context, sig: Any) -> NoReturn:
    found = sig.apply(throw=False)
    replacements = eager_replacements.get()
    assert replacements is not None, "an eager task runs in call_eagerly"
    replacements[request.id or ""] = found
    raise Ignore("Replaced by new task")


def _send_instead(task: Task[..., Any], request: Context, sig: Any) -> None:
    app = task.app
    text = request.get(FLOW_HEADER)
    place = None if text is None else decode_place(text)
    follow = follow_at(app, place, f"{task.name}[{request.id}]")
    spread(sig)
    for option in LINKS:  # of a message that carries what follows it
        for each in request.get({"link": "callbacks", "link_error": "errbacks"}[option]) or ():
            _last(sig).append_to_list_option(option, as_signature(each, app))
    sig.freeze(request.id, request.group, None, request.root_id, request.parent_id, request.group_index)
    last = _last(sig)
    last.options.update(task_id=request.id, replaced_task_nesting=request.replaced_task_nesting + 1)
    if request.reply_to:  # there the caller waits, where results are messages
        last.options["reply_to"] = request.reply_to
    if (place is None or not place.flow) and _carries_on(app, request):
        _send_embedded(app, request, sig, request.chain or ())
    else:
        _send_in_flow(app, request, sig, (place and place.flow) or request.id or fresh_id(), follow)


def _send_in_flow(app: Umbel, request: Context, sig: Any, flow: str, follow: Follow) -> None:
    """Send what takes the place of a task as a part of *flow*."""
    compiler = Compiler(flow, any_number)
    drafts = []
    for node, at in list(compiler.starts(sig, follow)):
        again = msgspec.structs.replace(at, copy=uuid(), turn=request.replaced_task_nesting + 1) if at is not None else None
        drafts.append(call_of(app, node, again, **_parentage(request, node.id)))
    begin(app, compiler)
    publish_as(app, drafts, {})


def _carries_on(app: Umbel, request: Context) -> bool:
    """Whether what takes the place of a task goes on in Celery's form."""
    if request.chain or request.chord or embeds(app):
        return True
    return bool(request.callbacks or request.errbacks) and goes_on_as_it_came(app)


def _send_embedded(app: Umbel, request: Context, sig: Any, rest: Sequence[Any] = ()) -> None:
    """Send a part of the chord in whose message the running task stands; *rest* follows it, in reverse."""

    def copy() -> Place | None:
        return Place(flow="", copy=uuid()) if app.backend.keeps_flows else None

    if request.chord:
        become_parts(sig, request.chord, request.group or "", lambda: request.group_index)
    writer = Writer(app, says=lambda task_id: _parentage(request, task_id), place=copy)
    writer.add(sig, rest)
    writer.open_chords()
    publish_as(app, writer.calls, {})


def _parentage(request: Context, task_id: str | None) -> dict[str, Any]:
    """Return what was before a task that stands in for the running one: if it has its id, what was before that."""
    return {"root_id": request.root_id or request.id, "parent_id": request.id if task_id != request.id else request.parent_id}


def _last(sig: Any) -> Any:
    while sig.subtask_type in {"chain", "chord"}:
        sig = sig.tasks[-1] if sig.subtask_type == "chain" else sig.body
    return sig


def add_to_chord(task: Task[..., Any], sig: Any, lazy: bool) -> Any:
    """Let the join that the running task is a part of wait for *sig*, too; send it unless *lazy*."""
    return task.add_trail(patiently(task, lambda: _add(task, as_signature(sig, task.app).clone(), lazy)))


def _add(task: Task[..., Any], copied: Any, lazy: bool) -> Any:
    app, request = task.app, task.request
    text = request.get(FLOW_HEADER)
    place = None if text is None else decode_place(text)
    with derived(request.id or "", f"added {len(request.children)} "):
        spread(copied)
        if request.chord and (place is None or not place.flow):
            return _add_to_celerys(task, copied, lazy)
        follow = follow_at(app, place, f"{task.name}[{request.id}]")
        if place is None or not follow.parts:
            raise ValueError("Current task is not member of any chord")
        join = follow.parts[0].join
        result = copied.freeze(None, request.group, None, request.root_id, request.id)
        position = app.backend.grow(place.flow, join, 1, key=compiled_id(copied))
        if position is None:
            raise _over(task)
        compiler = Compiler(place.flow, any_number)
        starts = list(compiler.starts(copied, Follow(parts=(Part(join, position),))))
        begin(app, compiler)
    if not lazy:
        publish_as(app, [_copy(app, node, at) for node, at in starts], {})
    return result


def _over(task: Task[..., Any]) -> ValueError:
    return ValueError(f"The chord of {task.name}[{task.request.id}] is over: it takes no further members.")


def _add_to_celerys(task: Task[..., Any], sig: Any, lazy: bool) -> Any:
    """Do as `add_to_chord` does with a chord whose parts are counted in Celery's keys."""
    app, request = task.app, task.request
    sig = _as_one(task, sig)
    result = sig.freeze(None, request.group, None, request.root_id, request.id, request.group_index)
    if not app.backend.grow_celery_chord(request.group or "", result.id, expires=seconds(app.conf.result_expires)):
        raise _over(task)
    if not lazy:
        _send_embedded(app, request, sig)
    return result


def compiled_id(sig: Any) -> str:
    """Return the id of what ends a frozen canvas."""
    return str(_last(sig).options["task_id"])


def _copy(app: Any, node: Node, place: Place | None) -> publish.Draft | OwnCall:
    return call_of(app, node, None if place is None else msgspec.structs.replace(place, copy=uuid()))
