"""chunks, map and starmap: one task for each of many arguments, in one message or in few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from umbel.canvas.groups import group
from umbel.canvas.mistakes import calls_in
from umbel.canvas.regen import Regen, regen
from umbel.canvas.signatures import Signature, as_signature

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["chunks", "xmap", "xstarmap"]


def _inner(task: Any, app: Umbel | None) -> tuple[Signature[Any], Umbel | None]:
    """Return the signature of the task that is called for each, and whose it is."""
    inner: Signature[Any] = task if isinstance(task, Signature) else Signature(task)
    return inner, app or inner._app or (None if inner._type is None else inner._type._app)  # noqa: SLF001 - the same package


class _Map(Signature[Any]):
    """One message that calls a task for each of *it*."""

    task_name = ""

    def __init__(self, task: Any, it: Iterable[Any], app: Umbel | None = None, **options: Any) -> None:
        inner, app = _inner(task, app)
        super().__init__(self.task_name, (), {"task": inner, "it": regen(calls_in(it))}, options, immutable=True, app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Umbel | None = None) -> Signature[Any]:
        """Read a dict."""
        made = cls(as_signature(d["kwargs"]["task"], app), d["kwargs"]["it"], app=app)
        made.options = Signature({"options": d.get("options") or {}}).clone_options()
        return made

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, route_name: str | None = None, **options: Any
    ) -> Any:
        """Send it to where the task goes."""
        return super().apply_async(args, kwargs, route_name or self.kwargs["task"]["task"], **options)

    def __repr__(self) -> str:
        return f"[{self.kwargs['task']['task']}({'*x' if self.task_name == 'celery.starmap' else 'x'}) for x in {self.kwargs['it']!r}]"


class xmap(_Map):  # noqa: N801 - Celery's name
    """`task(x)` for each x, in one message."""

    task_name = "celery.map"


class xstarmap(_Map):  # noqa: N801 - Celery's name
    """`task(*x)` for each x, in one message."""

    task_name = "celery.starmap"


class chunks(Signature[Any]):  # noqa: N801 - Celery's name
    """`task(*x)` for each x of *it*, *n* of them in one message."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, app: Umbel | None = None, **options: Any) -> None:
        if n < 1:
            raise ValueError(f"Chunks have 1 or more calls each, not {n}.")
        inner, app = _inner(task, app)
        super().__init__("celery.chunks", (), {"task": inner, "it": regen(calls_in(it)), "n": n}, options, immutable=True, app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Umbel | None = None) -> Signature[Any]:
        """Read a dict."""
        fields = d["kwargs"]
        return cls(as_signature(fields["task"], app), fields["it"], fields["n"], app=app, **(d.get("options") or {}))

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, route_name: str | None = None, **options: Any
    ) -> Any:
        """Send a group of `starmap`, which go to where the task goes."""
        return self.group().apply_async(args, kwargs, route_name or self.kwargs["task"]["task"], **options)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and now."""
        return self.group().apply(args, kwargs, **options)

    def group(self) -> group:
        """Return the group of `starmap`."""
        return group(self._chunks(), app=self._app, **self.options)

    def _chunks(self) -> Iterator[xstarmap]:
        it, task = self.kwargs["it"], self.kwargs["task"]
        source = iter(it.each() if isinstance(it, Regen) else it)
        while part := list(islice(source, self.kwargs["n"])):
            yield xstarmap(task.clone(), part, app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Umbel | None = None) -> Self:
        """Make one and send it."""
        result: Self = cls(task, it, n, app=app)()
        return result
