"""Celery's form of a workflow: what follows a task travels in its message, as `{callbacks, errbacks, chain, chord}`.

It is written for Celery's workers (`task_canvas_embed`), and where the result backend keeps no workflows (`canvas/writing.py`); it is read
from any producer. The `chain` stands in reverse: its last element is the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from umbel.canvas.compile import Compiler
from umbel.canvas.fresh import derived, flow_beside
from umbel.canvas.launch import call_of
from umbel.canvas.signatures import Signature, as_signature
from umbel.canvas.spread import spread
from umbel.canvas.writing import Call, Writer, freeze_parts, refuse_joins
from umbel.flow import Place
from umbel.ids import uuid

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Following", "after_success", "embeds", "goes_on_as_it_came", "ids_in"]


def embeds(app: Umbel) -> bool:
    """Whether workflows of *app* travel in their messages."""
    return bool(app.conf.task_canvas_embed) or not app.backend.keeps_flows


def goes_on_as_it_came(app: Umbel) -> bool:
    """Whether what follows a message that carries its workflow is written in that form, too, so that a worker of Celery may run it."""
    return app.backend.is_shared_with_celery or embeds(app)


class Following(NamedTuple):
    """What follows a task by its own message: flows that are to be written first, and messages."""

    flows: list[Compiler]
    written: Writer

    @property
    def drafts(self) -> list[Call]:
        """The messages, and the calls that tasks make themselves."""
        return self.written.calls


def after_success(app: Umbel, embed: Mapping[str, Any], value: Any, parent: Mapping[str, Any]) -> Following:
    """Return what follows a task that returned *value*; *parent* says which, as `launch` takes it. A second run makes the same ids.

    A next step that is a single task gets the rest of the chain in its message, so that a worker of Celery may take it.
    """

    def copy() -> Place | None:
        return Place(flow="", copy=uuid()) if app.backend.keeps_flows else None

    found = Following([], Writer(app, says=lambda _: parent, place=copy))
    with derived(parent["parent_id"], "embedded "):
        for callback in embed.get("callbacks") or ():
            _expand(app, as_signature(callback, app).clone(), value, found, parent)
        rest = list(embed.get("chain") or ())
        if rest:
            step: Signature[Any] = as_signature(rest.pop(), app).clone()
            if step.subtask_type is None:
                step.freeze()
                found.written.add(step, rest, (value,))
            else:
                for later in reversed(rest):
                    step = step | as_signature(later, app)
                _expand(app, step, value, found, parent)
    return found


def _expand(app: Umbel, sig: Signature[Any], value: Any, found: Following, parent: Mapping[str, Any]) -> None:
    spread(sig, (value,))
    result = freeze_parts(sig)
    if result is None:
        return
    if goes_on_as_it_came(app):
        refuse_joins(app, sig)
        found.written.add(sig)
        return
    compiler = Compiler(flow_beside(result.id))
    for node, place in list(compiler.starts(sig)):
        at = None if place is None else msgspec.structs.replace(place, copy=uuid(), turn=node.turn)
        found.drafts.append(call_of(app, node, at, **parent))
    if compiler.nodes or compiler.joins:
        found.flows.append(compiler)


def ids_in(steps: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the ids of the tasks in later steps, which fail with the task whose message has them, each with where it is waited for."""
    return dict(found for step in steps for found in _ids(as_signature(step)))


def _ids(sig: Any) -> list[tuple[str, str]]:
    if sig.subtask_type in {"chain", "group"}:
        return [found for each in sig.tasks for found in _ids(each)]
    if sig.subtask_type == "chord":
        return [found for each in (*sig.tasks, *([sig.body] if sig.body is not None else [])) for found in _ids(each)]
    return [(sig.options["task_id"], sig.options.get("reply_to") or "")] if sig.options.get("task_id") else []
