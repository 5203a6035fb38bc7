"""Writing workflows in Celery's form: messages that carry what follows them, and chords whose parts are counted where Celery counts them.

Any worker, of umbel or of Celery, can run any message of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec import structs

from umbel import publish
from umbel.canvas.chords import HEADER_ID, count_parts
from umbel.canvas.compile import Compiler, plain
from umbel.canvas.fresh import derived_id
from umbel.canvas.groups import group as group_of
from umbel.canvas.launch import OwnCall, launch_options, routed
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.signatures import as_signature
from umbel.canvas.spread import spread
from umbel.flow import Node, Place
from umbel.moments import seconds
from umbel.once import refuse_key
from umbel.result import GroupResult
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Call", "Writer", "as_task", "become_parts", "call_of_step", "ends", "freeze_parts", "refuse_joins", "travelling"]

Call = publish.Draft | OwnCall
UNLOCK = "celery.chord_unlock"  # `builtins` has the task, and needs this module
OF_PARTS = ("group_id", "group_index")
SHOWN = 200  # characters of a canvas in the text of an error
JOINS_NEED = (
    "A part of {what} waits for several tasks (a chord, or what follows a group), and the result backend here keeps no workflows. Set "
    "result_backend to one that does, for example redis://127.0.0.1:6379/1 or postgresql://127.0.0.1/umbel: rpc:// and disabled:// do not."
)


# --- signatures as they travel


def travelling(sig: Any) -> dict[str, Any]:
    """Return a signature as it travels: without what only umbel says of it."""
    return _travelling(plain(sig), frozenset())


def _travelling(sig: dict[str, Any], headers: frozenset[str]) -> dict[str, Any]:
    """*headers* are the ids of the chords in whose headers it stands: who starts a chord gives it one, and keeps what members have."""
    options, kwargs = dict(sig["options"]), dict(sig["kwargs"])
    refuse_key(options, sig["task"])
    own = headers | {options.pop(HEADER_ID, "")}
    if options.get("group_id") in headers:
        options = {key: value for key, value in options.items() if key not in {"group_id", "group_index"}}
    kind = sig["subtask_type"]
    if kind == "group" and headers:  # the end of a member: what starts the chord gives its members the id of the header
        headers |= {options.get("task_id", "")}
    if kind in {"chain", "group"}:
        kwargs["tasks"] = [_travelling(plain(each), headers) for each in kwargs["tasks"]]
    elif kind == "chord":
        kwargs["header"] = [_travelling(plain(each), own) for each in kwargs["header"]]
        kwargs["body"] = kwargs["body"] and _travelling(plain(kwargs["body"]), headers)
    return {**sig, "options": options, "kwargs": kwargs}


# --- parts of a chord


def ends(sig: Any) -> Iterator[Any]:
    """Yield the tasks that a frozen canvas ends with, and the groups around them."""
    if sig.subtask_type == "chain":
        last = next((step for step in reversed(sig.tasks) if count_parts(step)), None)
        if last is not None:
            yield from ends(last)
    elif sig.subtask_type == "chord":
        if sig.body is not None:
            yield from ends(as_signature(sig.body))
    elif sig.subtask_type == "group":
        yield sig
        for member in sig.tasks:
            yield from ends(member)
    else:
        yield sig


def become_parts(sig: Any, body: Mapping[str, Any], group: str, place: Callable[[], int | None]) -> list[str]:
    """Say to what a frozen canvas ends with that it is a part of a chord; return the ids of the parts, in order."""
    ids = []
    for end in ends(sig):
        if end.subtask_type == "group":
            # With an id of its own: who sends a group of Celery's says for that id how many members it has.
            end.options.update(chord=body, group_id=group)
        else:
            end.options.update(chord=body, group_id=group, group_index=place())
            ids.append(end.options["task_id"])
    return ids


def freeze_parts(sig: Any) -> Any:
    """Freeze what may end with parts of a chord, and return its result.

    Who has counted the parts has given them their places: a group that they are in, too, gives them no other.
    """
    parts = [(end, {name: end.options[name] for name in OF_PARTS if name in end.options}) for end in ends(sig) if end.options.get("chord")]
    result = sig.freeze()
    for end, own in parts:
        end.options.update(own)
    return result


def _and_then(body: Any, rest: Sequence[dict[str, Any]]) -> Any:
    """Return the body of a chord with the steps that follow the chord, which stand in reverse."""
    for step in reversed(rest):
        body = body | as_signature(step)
    return body


def _body(body: Any, rest: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of a chord as its members carry it.

    It is its first task, with the later ones as an option, if it is made of tasks: so Celery's workers tell its errbacks of a failure of
    the header, and store that of the later ones.
    """
    first, *later = body.tasks if body.subtask_type == "chain" else [body]
    if first.subtask_type is not None:
        body = _and_then(body, rest)
        freeze_parts(body)
        return travelling(body)
    made = travelling(first)
    behind = [*rest, *[travelling(each) for each in reversed(later)]]
    return {**made, "options": {**made["options"], "chain": behind}} if behind else made


