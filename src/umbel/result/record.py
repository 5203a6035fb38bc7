"""The record of a workflow as a tree: what has not started is seen, too.

The record says what follows what. A tree is drawn from its ends back to where it began: before a node is the one that it follows; before a
join are its parts, side by side, each drawn back to where the others come from, too: the *fork*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from umbel import states
from umbel.backend import JoinProgress, ResultBackend
from umbel.canvas.records import decode_head, decode_join, decode_members, decode_node
from umbel.exceptions import DecodeError
from umbel.flow import Join, Member, Node, Part
from umbel.result.progress import Progress
from umbel.result.tree import Tree, group_tree, steps_tree

__all__ = ["MOST", "FlowRecord"]

MOST = 10_000  # tasks in one tree
STEP = 500  # nodes read at once

Draw = Callable[[str, "str | None", Sequence[Tree]], Tree]


class _Task(NamedTuple):
    id: str


class _Join(NamedTuple):
    number: int


class _Side(NamedTuple):
    """Ends that stand side by side."""

    ends: tuple[_Task | _Join, ...]
    group: str | None
    join: int | None = None


class _Fork(NamedTuple):
    """Where what is drawn comes from, together with others."""

    origin: _Task | _Join
    entries: frozenset[int]  # the nodes that are drawn of those it starts


class FlowRecord:
    """What is known of one workflow."""

    def __init__(
        self, nodes: dict[int, Node], joins: dict[int, Join], members: Sequence[Member], progress: dict[int, JoinProgress]
    ) -> None:
        self._joins, self._progress = joins, progress
        self.names: dict[str, str | None] = {each.id: each.name for each in members}  # of the tasks, by their ids
        self._versions: dict[str, list[int]] = {}  # of a task that was replaced there are several nodes, the first of them is the oldest
        self._groups: dict[str, str] = {}
        self._indices = {each.id: each.index or 0 for each in members}
        self._before: dict[int, _Task | _Join] = {}
        self._entries: dict[_Task | _Join, set[int]] = {}
        self._links: dict[int, str] = {}  # the first nodes of callbacks, and the task that they follow
        self._parts: dict[int, dict[int, _Task | _Join]] = {}
        self._inner = set[_Task | _Join]()  # what something follows
        for number, node in sorted(nodes.items(), key=lambda pair: (pair[1].turn, pair[0])):
            self._add_node(number, node)
        for number, join in joins.items():
            self._add_edges(_Join(number), join.follow.steps, join.follow.parts)
        for member in members:
            self._add_edges(_Task(member.id), (), (member.part,) if member.part is not None else ())
        self._ends, self._callbacks = self._sorted_ends()

    @classmethod
    def read(cls, backend: ResultBackend, flow: str, accept: frozenset[str]) -> FlowRecord | None:
        """Read the record of *flow*; None if there is none."""
        nodes, members = dict[int, Node](), list[Member]()
        numbers = backend.node_numbers(flow)[:MOST]
        for start in range(0, len(numbers), STEP):
            some = numbers[start : start + STEP]
            for number, data in zip(some, backend.nodes([(flow, each) for each in some]), strict=True):
                if data is not None:
                    _sort_in(number, data, nodes, members, accept)
        if not nodes and not members:
            return None
        progress = backend.progress(flow)
        joins = {}
        for number, data in zip(progress, backend.join_data([(flow, each) for each in progress]), strict=True):
            try:
                joins[number] = decode_join(data or b"")
            except DecodeError:
                continue  # what it holds together is drawn side by side
        return cls(nodes, joins, members[:MOST], progress)

    # What follows what

    def _add_node(self, number: int, node: Node) -> None:
        self.names[node.id] = node.signature.get("task") or self.names.get(node.id)
        self._versions.setdefault(node.id, []).append(number)
        options = node.signature.get("options") or {}
        if options.get("group_id"):
            self._groups.setdefault(node.id, options["group_id"])
            self._indices.setdefault(node.id, options.get("group_index") or 0)
        self._add_edges(_Task(node.id), node.follow.steps, node.follow.parts)
        for link in node.follow.links:
            self._links[link] = node.id

    def _add_edges(self, origin: _Task | _Join, steps: Iterable[int], parts: Iterable[Part]) -> None:
        for step in steps:
            self._before[step] = origin
            self._entries.setdefault(origin, set()).add(step)
            self._inner.add(origin)
        for part in parts:
            if part.join in self._joins:
                self._parts.setdefault(part.join, {}).setdefault(part.position, origin)
                self._inner.add(origin)

    def _sorted_ends(self) -> tuple[list[_Task], dict[str, list[_Task]]]:
        """Return what nothing follows, and what of that belongs to callbacks, by the task that they follow."""
        ends, callbacks = list[_Task](), dict[str, list[_Task]]()
        for task_id in self.names:
            if _Task(task_id) not in self._inner:
                owner = self._owner(_Task(task_id))
                (ends if owner is None else callbacks.setdefault(owner, [])).append(_Task(task_id))
        return sorted(ends, key=lambda end: self._indices.get(end.id, 0)), callbacks

    def _owner(self, end: _Task | _Join) -> str | None:
        """Return the task whose callback *end* belongs to."""
        seen = set[_Task | _Join]()
        while end not in seen:
            seen.add(end)
            if isinstance(end, _Join):
                parts = self._parts.get(end.number)
                if not parts:
                    return None
                end = parts[min(parts)]
            elif versions := self._versions.get(end.id):
                if versions[0] in self._links:
                    return self._links[versions[0]]
                end = self._before.get(versions[0], end)
        return None

    @property
    def first(self) -> str:
        """The id of one of the tasks that it begins with."""
        end: _Task | _Join = self._ends[0] if self._ends else _Task(next(iter(self.names)))
        seen = set[_Task | _Join]()
        while end not in seen:
            seen.add(end)
            if isinstance(end, _Join):
                parts = self._parts.get(end.number) or {0: end}
                end = parts[min(parts)]
            elif versions := self._versions.get(end.id):
                end = self._before.get(versions[0], end)
        return end.id if isinstance(end, _Task) else next(iter(self.names))

    # Drawing

    def draw(self, draw: Draw) -> list[Tree]:
        """Return the steps that it consists of, of tasks that *draw* makes of an id, a name and callbacks."""
        return self._back(self._side(self._ends), draw)[0]

    def _side(self, ends: Sequence[_Task]) -> _Task | _Side:
        return ends[0] if len(ends) == 1 else _Side(tuple(ends), self._groups.get(ends[0].id) if ends else None)

    def _back(self, end: _Task | _Join | _Side, draw: Draw) -> tuple[list[Tree], _Fork | None]:
        """Draw *end* and what is before it, until where it comes from together with others."""
        found, fork = list[Tree](), None
        waiting: list[_Task | _Join | _Side | int] = [end]
        while waiting and len(found) < MOST:
            each = waiting.pop()
            if isinstance(each, int):  # a node of the task that was drawn last
                fork = self._fork(each)
            elif isinstance(each, _Task):
                found.append(self._drawn_task(each.id, draw))
                waiting += self._versions.get(each.id, ())  # the newest first: its way leads to where the replacement began
            elif isinstance(each, _Join):
                parts = self._parts.pop(each.number, {})  # each is drawn once, whatever the record says
                waiting.append(_Side(tuple(parts[at] for at in sorted(parts)), self._joins[each.number].group, each.number))
            else:
                tree, fork = self._drawn_side(each, draw)
                found.append(tree)
            if fork is not None and fork.entries >= self._entries.get(fork.origin, {None}):
                waiting.append(fork.origin)
                fork = None
        return found[::-1], fork

    def _fork(self, number: int) -> _Fork | None:
        origin = self._before.get(number)
        return None if origin is None else _Fork(origin, frozenset((number,)))

    def _drawn_task(self, task_id: str, draw: Draw) -> Tree:
        callbacks = self._callbacks.pop(task_id, ())
        return draw(task_id, self.names.get(task_id), [steps_tree(self._back(each, draw)[0]) for each in callbacks])

    def _drawn_side(self, side: _Side, draw: Draw) -> tuple[Tree, _Fork | None]:
        members, forks = list[Tree](), list[_Fork]()
        for end in side.ends:
            steps, fork = self._back(end, draw)
            members.append(steps_tree(steps))
            if fork is not None:
                forks.append(fork)
        tree = group_tree(side.group, members)
        if side.join is not None and (progress := self._progress.get(side.join)) is not None:
            tree = _with_progress(tree, progress)
        if not forks:
            return tree, None
        return tree, _Fork(forks[0].origin, frozenset().union(*(each.entries for each in forks if each.origin == forks[0].origin)))


def _sort_in(number: int, data: bytes, nodes: dict[int, Node], members: list[Member], accept: frozenset[str]) -> None:
    """Read what stands at *number*; of a task in a form that is not accepted, where it stands; nothing, if it is rubbish."""
    try:
        found = decode_members(data)
        if found is not None:
            members += found
            return
        nodes[number] = decode_node(data, accept)
    except Exception:  # noqa: BLE001 - rubbish may raise anything
        try:
            nodes[number] = decode_head(data)
        except DecodeError:
            return


def _with_progress(tree: Tree, join: JoinProgress) -> Tree:
    """Return a group with what its join knows of it: of tasks whose results are ignored nothing else does."""
    if join.failed is not None:
        return dataclasses.replace(tree, state=states.FAILURE)
    if join.done >= join.size:
        return dataclasses.replace(tree, state=states.SUCCESS)
    if join.done and tree.state == states.PENDING:
        return dataclasses.replace(tree, state=states.STARTED, progress=Progress(join.done, join.size))
    return tree
