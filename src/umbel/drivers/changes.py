"""What the stores of schedules have in common: which rows a mark is answered with, and how they become a page."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.schedule_store import Changes, Row

__all__ = ["begins_anew", "changes_of"]


def begins_anew(mark: int, *, last: int, floor: int) -> bool:
    """Answer whether *mark* is answered with all rows from the first on: none is known, or too little.

    Args:
        mark: of who asks; below zero, it has got a part of all rows.
        last: the mark of the last change.
        floor: the mark of the last removal that is forgotten.
    """
    return not (-last <= mark < 0 or max(floor, 1) <= mark <= last)


def changes_of(found: Sequence[tuple[int, str, bytes | None]], *, mark: int, more: bool, last: int, whole: bool) -> Changes:
    """Make the answer to *mark* of mark, name and text (None: removed) of what was found; *more*: there is more than that."""
    if more:
        reached = found[-1][0]
        last = -reached if whole or mark < 0 else reached
    rows = [Row(name, text) for _, name, text in found if text is not None]
    return Changes(last, rows, [name for _, name, text in found if text is None], more, whole)
