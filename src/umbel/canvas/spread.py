"""What is said to a canvas, at its making or at the call, is said to its tasks.

chain    arguments and options to the first step, callbacks to the last, errbacks to each
group    all to each member
chord    arguments and options to each member, options also to the body, but not when to start; callbacks and errbacks to the body
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.canvas.chords import HEADER_ID
from umbel.canvas.groups import group, members
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.signatures import as_signature
from umbel.canvas.unite import prepared

__all__ = ["spread"]

# Options that name the canvas itself, or its place; they stay where they are.
ITS_OWN = frozenset({"task_id", "group_id", "group_index", "chord", HEADER_ID})
OF_HEADER = frozenset({"countdown", "eta", "interval", "max_retries"})
# A signature's arguments that are no arguments, but what the canvas is made of.
MADE_OF = frozenset({"tasks", "kwargs", "header", "body"})


def spread(sig: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> None:
    """Say to the tasks of *sig*, which is the caller's own, what was said to it, and *args*, *kwargs* and *options*."""
    kind = sig.subtask_type
    if kind not in {"chain", "group", "chord"}:
        sig.args, sig.kwargs, sig.options = sig._merge(args, kwargs, options)  # noqa: SLF001 - the same package
        return
    args = sig.args if sig.immutable else (*args, *sig.args)
    own = {key: value for key, value in sig.kwargs.items() if key not in MADE_OF}
    kwargs = {**own, **(sig.kwargs.get("kwargs") or {}), **({} if sig.immutable else kwargs or {})}
    said = sig._merge((), None, options)[2]  # noqa: SLF001
    sig.args, sig.kwargs = (), {key: value for key, value in sig.kwargs.items() if key in MADE_OF - {"kwargs"}}
    sig.options = {key: value for key, value in said.items() if key in ITS_OWN}
    links, errbacks = (maybe_list(said.get(name)) for name in LINKS)
    further = {key: value for key, value in said.items() if key not in ITS_OWN and key not in LINKS}
    SPREADERS[kind](sig, args, kwargs, further, links, errbacks)


def _to_chain(sig: Any, args: Any, kwargs: Any, options: dict[str, Any], links: list[Any], errbacks: list[Any]) -> None:
    sig.tasks = steps = prepared([as_signature(task, sig._app) for task in sig.tasks])  # noqa: SLF001
    for place, step in enumerate(steps):
        for errback in errbacks:
            step.link_error(as_signature(errback).clone())
        if place == len(steps) - 1:
            for link in links:
                step.link(as_signature(link).clone())
        if place == 0:
            spread(step, args, kwargs, options)
        else:
            spread(step)


def _to_group(sig: Any, args: Any, kwargs: Any, options: dict[str, Any], links: list[Any], errbacks: list[Any]) -> None:
    sig.tasks = list(members(sig))
    for link in links:
        sig.link(as_signature(link))
    for errback in errbacks:
        sig.link_error(errback)
    for member in sig.tasks:
        spread(member, args, kwargs, options)


def _to_chord(sig: Any, args: Any, kwargs: Any, options: dict[str, Any], links: list[Any], errbacks: list[Any]) -> None:
    sig.body = None if sig.body is None else as_signature(sig.body, sig._app)  # noqa: SLF001
    sig.tasks = list(members(group(list(sig.tasks), app=sig._app)))  # noqa: SLF001
    for link in links:
        sig.link(as_signature(link).clone())
    for errback in errbacks:
        sig.link_error(as_signature(errback).clone())
    for member in sig.tasks:
        spread(member, args, kwargs, {key: value for key, value in options.items() if key not in OF_HEADER - {"countdown", "eta"}})
    if sig.body is not None:
        spread(sig.body, (), {}, {key: value for key, value in options.items() if key not in OF_HEADER})


SPREADERS = {"chain": _to_chain, "group": _to_group, "chord": _to_chord}