# --- messages


def refuse_joins(app: Umbel, sig: Any, shown: Any = None) -> None:
    """Refuse a canvas, frozen and spread, with a join at any step, as no worker with the same backend could carry it out.

    *shown* is what the user calls it.

    With `task_canvas_embed` the workers are Celery's, and may have a backend of their own for what comes later.

    Raises:
        NotImplementedError: it has one, and the backend keeps no workflows.
    """
    if app.backend.keeps_flows:
        return
    compiler = Compiler("")
    starts = list(compiler.starts(sig))
    if sig.subtask_type == "chord" or (compiler.joins and starts and not app.conf.task_canvas_embed):
        raise NotImplementedError(JOINS_NEED.format(what=saferepr(sig if shown is None else shown, SHOWN)))


class Writer:
    """Collects the messages of canvases, and the chords that are to be opened before they are published.

    Args:
        app: whose tasks they are.
        says: what else the call of a task with an id is to say, as `launch` takes it.
        place: what the header of each message says of its copy, in a worker, which may send it twice.
    """

    def __init__(
        self, app: Umbel, *, says: Callable[[str], Mapping[str, Any]] = lambda _: {}, place: Callable[[], Place | None] = lambda: None
    ) -> None:
        self.calls: list[Call] = []
        self.chords: dict[str, int] = {}  # how many parts, by the id of the header's group
        self.headers: list[GroupResult[Any]] = []  # of which a member ends with a group: what its values are nested by
        self._app, self._says, self._place = app, says, place

    def open_chords(self) -> None:
        """Say how many parts the chords have, and how their values are nested: before they can end."""
        for header in self.headers if self._app.backend.counts_celery_chords else ():
            header.save()
        for group, size in self.chords.items():
            self._app.backend.open_celery_chord(group, size, expires=seconds(self._app.conf.umbel_flow_expires))

    def add(self, sig: Any, rest: Sequence[dict[str, Any]] = (), value: Sequence[Any] = ()) -> None:
        """Write what starts *sig*, which is frozen and spread; *rest* follows it, in reverse.

        Raises:
            NotImplementedError: it starts with a chord, and the backend keeps no workflows.
        """
        if sig.subtask_type == "chain":
            first, *later = sig.tasks
            self.add(first, [*rest, *[travelling(each) for each in reversed(later)]])
        elif sig.subtask_type == "group":
            for member in sig.tasks:
                self.add(member, rest)
        elif sig.subtask_type == "chord":
            self._chord(sig, rest)
        else:
            self.calls.append(self._call(sig, value, rest))

    def _chord(self, sig: Any, rest: Sequence[dict[str, Any]]) -> None:
        backend, group, body = self._app.backend, sig.options[HEADER_ID], as_signature(sig.body)
        refuse_joins(self._app, sig)
        if not backend.is_shared_with_celery:
            self._as_message(sig, _and_then(body, rest), group)
        elif not any(map(count_parts, sig.tasks)):
            spread(body, ([],))
            self.add(body, rest)
        else:
            self._members(sig, _body(body, rest), group)

    def _members(self, sig: Any, body: dict[str, Any], group: str) -> None:
        results = group_of(list(sig.tasks), app=self._app).freeze(group)
        if any(isinstance(each, GroupResult) for each in results.results):
            self.headers.append(results)
        places = count()
        parts = [each for member in sig.tasks for each in become_parts(member, body, group, places.__next__)]
        for member in sig.tasks:
            self.add(member)
        if self._app.backend.counts_celery_chords:
            self.chords[group] = len(parts)
        else:
            self.calls.append(self._unlock(body, group, parts))

    def _as_message(self, sig: Any, body: Any, group: str) -> None:
        """Write a chord as a message of the task that starts one, for umbel's workers, which make the join in their own way."""
        own = frozenset({group})
        kwargs = {"header": [_travelling(plain(each), own) for each in sig.tasks], "body": travelling(body)}
        self.calls.append(_draft(self._app, "celery.chord", (), kwargs, {"ignore_result": True, **self._says("")}))

    def _unlock(self, body: Mapping[str, Any], group: str, parts: Sequence[str]) -> publish.Draft:
        """Write the message of the task that looks again and again whether a header has ended."""
        queue = body["options"].get("queue")
        task = body
        while queue is None and task["subtask_type"] in {"chain", "group"} and task["kwargs"]["tasks"]:
            task = task["kwargs"]["tasks"][0]
            queue = task["options"].get("queue")
        app = self._app
        where = {"queue": queue} if queue else routed(app, {"route_name": task["task"]})
        options = launch_options(
            app, Node(id=derived_id(group, "unlock"), signature={"options": {"countdown": app.conf.result_chord_retry_interval, **where}}),
            self._place(), **self._says(""),
        )  # fmt: skip
        kwargs = {"interval": None, "max_retries": None, "result": [[[each, None], None] for each in parts]}
        return _draft(app, UNLOCK, (group, body), kwargs, options)

    def _call(self, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]]) -> Call:
        """Write a task; the step that has the id of a task that was replaced is another turn of it."""
        place, turn = self._place(), sig.options.get("replaced_task_nesting") or 0
        if place is not None and turn:
            place = structs.replace(place, turn=turn)
        return call_of_step(self._app, sig, value, rest, place, **self._says(sig.options["task_id"]))


