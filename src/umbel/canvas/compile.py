"""From a canvas to the nodes and joins of a flow, and the tasks that start it.

The canvas is compiled from its end: what is behind a task is known when the task is looked at.

The list of a join is what `get()` of its header gives: a member has one place in it, and one that ends with a group has a list there,
from a join of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import msgspec

from umbel.canvas.chords import HEADER_ID, NO_BODY, gives_value
from umbel.canvas.fresh import fresh_id
from umbel.canvas.groups import members
from umbel.canvas.mistakes import refuse_queue
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.signatures import Signature, as_signature
from umbel.canvas.spread import spread
from umbel.flow import Follow, Join, Member, Node, Part, Place
from umbel.once import refuse_key

__all__ = ["Compiler", "Start", "plain"]

NOTHING = Follow()


class Start(NamedTuple):
    """A task that nothing of the flow is before."""

    node: Node
    place: Place | None  # None: nothing follows it


class _Parts:
    """A join while its parts are being counted."""

    def __init__(self, join: int, size: int = 0) -> None:
        self.join, self.size = join, size

    def follow(self) -> Follow:
        """Return what follows the next part."""
        self.size += 1
        return Follow(parts=(Part(self.join, self.size - 1),))


Behind = Follow | _Parts


class Compiler:
    """Collects the nodes and joins of one flow.

    Args:
        flow: its id.
        number: of the next node or join; in a running task, what makes numbers that a second run makes, too.
    """

    def __init__(self, flow: str, number: Callable[[], int] | None = None) -> None:
        self.flow = flow
        self.nodes: dict[int, Node] = {}
        self.joins: dict[int, Join] = {}
        self.members: list[Member] = []  # what starts it and has no node
        self.late: list[Node] = []  # of these, what is to start late
        self._since = int(time.time())
        self._number = number or count().__next__

    def starts(self, sig: Signature[Any], behind: Follow = NOTHING) -> Iterator[Start]:
        """Compile *sig*, which is frozen and spread; yield what starts it."""
        for entry in self._build(sig, behind):
            yield Start(entry, self._place_of(entry))

    def behind(self, sig: Signature[Any]) -> Follow:
        """Compile *sig*, which is frozen and spread, as what follows something else."""
        return self._steps(self._build(sig, NOTHING))

    # A header that is compiled a batch at a time

    def join(self, group: str, body: Signature[Any]) -> int:
        """Compile the body of a chord; return the number of its join, whose size is to be said."""
        number = self._number()
        self.joins[number] = Join(size=0, group=group, follow=self.behind(body))
        return number

    def resize(self, join: int, size: int) -> None:
        """Say how many parts a join has."""
        self.joins[join] = msgspec.structs.replace(self.joins[join], size=size)

    def parts(self, header: Iterable[Signature[Any]], join: int, position: int) -> Iterator[Start]:
        """Compile some members of a header, whose parts stand from *position* on; yield what starts them."""
        parts = _Parts(join, position)
        for member in header:
            for entry in self._build(member, parts):
                yield Start(entry, self._place_of(entry))

    def clear(self) -> None:
        """Forget nodes, joins and members, which are written."""
        self.nodes, self.joins, self.members, self.late = {}, {}, [], []

    def _place_of(self, entry: Node) -> Place | None:
        follow = entry.follow
        part = follow.parts[0] if len(follow.parts) == 1 else None
        if follow != (NOTHING if part is None else Follow(parts=(part,))):
            return Place(self.flow, self._add(entry), since=self._since)
        options = entry.signature["options"]
        index = None if part is not None else options.get("group_index")
        self.members.append(Member(entry.signature["task"], entry.id, part, index))
        if options.get("countdown") or options.get("eta"):
            self.late.append(entry)
        return None if part is None else Place(self.flow, None, part)

    def next_number(self) -> int:
        """Return the number of the next node or join."""
        return self._number()

    def _add(self, entry: Node) -> int:
        number = self._number()
        self.nodes[number] = entry
        return number

    def _steps(self, entries: Iterable[Node]) -> Follow:
        return Follow(steps=tuple([self._add(entry) for entry in entries]))

    def _build(self, sig: Any, behind: Behind) -> list[Node]:
        """Return the tasks that *sig* starts with, as nodes that have no number yet."""
        kind = sig.subtask_type
        if kind in {"chain", "chord"} and isinstance(behind, _Parts):
            behind = behind.follow() if gives_value(sig) else NOTHING
        if kind == "chain":
            return self._chain(sig, behind)
        if kind == "group":
            return self._group(sig, behind)
        if kind == "chord":
            return self._chord(sig, behind)
        return [self._task(sig, behind)]

    def _task(self, sig: Signature[Any], behind: Behind) -> Node:
        follow = behind.follow() if isinstance(behind, _Parts) else behind
        refuse_key(sig.options, sig.task)
        refuse_queue(sig.options, sig.task)
        options = {key: value for key, value in sig.options.items() if key not in {"task_id", "chord", *LINKS}}
        links = [number for link in maybe_list(sig.options.get("link")) for number in self._link(as_signature(link, sig._app))]  # noqa: SLF001
        errbacks = tuple(plain(each) for each in maybe_list(sig.options.get("link_error")))
        follow = Follow(
            steps=follow.steps, parts=follow.parts, links=(*follow.links, *links), errbacks=_once((*follow.errbacks, *errbacks))
        )
        return Node(id=sig.options["task_id"], signature=plain({**sig, "options": options}), follow=follow)

    def _link(self, link: Signature[Any]) -> tuple[int, ...]:
        """Compile a callback; return the nodes that it starts with."""
        callback = link.clone()
        spread(callback)
        callback.freeze()
        return self._steps(self._build(callback, NOTHING)).steps

    def _chain(self, sig: Any, behind: Behind) -> list[Node]:
        entries: list[Node] = []
        for place, step in enumerate(reversed(sig.tasks)):
            if place and entries:
                behind = self._steps(entries)
            entries = self._build(step, behind) or entries
        return entries

    def _group(self, sig: Any, behind: Behind) -> list[Node]:
        if isinstance(behind, _Parts) or behind == NOTHING:
            return [entry for member in members(sig) for entry in self._build(member, behind)]
        return self._join(members(sig), sig.options["task_id"], [], behind)

    def _chord(self, sig: Any, behind: Behind) -> list[Node]:
        if sig.body is None:
            raise TypeError(NO_BODY)
        to_group = as_signature(sig.body).subtask_type == "group"
        return self._join(sig.tasks, sig.options[HEADER_ID], self._build(sig.body, behind), NOTHING, to_group=to_group)

    def _join(self, header: Iterable[Any], group: str, body: list[Node], behind: Follow, *, to_group: bool = False) -> list[Node]:
        parts = _Parts(self._number())
        entries = [entry for member in header for entry in self._build(member, parts)]
        if not parts.size:
            if behind.parts:
                return [_empty_list(behind)]
            return [_given_nothing(entry) for entry in body or [self.nodes[step] for step in behind.steps]]
        follow = self._steps(body) if body else behind
        to_group = to_group or len(follow.steps) > 1
        self.joins[parts.join] = Join(
            size=parts.size, group=group, follow=Follow(steps=follow.steps, parts=follow.parts), to_group=to_group
        )  # fmt: skip
        return entries


def _given_nothing(entry: Node) -> Node:
    """Return what follows an empty header: it starts at once, with an empty list."""
    signature = entry.signature
    if signature["immutable"]:
        return entry
    return Node(id=entry.id, signature={**signature, "args": [[], *signature["args"]], "immutable": True}, follow=entry.follow)


def _empty_list(behind: Follow) -> Node:
    """Return a task that gives an empty list: what a group without members does in a header, as the body of a chord there."""
    signature = {"task": "celery.accumulate", "args": [[]], "kwargs": {"index": 0}, "options": {}, "immutable": True}
    return Node(id=fresh_id(), signature=signature, follow=behind)


def _once(errbacks: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    found: list[dict[str, Any]] = []
    for errback in errbacks:
        if errback not in found:
            found.append(errback)
    return tuple(found)


def plain(value: Any) -> Any:
    """Return what JSON would make of signatures: plain dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return plain(reducer())
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
