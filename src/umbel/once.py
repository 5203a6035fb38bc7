"""Calls with a key, of which the broker stores the first (see `Item.once`): the options `once_key` and `once_for`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from umbel.ids import LONGEST_NAME, is_name
from umbel.wire.saferepr import saferepr

__all__ = ["key_of", "refuse_key"]


def key_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an item that these options of a call ask for.

    Raises:
        ValueError: the key is no name, or how long it is remembered is not said, or for ever.
    """
    key, seconds = options.get("once_key"), options.get("once_for")
    if key is None and seconds is None:
        return {}
    if not is_name(key):
        raise ValueError(f"once_key is {saferepr(key, 60)}. It must be a text of 1 to {LONGEST_NAME} printable characters.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"once_for is {saferepr(seconds, 60)}. Say for how many seconds the key {key!r} is remembered, as once_for=3600.")
    return {"once": key, "once_for": float(seconds)}


def refuse_key(options: Mapping[str, Any], name: str) -> None:
    """Refuse a task of a workflow that has a key: what follows a task that was left out would wait for ever.

    Raises:
        ValueError: it has one.
    """
    if options.get("once_key") is not None:
        raise ValueError(
            f"{name} is part of a workflow, or something follows it, and has once_key={saferepr(options['once_key'], 60)}. Only a single "
            "task can be left out: give the key to a task that starts the workflow."
        )
