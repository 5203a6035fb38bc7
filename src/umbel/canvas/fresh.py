"""Ids of what a canvas makes: random at a client, derived in a running task, so that its second run makes the same."""

from __future__ import annotations

import uuid as stdlib_uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

from umbel.ids import uuid

__all__ = ["derived", "derived_id", "flow_beside", "flow_of", "fresh_id", "result_in"]

NAMESPACE = stdlib_uuid.UUID("5a4b6f6e-8d0a-5c58-9d0e-7a1b1c0f3e11")
LENGTH = 36  # characters of an id that is made here

_ids: ContextVar[Iterator[str] | None] = ContextVar("umbel_canvas_ids", default=None)


def fresh_id() -> str:
    """Return a new id."""
    ids = _ids.get()
    return uuid() if ids is None else next(ids)


def derived_id(parent: str, what: object) -> str:
    """Return the id of what *parent* makes at a position, or for a purpose: always the same."""
    return str(stdlib_uuid.uuid5(NAMESPACE, f"{parent} {what}"))


def flow_of(task_id: str) -> str:
    """Return under which id of a saved group the flow of a result is named whose own id was given."""
    return f"the workflow of {task_id}"


def flow_beside(result_id: str) -> str:
    """Return a new id of a flow whose result has *result_id*, which may come again."""
    return f"{result_id} {fresh_id()}"


def result_in(flow: str) -> str:
    """Return the id of the result of *flow*, as its own id tells it."""
    result_id, _, last = flow.rpartition(" ")
    return result_id if result_id and len(last) == LENGTH else flow


@contextmanager
def derived(parent: str, what: str = "") -> Iterator[None]:
    """Let all ids that are made in this block be derived from *parent*, in order."""
    token = _ids.set(derived_id(parent, f"{what}{place}") for place in count())
    try:
        yield
    finally:
        _ids.reset(token)
