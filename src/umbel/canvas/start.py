"""Sending a canvas: its ids are fixed, its flow is written, and then what nothing is before is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import structs

from umbel import publish
from umbel.canvas.compile import Compiler
from umbel.canvas.embed import embeds
from umbel.canvas.fresh import flow_beside
from umbel.canvas.large import split, start_chord, start_group, with_header
from umbel.canvas.launch import FLOW_HEADER, decode_place, launch, routed
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.places import any_number, follow_at
from umbel.canvas.sending import begin, has_id, name_flow, publish_as, refuse_unsendable, send
from umbel.canvas.signatures import Signature, as_signature
from umbel.canvas.spread import spread
from umbel.canvas.writing import Writer, as_task, refuse_joins, travelling
from umbel.flow import Follow

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["astart", "frozen_copy", "run", "start", "start_linked", "start_on_commit"]

HOW = ("retry", "retry_policy", "using", "producer", "add_to_parent", "arrived")  # options that say how to send, and not what


def start(sig: Signature[Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]) -> Any:
    """Send *sig* with further arguments and options; return its result."""
    if sig.subtask_type in {"chain", "group", "chord"}:
        return _start_canvas(sig, args or (), kwargs or {}, options)
    args, kwargs, options = sig._merge(args, kwargs, options)  # noqa: SLF001 - the same package
    options = routed(sig.app, options)
    task = sig._type or sig.app.known_task(sig.task)  # noqa: SLF001
    if task is not None:
        return task.apply_async(args, kwargs, **options)
    return sig.app.send_task(sig.task, args, kwargs, **options)


def _start_canvas(sig: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
    app = sig.app
    if app.conf.task_always_eager:
        return run(sig, args, kwargs, options)
    how = {key: options.pop(key) for key in HOW if key in options}
    result = _sent(app, sig, args, kwargs, options, how)
    if result is None:
        return None
    first = result
    while first.parent is not None:
        first = first.parent
    app.note_child(first, how)
    return result


def _sent(app: Umbel, sig: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any], how: dict[str, Any]) -> Any:
    as_flow = not embeds(app)
    if how.get("arrived"):  # as one message, in Celery's form: it goes on in it, but where a chord would become the same message again
        as_flow = app.backend.keeps_flows and not app.backend.is_shared_with_celery
    if sig.subtask_type == "group" and as_flow:
        return start_group(app, sig, args, kwargs, options, how)
    if sig.subtask_type == "chord" and sig.body is not None and as_flow:
        few, many = split(sig)
        if many is not None:
            return start_chord(app, sig, many, args, kwargs, options, how)
        sig = with_header(sig, few, sig.body)
    fixed = has_id(sig, options)
    frozen, result = frozen_copy(sig, args, kwargs, options)
    if result is None:
        return None
    if not as_flow:
        refuse_joins(app, frozen)
        writer = Writer(app)
        writer.add(frozen)
        writer.open_chords()
        publish_as(app, writer.calls, how)
        return result
    compiler = Compiler(flow_beside(result.id) if fixed else result.id)
    send(app, compiler, list(compiler.starts(frozen)), how)
    if fixed:
        name_flow(app, result.id, compiler)
    return result


def frozen_copy(sig: Signature[Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return a copy of *sig* with all that was said to it said to its tasks, and all ids, and its result."""
    copied = sig.clone()
    spread(copied, args, kwargs, options)
    for name in ("task_id", "group_id", "group_index"):
        if options.get(name) is not None:
            copied.options[name] = options[name]
    own = copied.options
    return copied, copied.freeze(own.get("task_id"), own.get("group_id"), None, None, None, own.get("group_index"))


# --- a single task with callbacks


