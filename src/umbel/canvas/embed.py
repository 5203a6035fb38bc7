"""Celery's form of a workflow: what follows a task travels in its message, as `{callbacks, errbacks, chain, chord}`.

It is written for Celery's workers (`task_canvas_embed`), and where the result backend keeps no workflows; it is read from any producer.
The `chain` stands in reverse: its last element is the next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from umbel import publish
from umbel.canvas.chords import HEADER_ID
from umbel.canvas.compile import Compiler, plain
from umbel.canvas.fresh import derived, flow_beside
from umbel.canvas.launch import OwnCall, call_of, launch_options
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.signatures import Signature, as_signature
from umbel.canvas.spread import spread
from umbel.flow import Node, Place
from umbel.ids import uuid
from umbel.once import refuse_key

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Following", "after_success", "as_task", "embeds", "ids_behind", "travelling", "write"]

NO_CHORDS = (
    "Starting chords requires a result backend to be configured. Set result_backend to one that keeps workflows, for example "
    "redis://127.0.0.1:6379/1: rpc:// and disabled:// do not."
)


def embeds(app: Umbel) -> bool:
    """Whether workflows of *app* travel in their messages."""
    return bool(app.conf.task_canvas_embed) or not app.backend.keeps_flows


def write(app: Umbel, sig: Any, rest: Sequence[dict[str, Any]] = ()) -> Iterator[publish.Draft | OwnCall]:
    """Yield the messages that start *sig*, which is frozen and spread; *rest* follows it, in reverse.

    Raises:
        NotImplementedError: it starts with a chord, and the backend keeps no workflows.
    """
    if sig.subtask_type == "chain":
        first, *later = sig.tasks
        yield from write(app, first, [*rest, *[travelling(each) for each in reversed(later)]])
    elif sig.subtask_type == "group":
        for member in sig.tasks:
            yield from write(app, member, rest)
    elif sig.subtask_type == "chord":
        yield _chord(app, sig, rest)
    else:
        yield _call(app, sig, (), rest)


def travelling(sig: Any) -> dict[str, Any]:
    """Return a signature as it travels: without what only umbel says of it."""
    return _travelling(plain(sig), frozenset())


def _travelling(sig: dict[str, Any], headers: frozenset[str]) -> dict[str, Any]:
    """*headers* are the ids of the chords in whose headers it stands: who starts a chord gives it one, and keeps what members have."""
    options, kwargs = dict(sig["options"]), dict(sig["kwargs"])
    refuse_key(options, sig["task"])
    own = headers | {options.pop(HEADER_ID, "")}
    if options.get("group_id") in headers:
        options = {key: value for key, value in options.items() if key not in {"group_id", "group_index"}}
    kind = sig["subtask_type"]
    if kind in {"chain", "group"}:
        kwargs["tasks"] = [_travelling(plain(each), headers) for each in kwargs["tasks"]]
    elif kind == "chord":
        kwargs["header"] = [_travelling(plain(each), own) for each in kwargs["header"]]
        kwargs["body"] = kwargs["body"] and _travelling(plain(kwargs["body"]), headers)
    return {**sig, "options": options, "kwargs": kwargs}


def _chord(app: Umbel, sig: Any, rest: Sequence[dict[str, Any]]) -> publish.Draft:
    """Write a chord as a message of the task that starts one: the worker that takes it makes the join, in its own way."""
    if not app.backend.keeps_flows:
        raise NotImplementedError(NO_CHORDS)
    body = as_signature(sig.body)
    for step in reversed(rest):
        body = body | as_signature(step)
    own = frozenset({sig.options[HEADER_ID]})
    kwargs = {"header": [_travelling(plain(each), own) for each in sig.tasks], "body": travelling(body)}
    return _draft(app, "celery.chord", (), kwargs, {"ignore_result": True})


def as_task(app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]]) -> publish.Draft:
    """Write the message of a single task, which *rest* follows, in reverse."""
    return _draft(app, sig.task, *_said(app, sig, value, rest, None))


def _call(
    app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]], place: Place | None = None, **further: Any
) -> publish.Draft | OwnCall:
    args, kwargs, options = _said(app, sig, value, rest, place, **further)
    task = app.known_task(sig.task)
    if task is not None and task._own_call:  # noqa: SLF001 - a friend
        return OwnCall(task, args, kwargs, {**options, "add_to_parent": False})
    return _draft(app, sig.task, args, kwargs, options)


def _said(
    app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]], place: Place | None, **further: Any
) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
    refuse_key(sig.options, sig.task)
    options = {key: each for key, each in sig.options.items() if key not in {"chord", "chain", "embed", *LINKS}}
    node = Node(id=options["task_id"], signature=plain({**sig, "options": options}))
    # What is there already: an apply_async of the task's own has added to it.
    there = sig.options.get("embed") or {}
    links, errbacks = ([travelling(as_signature(each)) for each in maybe_list(sig.options.get(name))] for name in LINKS)
    embed = {
        "callbacks": [*(there.get("callbacks") or ()), *links] or None,
        "errbacks": [*(there.get("errbacks") or ()), *errbacks] or None,
        "chain": list(rest) or there.get("chain"),
        "chord": plain(sig.options.get("chord")) or there.get("chord"),
    }
    args = tuple(sig.args) if sig.immutable else (*value, *sig.args)
    return args, sig.kwargs, {**launch_options(app, node, place, **further), "embed": embed}


def _draft(app: Umbel, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> publish.Draft:
    task = app.known_task(name)
    if task is not None and not name.startswith("celery."):
        return task.draft(args, kwargs, options)
    return publish.draft(publish.plan_of(app, name, task), name, args, kwargs, options)


# --- reading


class Following(NamedTuple):
    """What follows a task by its own message: flows that are to be written first, and messages."""

    flows: list[Compiler]
    drafts: list[publish.Draft | OwnCall]


def after_success(app: Umbel, embed: Mapping[str, Any], value: Any, parent: Mapping[str, Any]) -> Following:
    """Return what follows a task that returned *value*; *parent* says which, as `launch` takes it. A second run makes the same ids.

    A next step that is a single task gets the rest of the chain in its message, so that a worker of Celery may take it.
    """
    found = Following([], [])
    with derived(parent["parent_id"], "embedded "):
        for callback in embed.get("callbacks") or ():
            _expand(app, as_signature(callback, app).clone(), value, found, parent)
        rest = list(embed.get("chain") or ())
        if rest:
            step: Signature[Any] = as_signature(rest.pop(), app).clone()
            if step.subtask_type is None:
                step.freeze()
                copy = Place(flow="", copy=uuid()) if app.backend.keeps_flows else None
                found.drafts.append(_call(app, step, (value,), rest, copy, **parent))
            else:
                for later in reversed(rest):
                    step = step | as_signature(later, app)
                _expand(app, step, value, found, parent)
    return found


def _expand(app: Umbel, sig: Signature[Any], value: Any, found: Following, parent: Mapping[str, Any]) -> None:
    spread(sig, (value,))
    result = sig.freeze()
    if result is None:
        return
    compiler = Compiler(flow_beside(result.id))
    for node, place in list(compiler.starts(sig)):
        at = None if place is None else msgspec.structs.replace(place, copy=uuid())
        found.drafts.append(call_of(app, node, at, **parent))
    if compiler.nodes or compiler.joins:
        found.flows.append(compiler)


def ids_behind(embed: Mapping[str, Any]) -> list[str]:
    """Return the ids of the later steps of a chain: they fail with the task whose message has it."""
    return [found for step in embed.get("chain") or () for found in _ids(as_signature(step))]


def _ids(sig: Any) -> list[str]:
    if sig.subtask_type in {"chain", "group"}:
        return [found for each in sig.tasks for found in _ids(each)]
    if sig.subtask_type == "chord":
        return [found for each in (*sig.tasks, *([sig.body] if sig.body is not None else [])) for found in _ids(each)]
    return [sig.options["task_id"]] if sig.options.get("task_id") else []
