"""The result of a group: a set with an id of its own, which can be saved; and results as tuples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from umbel import exceptions
from umbel.current import get_current_app
from umbel.result.base import ResultBase
from umbel.result.graph import DependencyGraph, graph_of, walk
from umbel.result.sets import ResultSet
from umbel.result.single import AsyncResult
from umbel.wire.serializers import encode

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.backend import ResultBackend

__all__ = ["GroupResult", "result_from_tuple"]

R = TypeVar("R")


class GroupResult(ResultSet[R]):
    """The results of the tasks of a group, in their order.

    Args:
        id: of the group.
        results: the members.
        parent: the result of what came before the group.
        app: whose backend is asked.
    """

    def __init__(
        self, id: str | None = None, results: Iterable[Any] | None = None, parent: Any = None, app: Umbel | None = None, **kwargs: Any
    ) -> None:
        del kwargs
        super().__init__(() if results is None else results, app=app)
        self.id = id
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        """The members."""
        return self.results

    # --- saving

    def save(self, backend: ResultBackend | None = None) -> None:
        """Write down which results these are, so that `restore` finds them by the id of the group; kept for `result_expires`.

        Raises:
            NotSupported: the backend keeps nothing.
            BackendUnavailable: it is away.
        """
        document = encode(self.app.conf.result_serializer, {"result": self.as_tuple()})[2]
        (backend or self.app.backend).save_group(self._id(), document, expires=self.app.result_expires)

    def delete(self, backend: ResultBackend | None = None) -> None:
        """Delete what `save` wrote; the results stay."""
        (backend or self.app.backend).delete_group(self._id())

    def _id(self) -> str:
        if self.id is None:
            raise ValueError("A group without an id cannot be saved or deleted: GroupResult(id, results).")
        return self.id

    @classmethod
    def restore(cls, id: str, backend: ResultBackend | None = None, app: Umbel | None = None) -> GroupResult[Any] | None:
        """Return the group that was saved under this id; None if there is none or it has expired.

        Raises:
            DecodeError: what is there is not the document of a group.
        """
        app = app or get_current_app()
        document = (backend or app.backend).saved_group(id)
        if document is None:
            return None
        try:
            found = result_from_tuple(app.read_stored(document)["result"], app)
        except (ValueError, TypeError, KeyError) as exc:
            raise exceptions.DecodeError(f"What is saved as the group {id} is not the document of a group: {exc}.") from exc
        return found if isinstance(found, GroupResult) else cls(id, [found], app=app)

    # --- which one it is

    def as_tuple(self) -> tuple[Any, Any]:
        """Return what `result_from_tuple` understands."""
        return (self.id, self.parent and self.parent.as_tuple()), [each.as_tuple() for each in self.results]

    def as_list(self) -> list[str | None]:
        """Return the ids, of the group first, then its parents'."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return self.id == other.id and self.results == other.results and bool(self.parent == other.parent)
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(each.id) for each in self.results)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self.results, self.parent)

    # --- what it sent

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Do as `AsyncResult.iterdeps` does."""
        return walk(self, intermediate=intermediate)

    @property
    def graph(self) -> DependencyGraph[Any]:
        """This result and all below it, each with its children."""
        return graph_of(self, intermediate=False, formatter=None)


def result_from_tuple(r: Any, app: Umbel | None = None) -> Any:
    """Rebuild a result from its tuple form, which `as_tuple` gives; JSON makes lists of it."""
    if isinstance(r, ResultBase):
        return r
    (task_id, parent), children = r
    above = None if parent is None else result_from_tuple(parent, app)
    if children is not None:
        return GroupResult(task_id, [result_from_tuple(child, app) for child in children], parent=above, app=app)
    return AsyncResult(task_id, parent=above, app=app)
