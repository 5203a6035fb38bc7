"""A workflow as a value: its parts, their states, and how far they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umbel import states
from umbel.meta import result_of
from umbel.result.progress import Progress, progress_of

__all__ = ["Tree", "group_tree", "steps_tree", "task_tree"]


@dataclass(frozen=True, slots=True)
class Tree:
    """A task, a group, or the steps of a chain, with what belongs to it."""

    kind: str  # task, group or chain
    id: str | None
    state: str
    name: str | None = None  # of a task, where it is known
    progress: Progress | None = None
    members: tuple[Tree, ...] = ()  # of a task: what it sent

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "progress": None if self.progress is None else self.progress.to_dict(),
            "members": [each.to_dict() for each in self.members],
        }

    def tasks(self) -> Iterator[Tree]:
        """Yield the tasks in it."""
        waiting = [self]
        while waiting:
            each = waiting.pop()
            if each.kind == "task":
                yield each
            waiting.extend(reversed(each.members))


def task_tree(task_id: str, meta: Mapping[str, Any] | None, name: str | None, members: Sequence[Tree]) -> Tree:
    """Return a task of which *meta* is stored, and what it sent."""
    meta = meta or {"status": states.PENDING}
    state = str(meta["status"])
    said = None if state in states.READY_STATES else progress_of(result_of(meta))
    return Tree("task", task_id, state, name=meta.get("name") or name, progress=said, members=tuple(members))


def group_tree(group_id: str | None, members: Sequence[Tree]) -> Tree:
    """Return parts that stand side by side."""
    return Tree("group", group_id, together([each.state for each in members]), progress=done(members), members=tuple(members))


def steps_tree(steps: Sequence[Tree]) -> Tree:
    """Return parts that follow one another; a single one is itself."""
    if len(steps) == 1:
        return steps[0]
    return Tree("chain", steps[-1].id, together([each.state for each in steps]), progress=done(steps), members=tuple(steps))


def done(members: Iterable[Tree]) -> Progress:
    counted = Counter(task.state for each in members for task in each.tasks())
    return Progress(counted[states.SUCCESS], counted.total())


def together(found: Sequence[str]) -> str:
    """Return the state of a whole from those of its parts."""
    for state in (states.FAILURE, states.REVOKED):
        if state in found:
            return state
    if all(state == states.SUCCESS for state in found):
        return states.SUCCESS
    waiting = {states.PENDING, states.UNKNOWN}
    return states.PENDING if waiting.issuperset(found) else states.STARTED
