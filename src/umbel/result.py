"""Results: what is known of a task by its id."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar, cast

from umbel import exceptions, states
from umbel.current import get_current_app
from umbel.joining import allow_join_result, assert_will_not_block, denied_join_result
from umbel.meta import result_of

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.backend import ResultBackend

__all__ = ["AsyncResult", "EagerResult", "allow_join_result", "assert_will_not_block", "denied_join_result", "result_from_tuple"]

R = TypeVar("R")

SLICE = 5.0  # seconds: the longest single wait for the backend
AWAY = 30.0  # seconds without an answer of the backend after which get() gives up
PAUSE = 0.5  # seconds between attempts while it is away

_BLANK: Mapping[str, Any] = {"status": states.PENDING, "result": None, "traceback": None, "children": None}


class AsyncResult(Generic[R]):
    """The result of one task, wherever it runs."""

    TimeoutError: ClassVar[type[Exception]] = exceptions.TimeoutError

    ignored = False
    supports_native_join = True  # every backend of ours answers for many ids at once

    def __init__(
        self,
        id: str,
        backend: ResultBackend | None = None,
        task_name: str | None = None,
        app: Umbel | None = None,
        parent: AsyncResult[Any] | None = None,
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

    def _known(self) -> Mapping[str, Any]:
        if self._meta is not None:
            return self._meta
        return self._take(self.backend.get([self.id])[0])

    def _take(self, data: bytes | None) -> Mapping[str, Any]:
        if data is None:
            return _BLANK
        meta = self.app.read_meta(data)
        if meta.get("status") in states.READY_STATES:
            self._meta = meta
        return meta

    @property
    def state(self) -> str:
        """The state; PENDING if the id is unknown."""
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
    def children(self) -> list[AsyncResult[Any]] | None:
        """The results of the tasks that this one sent."""
        children = self._known().get("children")
        return None if children is None else [result_from_tuple(child, self._app) for child in children]

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

    def failed(self) -> bool:
        """Has it ended with an exception?"""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Is anything stored for this id?"""
        return self._meta is not None or self.backend.get([self.id])[0] is not None

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,  # noqa: ARG002 - Celery's name; backends wake us
        no_ack: bool = True,  # noqa: ARG002
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[Mapping[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait until the task ends, and return its value or raise its exception.

        Args:
            timeout: seconds to wait at most.
            propagate: False returns the exception instead.
            interval: has no effect, the backend tells when there is news.
            no_ack: has no effect.
            follow_parents: raise the exception of a parent that failed.
            callback: called with the id and the value.
            on_message: called with each new document.
            on_interval: called after each bounded wait.
            disable_sync_subtasks: False allows waiting inside a task.

        Raises:
            TimeoutError: it did not end in time; it goes on running. This is `umbel.exceptions.TimeoutError`.
            BackendUnavailable: the backend stayed away.
            RuntimeError: waiting for a task inside a task.
        """
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if follow_parents and propagate:
            self._throw_parents()
        if self._meta is None:
            self._wait(timeout, on_message, on_interval)
        return self._answer(propagate, callback)

    wait = get

    def _throw_parents(self) -> None:
        parents = []
        node = self.parent
        while node is not None:
            parents.append(node)
            node = node.parent
        for parent in reversed(parents):
            parent.maybe_throw()

    def _wait(self, timeout: float | None, on_message: Callable[..., Any] | None, on_interval: Callable[[], Any] | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        answered = time.monotonic()
        seen: bytes | None = None
        span = 0.0
        while True:
            try:
                data = self.backend.wait(self.id, seen, span)
            except exceptions.BackendUnavailable:
                if time.monotonic() - answered > AWAY or (deadline is not None and time.monotonic() > deadline):
                    raise
                time.sleep(PAUSE)
                continue
            answered = time.monotonic()
            if data != seen:
                seen = data
                meta = self._take(data)
                if on_message is not None:
                    on_message(meta)
            if self._meta is not None:
                return
            span = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
            if span <= 0:
                raise exceptions.TimeoutError("The operation timed out.")
            if on_interval is not None:
                on_interval()

    def _answer(self, propagate: bool, callback: Callable[[str, Any], Any] | None = None) -> R:
        value = self.result
        if propagate:
            self.maybe_throw()
        if callback is not None:
            callback(self.id, value)
        return cast("R", value)

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: ASYNC109 - as get()
        """Do as `get` does without blocking the event loop."""
        if self.ignored:
            return cast("R", None)
        if self._meta is None:
            try:
                self._take(await self.app.watcher.ended(self.id, timeout))
            except TimeoutError:
                raise exceptions.TimeoutError("The operation timed out.") from None
        return self._answer(propagate)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's exception if it failed or was revoked; return what there is."""
        meta = self._known()
        value = result_of(meta)
        if meta["status"] in states.PROPAGATE_STATES and propagate:
            self.throw(value)
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def throw(self, exc: Any, tb: Any = None) -> NoReturn:  # noqa: ARG002 - Celery's signature
        """Raise *exc*."""
        raise exc if isinstance(exc, BaseException) else Exception(exc)

    # --- doing

    def forget(self) -> None:
        """Delete what is stored of it and of its parents."""
        self._meta = None
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget([self.id])

    def revoke(
        self,
        connection: Any = None,  # noqa: ARG002 - Celery's name; the app has its own
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
    ) -> None:
        """Tell all workers, also those that start later, not to run this task. Durable when it returns.

        Args:
            connection: has no effect.
            terminate: also end it if it runs.
            signal: with what, a name or a number; SIGTERM by default.
            wait: has no effect: no worker needs to answer.
            timeout: has no effect.

        Raises:
            BrokerUnavailable: it may not be revoked; to repeat the call is safe.
        """
        self.app.control.revoke(self.id, terminate=terminate, signal=signal)

    def as_tuple(self) -> tuple[Any, None]:
        """Return what `result_from_tuple` understands."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the ids, this one first, then its parents'."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(self.id == other.id)
        return bool(self.id == other) if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return result_from_tuple, (self.as_tuple(),)


class EagerResult(AsyncResult[R]):
    """The result of a task that ran where it was called."""

    supports_native_join = False

    def __init__(self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None) -> None:
        super().__init__(id, task_name=name)
        self._meta = {"status": state, "result": ret_value, "traceback": traceback, "children": None}

    def get(self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True, **kwargs: Any) -> R:  # type: ignore[override]
        """Return the value or raise the exception."""
        del timeout, kwargs
        if disable_sync_subtasks:
            assert_will_not_block()
        self._refuse_to_wait()
        return self._answer(propagate)

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: ASYNC109 - as get()
        """Return the value or raise the exception."""
        del timeout
        self._refuse_to_wait()
        return self._answer(propagate)

    def take_over(self, ran: EagerResult[R]) -> None:
        """Take over what became of a call that ran after this result was returned."""
        self._meta = ran._known()

    def _refuse_to_wait(self) -> None:
        if self.state == states.PENDING:
            raise RuntimeError(
                f"{self._task_name}[{self.id}] has not run: with task_always_eager it runs when the transaction commits, here. "
                "Ask after that; in a TestCase of Django that is captureOnCommitCallbacks(execute=True)."
            )

    def forget(self) -> None:
        """Nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Say that it was revoked; it has run already."""
        del args, kwargs
        self._meta = {**self._known(), "status": states.REVOKED, "result": exceptions.TaskRevokedError("revoked")}

    def __reduce__(self) -> tuple[Any, ...]:
        meta = self._known()
        return type(self), (self.id, meta["result"], meta["status"], meta["traceback"], self._task_name)

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"


def result_from_tuple(r: Any, app: Umbel | None = None) -> AsyncResult[Any]:
    """Rebuild a result from its tuple form."""
    if isinstance(r, AsyncResult):
        return r
    (task_id, parent), children = r
    if children is not None:
        raise exceptions.NotSupported(f"{task_id} is the result of a group: groups come with a later version of umbel.")
    return AsyncResult(task_id, app=app, parent=result_from_tuple(parent, app) if parent else None)
