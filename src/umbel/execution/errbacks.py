"""Errbacks are messages: what they carry, and how the worker that runs one calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from umbel.app import Umbel
from umbel.canvas.errbacks import is_new_style
from umbel.context import Context
from umbel.exceptions import DecodeError
from umbel.execution.followup import Ending, errback_id
from umbel.flow import Node
from umbel.wire import failures
from umbel.wire import message as wire
from umbel.wire.jsontypes import dumps, loads
from umbel.wire.saferepr import saferepr

__all__ = ["arguments_of", "errback_node"]

COMPILED = frozenset({"task_id", "chain", "chord", "link", "link_error"})  # options that are said otherwise, or not of the message
KEPT = 20_000  # characters at the end of a traceback
TOLD = ("task", "id", "root_id", "parent_id", "group", "retries", "argsrepr", "kwargsrepr", "origin", "stamps", "stamped_headers", "shadow")
ACCEPTED = frozenset({"application/json"})
LARGEST = 10_000  # bytes of a body whose arguments an errback is given, too


def errback_node(
    app: Umbel, signature: Mapping[str, Any], ending: Ending, position: int, exc: BaseException, traceback: str | None
) -> tuple[Node, tuple[Any, ...]]:
    """Return the node of the message that tells *signature* of a failure, and what its task is called with."""
    options = {name: value for name, value in (signature.get("options") or {}).items() if name not in COMPILED}
    value: tuple[Any, ...] = (ending.id,)
    if is_new_style(app.tasks.get(str(signature.get("task")))):
        value = ()
        if not signature.get("immutable"):
            told = {"request": _request(ending), "exc": failures.describe(exc), "traceback": traceback and traceback[-KEPT:]}
            options["headers"] = {**(options.get("headers") or {}), "umbel_errback": dumps(told)}
    return Node(id=errback_id(ending.id, position, signature), signature={**signature, "options": options}), value


def _request(ending: Ending) -> dict[str, Any]:
    """Return what an errback is told of the call that failed."""
    told: dict[str, Any] = {"id": ending.id, "task": ending.task, "root_id": ending.root or ending.id, "args": [], "kwargs": {}}
    if ending.raw:
        try:
            message = wire.decode(ending.raw)
            told.update({name: message.headers[name] for name in TOLD if message.headers.get(name) is not None})
            if len(message.body) <= LARGEST:
                told["args"], told["kwargs"], _ = wire.payload(message, ACCEPTED)
        except Exception as exc:  # noqa: BLE001 - whatever the message holds, its failure is told
            told["argsrepr"] = saferepr(exc)
    return told


def arguments_of(request: Context) -> list[Any]:
    """Return the arguments that the header `umbel_errback` says to put before the others.

    Raises:
        DecodeError: it cannot be read.
    """
    told = loads((request.umbel_errback or "").encode())
    try:
        return [Context(told["request"]), failures.rebuild(told["exc"]), told.get("traceback")]
    except (LookupError, TypeError, AttributeError, msgspec.ValidationError) as exc:
        raise DecodeError(f"The header umbel_errback is {saferepr(told, 60)}, which tells of no failure.") from exc
