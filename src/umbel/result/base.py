"""What is known of one task by its id."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from umbel import exceptions, states
from umbel.current import get_current_app
from umbel.meta import result_of
from umbel.result.aside import to_thread
from umbel.result.progress import Progress, progress_of

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.backend import ResultBackend
    from umbel.result.tree import Tree

__all__ = ["ResultBase", "Stored"]

R = TypeVar("R")

_BLANK: Mapping[str, Any] = {"status": states.PENDING, "result": None, "traceback": None, "children": None}
_UNKNOWN: Mapping[str, Any] = {**_BLANK, "status": states.UNKNOWN}


class ResultBase:
    """What results of tasks and of groups are."""

    parent: Any = None

    if TYPE_CHECKING:  # what each of them has

        def ready(self) -> bool: ...  # noqa: D102
        def successful(self) -> bool: ...  # noqa: D102
        def failed(self) -> bool: ...  # noqa: D102
        def forget(self) -> None: ...  # noqa: D102
        def revoke(self, connection: Any = None, terminate: bool = False, signal: str | int | None = None) -> None: ...  # noqa: D102

    async def aready(self) -> bool:
        """Do as `ready` does without blocking the event loop."""
        return await to_thread(self.ready)

    async def asuccessful(self) -> bool:
        """Do as `successful` does without blocking the event loop."""
        return await to_thread(self.successful)

    async def afailed(self) -> bool:
        """Do as `failed` does without blocking the event loop."""
        return await to_thread(self.failed)

    async def aforget(self) -> None:
        """Do as `forget` does without blocking the event loop."""
        await to_thread(self.forget)

    async def arevoke(self, terminate: bool = False, signal: str | int | None = None) -> None:
        """Do as `revoke` does without blocking the event loop."""
        await to_thread(self.revoke, terminate=terminate, signal=signal)

    def tree(self) -> Tree:
        """Return the workflow as it can be seen from here, also while it runs: members, states, progress."""
        from umbel.result.looking import tree_of  # it is made of these

        return tree_of(self)


class Stored(ResultBase, Generic[R]):
    """The part of a result that is read from the backend; a final state is read once."""

    TimeoutError: ClassVar[type[Exception]] = exceptions.TimeoutError

    ignored = False
    supports_native_join = True  # every backend of ours answers for many ids at once

    def __init__(
        self,
        id: str,
        backend: ResultBackend | None = None,
        task_name: str | None = None,
        app: Umbel | None = None,
        parent: ResultBase | None = None,
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.id = id
        self.parent = parent
        self._app = app
        self._backend = backend
        self._task_name = task_name
        self._meta: Mapping[str, Any] | None = None  # kept once it is final

    @property
    def task_id(self) -> str:
        """The id, under its older name."""
        return self.id

    @task_id.setter
    def task_id(self, value: str) -> None:
        self.id = value

    @property
    def app(self) -> Umbel:
        """The app whose backend is asked."""
        return self._app or get_current_app()

    @property
    def backend(self) -> ResultBackend:
        """The backend that is asked."""
        return self._backend or self.app.backend

    # --- what is known

    @property
    def name_given(self) -> str | None:
        """The name of the task, if who made this result knew it."""
        return self._task_name

    def _get_task_meta(self) -> Mapping[str, Any]:
        """Return what is known of it; packages for Celery ask so."""
        return self._known()

    def _known(self) -> Mapping[str, Any]:
        if self._meta is not None:
            return self._meta
        return self._take(self.backend.get([self.id])[0])

    def _take(self, data: bytes | None) -> Mapping[str, Any]:
        if data is None:
            return _UNKNOWN if self.app.conf.result_honest_states else _BLANK
        meta = self.app.read_meta(data)
        if meta.get("status") in states.READY_STATES:
            self._meta = meta
        return meta

    def document(self) -> Mapping[str, Any]:
        """Return all that is known, as it is stored."""
        return self._known()

    def told(self) -> dict[str, Any]:
        """Return the document, with the value or the exception in it."""
        meta = self._known()
        return {**meta, "result": result_of(meta)}

    @property
    def is_settled(self) -> bool:
        """Is it known already how it ended?"""
        return self._meta is not None

    def known_with(self, data: bytes | None) -> Mapping[str, Any]:
        """Return what is known, given the document that was read for it."""
        return self._take(data) if self._meta is None else self._meta

    def take(self, id: str, data: bytes) -> bool:  # noqa: ARG002 - as those who wait for many give it
        """Read a document that came; answer whether it is the last."""
        self._take(data)
        return self._meta is not None

    @property
    def state(self) -> str:
        """The state; PENDING if nothing is stored (with `result_honest_states` that is UNKNOWN)."""
        return str(self._known()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The value, the exception, or what the task said of itself with `update_state`."""
        return result_of(self._known())

    info = result

    @property
    def traceback(self) -> str | None:
        """The text of the traceback."""
        return cast("str | None", self._known().get("traceback"))

    @property
    def children(self) -> list[ResultBase] | None:
        """The results of the tasks and groups that this one sent."""
        from umbel.result.groups import result_from_tuple  # groups are made of these

        children = self._known().get("children")
        return None if children is None else [result_from_tuple(child, self._app) for child in children]

    @property
    def progress(self) -> Progress | None:
        """How far the task is, as it said with `self.progress(…)`; None if it said nothing. All of it once it has succeeded."""
        meta = self._known()
        if meta["status"] == states.SUCCESS:
            return Progress(1, 1)
        return None if meta["status"] in states.READY_STATES else progress_of(meta.get("result"))

    @property
    def date_done(self) -> datetime | None:
        """When it ended."""
        text = self._known().get("date_done")
        return datetime.fromisoformat(text) if isinstance(text, str) else text

    @property
    def name(self) -> str | None:
        """The name of the task; with `result_extended`."""
        name: str | None = self._known().get("name", self._task_name)
        return name

    @property
    def args(self) -> Any:
        """The positional arguments; with `result_extended`."""
        return self._known().get("args")

    @property
    def kwargs(self) -> Any:
        """The keyword arguments; with `result_extended`."""
        return self._known().get("kwargs")

    @property
    def worker(self) -> str | None:
        """The node that ran it; with `result_extended`."""
        return self._known().get("worker")

    @property
    def retries(self) -> int | None:
        """How often it was retried; with `result_extended`."""
        return self._known().get("retries")

    @property
    def queue(self) -> str | None:
        """The queue it came from; with `result_extended`."""
        return self._known().get("queue")

    def ready(self) -> bool:
        """Has it ended?"""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Has it ended well?"""
        return self.state == states.SUCCESS

    def failed_or_revoked(self) -> bool:
        """Does `get` raise?"""
        return self.state in states.PROPAGATE_STATES

    def failed(self) -> bool:
        """Has it ended with an exception?"""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Is anything stored for this id?"""
        return self._meta is not None or self.backend.get([self.id])[0] is not None

    # --- which one it is

    def as_tuple(self) -> tuple[Any, Any]:
        """Return what `result_from_tuple` understands."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the ids, this one first, then its parents'."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Stored):
            return bool(self.id == other.id)
        return bool(self.id == other) if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, None, self._task_name, None, self.parent)