def start_linked(
    app: Umbel, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], how: Mapping[str, Any]
) -> publish.Draft:
    """Send a task that something follows; return its message.

    Raises:
        NotImplementedError: the backend keeps no workflows.
    """
    sig: Signature[Any] = Signature(name, args, kwargs, app=app)
    chain = [as_signature(each, app) for each in reversed(maybe_list(options.get("chain")))]
    sig.options = {key: value for key, value in options.items() if key not in {"chain", *LINKS, *HOW}}
    for option in LINKS:
        if options.get(option):
            sig.options[option] = [as_signature(each, app).clone() for each in maybe_list(options[option])]
    sig.freeze()
    if embeds(app) or options.get("embed"):
        return _embed_linked(app, sig, chain, how)
    if FLOW_HEADER in (options.get("headers") or {}):
        return _start_within(app, sig, how)
    fixed = bool(options.get("task_id"))
    compiler = Compiler(flow_beside(sig.options["task_id"]) if fixed else sig.options["task_id"])
    behind = Follow()
    if chain:
        rest = Signature.TYPES["chain"].of([each.clone() for each in chain], app=app)  # type: ignore[attr-defined]
        spread(rest)
        rest.freeze()
        behind = compiler.behind(rest)
    (first,) = compiler.starts(sig, behind)
    draft = launch(app, first.node, first.place)
    begin(app, compiler)
    publish.publish(app, (draft,), how.get("retry"), how.get("retry_policy"), how.get("using"))
    if fixed:
        name_flow(app, draft.item.id, compiler)
    return draft


def _start_within(app: Umbel, sig: Signature[Any], how: Mapping[str, Any]) -> publish.Draft:
    """Send a task of a flow to which an `apply_async` of its own has added callbacks: what follows it in the flow still does."""
    headers = dict(sig.options.pop("headers"))
    place = decode_place(headers.pop(FLOW_HEADER))
    sig.options["headers"] = headers
    compiler = Compiler(place.flow or flow_beside(str(sig.id)), any_number)
    (first,) = compiler.starts(sig, follow_at(app, place, f"{sig.task}[{sig.id}]"))
    at = first.place and structs.replace(first.place, copy=place.copy, turn=place.turn, since=place.since)
    draft = launch(app, first.node, at)
    begin(app, compiler)
    publish.publish(app, (draft,), how.get("retry"), how.get("retry_policy"), how.get("using"))
    return draft


def _embed_linked(app: Umbel, sig: Signature[Any], chain: list[Signature[Any]], how: Mapping[str, Any]) -> publish.Draft:
    for step in chain:
        step.freeze()
    whole = Signature.TYPES["chain"].of([each.clone() for each in (sig, *chain)], app=app)  # type: ignore[attr-defined]
    spread(whole)
    whole.freeze()
    refuse_joins(app, whole, sig)
    draft = as_task(app, sig, (), [travelling(step) for step in reversed(chain)])
    publish.publish(app, (draft,), how.get("retry"), how.get("retry_policy"), how.get("using"))
    return draft


# --- the other ways to start


async def astart(sig: Signature[Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]) -> Any:
    """Do as `start` does in a thread, in the context of the caller."""
    import asyncio

    if sig.subtask_type is None and not any(sig.options.get(name) or options.get(name) for name in LINKS):
        args, kwargs, options = sig._merge(args, kwargs, options)  # noqa: SLF001
        task = sig.app.known_task(sig.task)
        if task is not None:
            return await task.aapply_async(args, kwargs, **routed(sig.app, options))
    return await asyncio.to_thread(start, sig, args, kwargs, options)


def start_on_commit(
    sig: Signature[Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, using: str | None, options: dict[str, Any]
) -> Any:
    """Send when the transaction of the database *using* commits; the ids are fixed, and what cannot be sent is refused, now."""
    from umbel.commit import canvas_on_commit

    how = {key: options.pop(key) for key in HOW if key in options}
    frozen, result = frozen_copy(sig, args or (), kwargs or {}, options)
    refuse_unsendable(sig.app, frozen)
    return canvas_on_commit(frozen, result, using, how)


def run(sig: Signature[Any], args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]) -> Any:
    """Run *sig* and what follows it here and now."""
    from umbel.canvas.eager import run_canvas  # which needs this module

    return run_canvas(sig, args or (), kwargs or {}, options)
