"""What all drivers accept: which result may be written over which, and when a message may be due.

Redis has the rules of results in Lua; the conformance suite holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from umbel.backend import Record
from umbel.broker import Item
from umbel.exceptions import NotSupported
from umbel.states import READY_STATES, SUCCESS

__all__ = ["may_replace", "refuse_odd_times", "refuse_once", "refuse_using"]


def may_replace(record: Record, state: str, fence: int) -> bool:
    """Answer whether *record* may be written over a result with this *state* and *fence* that has not expired."""
    if state == SUCCESS or 0 < record.fence < fence:
        return False
    unfinished_over_final = state in READY_STATES and record.state not in READY_STATES
    return not (unfinished_over_final and record.fence == fence != 0)


def refuse_odd_times(items: Sequence[Item]) -> None:
    """Refuse *items* to publish, before one of them is stored, if one is due at no time at all."""
    for item in items:
        if item.due is not None and math.isnan(item.due):
            raise ValueError(f"The due time of {item.id} is nan. Give seconds since the epoch, or None for now.")
        if item.once and not 0 < item.once_for < math.inf:
            raise ValueError(f"The key {item.once!r} of {item.id} is remembered for {item.once_for} s. Give a number of seconds above 0.")


def refuse_once(items: Sequence[Item], driver: str) -> None:
    """Refuse *items* to publish, before one of them is stored, if one has a key: the driver *driver* remembers none."""
    for item in items:
        if item.once:
            raise NotSupported(
                f"The {driver} broker cannot leave out a message whose key it has seen ({item.once!r}): it remembers none. Use "
                "redis://, postgresql:// or sqlite:// as the broker, or send without once_key."
            )


def refuse_using(using: object, driver: str) -> None:
    """Refuse to publish inside a transaction of the caller's: the driver *driver* keeps its messages elsewhere."""
    if using is not None:
        raise NotSupported(
            f"The {driver} broker cannot send inside a transaction of {type(using).__module__}.{type(using).__qualname__}. Use "
            "delay_on_commit() with Django, or a broker in that database (postgresql://)."
        )
