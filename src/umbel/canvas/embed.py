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
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Following", "after_success", "as_task", "embeds", "ids_behind", "instead", "refuse_joins", "travelling", "write"]

SHOWN = 200  # characters of a canvas in the text of an error
JOINS_NEED = (
    "A part of {what} waits for several tasks (a chord, or what follows a group), and the result backend here keeps no workflows. Set "
    "result_backend to one that does, for example redis://127.0.0.1:6379/1 or postgresql://127.0.0.1/umbel: rpc:// and disabled:// do not."
)


def embeds(app: Umbel) -> bool:
    """Whether workflows of *app* travel in their messages."""
    return bool(app.conf.task_canvas_embed) or not app.backend.keeps_flows


def refuse_joins(app: Umbel, sig: Any, shown: Any = None) -> None:
    """Refuse a canvas, frozen and spread, with a join at any step, as no worker with the same backend could carry it out.

    *shown* is what the user calls it.

    With `task_canvas_embed` the workers are Celery's, and may have a backend of their own for what comes later.

    Raises:
        NotImplementedError: it has one, and the backend keeps no workflows.
    """
    if app.backend.keeps_flows:
        return
    compiler = Compiler("")
    starts = list(compiler.starts(sig))
    if sig.subtask_type == "chord" or (compiler.joins and starts and not app.conf.task_canvas_embed):
        raise NotImplementedError(JOINS_NEED.format(what=saferepr(sig if shown is None else shown, SHOWN)))


def write(app: Umbel, sig: Any, rest: Sequence[dict[str, Any]] = (), **parent: Any) -> Iterator[publish.Draft | OwnCall]:
    """Yield the messages that start *sig*, which is frozen and spread; *rest* follows it, in reverse, and *parent* was before it.

    Raises:
        NotImplementedError: it starts with a chord, and the backend keeps no workflows.
    """
    if sig.subtask_type == "chain":
        first, *later = sig.tasks
        yield from write(app, first, [*rest, *[travelling(each) for each in reversed(later)]], **parent)
    elif sig.subtask_type == "group":
        for member in sig.tasks:
            yield from write(app, member, rest, **parent)
    elif sig.subtask_type == "chord":
        yield _chord(app, sig, rest)
    else:
        yield _call(app, sig, (), rest, **parent)


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
    refuse_joins(app, sig)
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
            _expand(app, as_signature(callback, app).clone(), (value,), found, parent)
        rest = list(embed.get("chain") or ())
        if rest:
            _next_step(app, rest, (value,), found, parent)
    return found


def instead(app: Umbel, sig: Any, rest: Sequence[Any], parent: Mapping[str, Any]) -> Following:
    """Return what takes the place of a running task: *sig*, frozen and spread, and then the *rest* of the chain in its message."""
    found = Following([], [])
    steps = sig.tasks if sig.subtask_type == "chain" else [sig]
    _next_step(app, [*rest, *map(travelling, reversed(steps))], (), found, parent)
    return found


def _next_step(app: Umbel, rest: list[Any], value: Sequence[Any], found: Following, parent: Mapping[str, Any]) -> None:
    """Add the last of *rest*, which starts with *value*; the others follow it."""
    step: Signature[Any] = as_signature(rest.pop(), app).clone()
    if step.subtask_type is None:
        step.freeze()
        copy = Place(flow="", copy=uuid(), turn=nesting_of(step)) if app.backend.keeps_flows else None
        found.drafts.append(_call(app, step, value, rest, copy, **parent))
        return
    for later in reversed(rest):
        step = step | as_signature(later, app)
    _expand(app, step, value, found, parent)


def nesting_of(sig: Signature[Any]) -> int:
    """Return how often the task was replaced whose id *sig* has."""
    return sig.options.get("replaced_task_nesting") or 0


def _expand(app: Umbel, sig: Signature[Any], value: Sequence[Any], found: Following, parent: Mapping[str, Any]) -> None:
    spread(sig, value)
    result = sig.freeze()
    if result is None:
        return
    if not app.backend.keeps_flows:
        refuse_joins(app, sig)
        found.drafts.extend(write(app, sig, **parent))
        return
    compiler = Compiler(flow_beside(result.id))
    for node, place in list(compiler.starts(sig)):
        at = None if place is None else msgspec.structs.replace(place, copy=uuid(), turn=node.turn)
        found.drafts.append(call_of(app, node, at, **parent))
    if compiler.nodes or compiler.joins:
        found.flows.append(compiler)


def ids_behind(embed: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of the later steps of a chain, which fail with the task whose message has it, each with where it is waited for."""
    return dict(found for step in embed.get("chain") or () for found in _ids(as_signature(step)))


def _ids(sig: Any) -> list[tuple[str, str]]:
    if sig.subtask_type in {"chain", "group"}:
        return [found for each in sig.tasks for found in _ids(each)]
    if sig.subtask_type == "chord":
        return [found for each in (*sig.tasks, *([sig.body] if sig.body is not None else [])) for found in _ids(each)]
    return [(sig.options["task_id"], sig.options.get("reply_to") or "")] if sig.options.get("task_id") else []
