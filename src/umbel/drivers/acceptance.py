"""What all drivers accept: which result may be written over which, and when a message may be due.

Redis has the rules of results in Lua; the conformance suite holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from umbel.backend import Record
from umbel.broker import Item
from umbel.states import READY_STATES, SUCCESS

__all__ = ["may_replace", "refuse_odd_times"]


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
