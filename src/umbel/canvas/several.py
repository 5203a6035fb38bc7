"""What chains and groups have in common: they are made of several tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from umbel.canvas.signatures import Signature, as_signature

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Several"]


class Several(Signature[Any]):
    """A canvas whose tasks are one of its keyword arguments."""

    @classmethod
    @abstractmethod
    def of(cls, tasks: Iterable[Signature[Any]], app: Umbel | None = None, **options: Any) -> Self:
        """Make one of exactly these tasks."""

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Umbel | None = None) -> Signature[Any]:
        """Read a dict."""
        fields = dict(d.get("kwargs") or {})
        made = cls.of([as_signature(task, app).clone() for task in fields.pop("tasks", None) or ()], app=app)
        made.kwargs.update(fields)
        made.args, made.immutable = tuple(d.get("args") or ()), bool(d.get("immutable"))
        made.options = Signature({"options": d.get("options") or {}}).clone_options()
        return made

    @property
    def tasks(self) -> Sequence[Signature[Any]]:
        """The steps, or the members."""
        found: Sequence[Signature[Any]] = self.kwargs["tasks"]
        return found

    @tasks.setter
    def tasks(self, tasks: Iterable[Signature[Any]]) -> None:
        self.kwargs["tasks"] = list(tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    @property
    def app(self) -> Umbel:
        """Whose tasks they are: the first one's app, if it was not said."""
        return self._app or (as_signature(self.tasks[0]).app if self.tasks else super().app)
