"""Which result may be written over which. Redis has the same rules in Lua; the conformance suite holds them together."""

from __future__ import annotations

from umbel.backend import Record
from umbel.states import READY_STATES, SUCCESS

__all__ = ["may_replace"]


def may_replace(record: Record, state: str, fence: int) -> bool:
    """Answer whether *record* may be written over a result with this *state* and *fence* that has not expired."""
    if state == SUCCESS or 0 < record.fence < fence:
        return False
    unfinished_over_final = state in READY_STATES and record.state not in READY_STATES
    return not (unfinished_over_final and record.fence == fence != 0)