def as_task(app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]]) -> publish.Draft:
    """Write the message of a single task, which *rest* follows, in reverse."""
    return _draft(app, sig.task, *_said(app, sig, value, rest, None))


def call_of_step(
    app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]], place: Place | None = None, **further: Any
) -> Call:
    """Do as `as_task` does, with what `launch` takes; of a task that has an `apply_async` of its own, return the call of that."""
    args, kwargs, options = _said(app, sig, value, rest, place, **further)
    task = app.known_task(sig.task)
    if task is not None and task._own_call:  # noqa: SLF001 - a friend
        return OwnCall(task, args, kwargs, {**options, "add_to_parent": False})
    return _draft(app, sig.task, args, kwargs, options)


def _said(
    app: Umbel, sig: Any, value: Sequence[Any], rest: Sequence[dict[str, Any]], place: Place | None, **further: Any
) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
    refuse_key(sig.options, sig.task)
    options = {key: each for key, each in sig.options.items() if key not in {"chord", "chain", "embed", *LINKS}}
    node = Node(id=options["task_id"], signature=plain({**sig, "options": options}))
    # What is there already: an apply_async of the task's own has added to it.
    there = sig.options.get("embed") or {}
    links, errbacks = ([travelling(as_signature(each)) for each in maybe_list(sig.options.get(name))] for name in LINKS)
    embed = {
        "callbacks": [*(there.get("callbacks") or ()), *links] or None,
        "errbacks": [*(there.get("errbacks") or ()), *errbacks] or None,
        "chain": list(rest) or there.get("chain"),
        "chord": plain(sig.options.get("chord")) or there.get("chord"),
    }
    args = tuple(sig.args) if sig.immutable else (*value, *sig.args)
    return args, sig.kwargs, {**launch_options(app, node, place, **further), "embed": embed}


def _draft(app: Umbel, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> publish.Draft:
    task = app.known_task(name)
    if task is not None and not name.startswith("celery."):
        return task.draft(args, kwargs, options)
    return publish.draft(publish.plan_of(app, name, task), name, args, kwargs, options)
