"""When the members of a set have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.result.base import Stored

__all__ = ["Ends", "tasks_in", "value_of"]


class Ends:
    """Which members of a set have ended, told from the ends of tasks: a member that is a set has ended when all in it have."""

    def __init__(self, members: Sequence[Any], on_message: Callable[..., Any] | None) -> None:
        self._on_message = on_message
        self.tasks: dict[str, list[Stored[Any]]] = {}  # that have not ended, as far as is known
        self._positions: dict[str, list[int]] = {}
        self._left: list[int] = []
        for position, member in enumerate(members):
            open_tasks = [each for each in tasks_in(member) if not each.is_settled and not each.ignored]
            self._left.append(len(open_tasks))
            for each in open_tasks:
                self.tasks.setdefault(each.id, []).append(each)
                self._positions.setdefault(each.id, []).append(position)
        self.over = [position for position, left in enumerate(self._left) if left == 0]

    def take(self, id: str, document: bytes) -> bool:
        """Give a document to the results that it is for; answer whether it is the last."""
        over = all([each.take(id, document) for each in self.tasks[id]])  # noqa: C419 - each of them takes it
        if self._on_message is not None:
            self._on_message(self.tasks[id][0].known_with(document))
        return over

    def note(self, id: str) -> list[int]:
        """Return the positions of the members that have ended with this task."""
        over = []
        for position in self._positions[id]:
            self._left[position] -= 1
            if self._left[position] == 0:
                over.append(position)
        return over


def tasks_in(member: Any) -> list[Stored[Any]]:
    """Return the results of single tasks in a member."""
    return [task for each in member.results for task in tasks_in(each)] if hasattr(member, "results") else [member]


def value_of(member: Any, *, propagate: bool) -> Any:
    """Return the value of a member that has ended, or raise its exception."""
    if hasattr(member, "results"):
        return [value_of(each, propagate=propagate) for each in member.results]
    return None if member.ignored else member.maybe_throw(propagate=propagate)
