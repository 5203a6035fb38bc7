"""chain: one after the other, each with the value of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

from umbel.canvas.several import Several
from umbel.canvas.signatures import KEYS, Signature, as_signature
from umbel.canvas.unite import joined, prepared

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["chain"]


@Signature.register_type("chain")
class chain(Several):  # noqa: N801 - Celery's name
    """Steps, each of which starts with the value of the one before. `chain(a, b, c)` is `a | b | c`, so it may be a chord.

    Args:
        tasks: signatures, or one iterable of them.
        options: of the first task.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """Fold the tasks."""
        if len(tasks) == 1 and isinstance(tasks[0], Iterable) and not isinstance(tasks[0], Mapping | str):
            tasks = tuple(tasks[0])
        app = options.pop("app", None)
        steps = [as_signature(task, app) for task in tasks]
        if options:
            return cls.of(steps, app=app, **options)
        return reduce(joined, (step.clone() for step in steps), cls.of([], app=app))

    def __init__(self, *tasks: Any, **options: Any) -> None:
        """All is done in `__new__`, which may return something else."""

    @classmethod
    def of(cls, tasks: Iterable[Signature[Any]], app: Umbel | None = None, **options: Any) -> Self:
        """Make a chain of exactly these steps."""
        made = dict.__new__(cls)
        steps = list(tasks)
        dict.__init__(made, zip(KEYS, ("celery.chain", (), {"tasks": steps}, dict(options), "chain", False), strict=True))
        made._app = app or (steps[0]._app if steps else None)  # noqa: SLF001
        return made

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(partial_args, partial_kwargs) if self.tasks else None

    def unchain_tasks(self) -> list[Signature[Any]]:
        """Return copies of the steps, with the callbacks and errbacks of the chain."""
        tasks = [task.clone() for task in self.tasks]
        for link in self.options.get("link") or ():
            tasks[-1].link(as_signature(link).clone())
        for task in tasks:
            for errback in self.options.get("link_error") or ():
                task.link_error(as_signature(errback).clone())
        return tasks

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
        """Give each step its id; return the result of the last, whose parents are those before. None: there is no step."""
        self.tasks = steps = prepared(list(self._parts()))
        before: Any = None
        for place, step in enumerate(steps):
            if place == len(steps) - 1:
                result = step.freeze(self.options.get("task_id") or _id, group_id, chord, root_id, parent_id, group_index)
            else:
                result = step.freeze(root_id=root_id, parent_id=parent_id)
            parent_id = None
            first = result
            while first.parent is not None:
                first = first.parent
            first.parent, before = before, result
        return before

    _freeze = freeze

    def __repr__(self) -> str:
        if not self.tasks:
            return "chain()"
        return f"%{self.task}({' | '.join(map(repr, self.tasks))})"
