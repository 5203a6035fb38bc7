"""group: side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from umbel.canvas.fresh import fresh_id
from umbel.canvas.options import LINKS, maybe_list
from umbel.canvas.regen import Regen, regen
from umbel.canvas.several import Several
from umbel.canvas.signatures import Signature, as_signature
from umbel.result import GroupResult

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["group", "members"]


@Signature.register_type("group")
class group(Several):  # noqa: N801 - Celery's name
    """Tasks that run side by side.

    Args:
        tasks: signatures, or one iterable of them; a generator is asked for each member only when it is sent.
        app: whose tasks they are.
        options: of all members.
    """

    def __init__(self, *tasks: Any, app: Umbel | None = None, **options: Any) -> None:
        found: Any = tasks
        if len(tasks) == 1 and isinstance(tasks[0], Iterable) and not _is_single(tasks[0]):
            found = tasks[0]
        if isinstance(found, group):
            app, found = app or found._app, [task.clone() for task in found.tasks]  # noqa: SLF001
        if isinstance(found, list | tuple):
            found = [as_signature(task, app) for task in found]
        elif not isinstance(found, Regen):
            found = (as_signature(task, app) for task in found)
        super().__init__("celery.group", (), {"tasks": regen(found)}, options, subtask_type="group", app=app)

    @classmethod
    def of(cls, tasks: Iterable[Signature[Any]], app: Umbel | None = None, **options: Any) -> Self:
        """Make a group of these tasks."""
        return cls(list(tasks), app=app, **options)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(partial_args, **options)

    def apply_async(  # type: ignore[override]
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> GroupResult[Any]:
        """Send all members with further arguments and options.

        Raises:
            TypeError: a callback or errback is given: nothing says when it would be due.
        """
        if link is not None:
            raise TypeError("A group has no value that a callback could start with. Make it a chord: group(...) | callback.")
        if link_error is not None:
            raise TypeError("Of a group each member fails by itself. Put the errback on all of them: group(...).on_error(errback).")
        result: Any = super().apply_async(args, kwargs, route_name, **options)
        found: GroupResult[Any] = result
        return found

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Let the members start one after the other: countdowns from *start* on, by *step*, again from *start* after *stop*."""
        at = start
        for task in self.tasks:
            task.set(countdown=at)
            at += step
            if stop is not None and at >= stop:
                at = start
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether the members take further arguments."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Let *callback*, without the value, follow the first member."""
        return self.tasks[0].link(callback.clone().set(immutable=True)) if self.tasks else None

    def link_error(self, errback: Any) -> Any:
        """Let a copy of *errback* follow each member that fails; return the copies."""
        return tuple(task.link_error(as_signature(errback).clone()) for task in self.tasks)

    def _copied_kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {**kwargs, "tasks": [as_signature(task, self._app).clone() for task in kwargs["tasks"]]}

    def _parts(self) -> Iterator[Signature[Any]]:
        self.tasks = [as_signature(task, self._app) for task in self.tasks]
        yield from self.tasks

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give each member its id; return a GroupResult. Members of groups inside are members."""
        self.options["task_id"] = own = self.options.get("task_id") or _id or fresh_id()
        if group_id is not None:  # inside of another
            self.options.update(group_id=group_id, group_index=group_index)
        self.tasks = found = list(members(self))
        places = count()
        frozen = (task.freeze(None, own, chord, root_id, parent_id, next(places)) for task in found)
        results = [result for result in frozen if result is not None]  # of an empty chain there is none
        return GroupResult(own, results, app=self._app)

    _freeze = freeze

    def __repr__(self) -> str:
        tasks = self.tasks
        return f"group({tasks!r})" if isinstance(tasks, Regen) else f"group([{', '.join(map(repr, tasks))}])"


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and not isinstance(value, group))


def members(of: Any) -> Iterator[Signature[Any]]:
    """Yield the members of a group as they run: groups inside are flattened, and what is said to a group is said to its members."""
    tasks = of.tasks
    for task in tasks.each() if isinstance(tasks, Regen) else tasks:
        member = as_signature(task, of._app)  # noqa: SLF001 - the same package
        if member.subtask_type == "group":
            for each in members(member):
                yield _with(each, member)
        else:
            yield member


def _with(sig: Signature[Any], outer: Signature[Any]) -> Signature[Any]:
    """Return *sig* with the arguments and options of the group *outer*."""
    options = {key: value for key, value in outer.options.items() if key not in {"task_id", "group_id", "group_index", *LINKS}}
    if not (outer.args or options or outer.options.get("link_error")):
        return sig
    changed = sig.clone(outer.args, **options)
    for errback in maybe_list(outer.options.get("link_error")):
        changed.link_error(as_signature(errback).clone())
    return changed
