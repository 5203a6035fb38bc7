"""The results of many tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from umbel import exceptions, states
from umbel.current import get_current_app
from umbel.joining import assert_will_not_block
from umbel.result.aside import to_thread
from umbel.result.base import ResultBase, Stored
from umbel.result.ends import Ends, tasks_in, value_of
from umbel.result.progress import Progress
from umbel.result.promises import fulfil, promise
from umbel.result_wait import aended, ended, read

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.backend import ResultBackend

__all__ = ["ResultSet"]

R = TypeVar("R")
Callback = Callable[[str, Any], Any] | None


class ResultSet(ResultBase, Generic[R]):  # noqa: PLW1641 - it changes, so it has no hash
    """Results that are asked and waited for together; a member may be a set, too.

    Args:
        results: the members, in order.
        app: whose backend is asked; by default that of the first member.
        ready_barrier: has no effect: who waits is told when all have ended.
    """

    def __init__(self, results: Iterable[Any], app: Umbel | None = None, ready_barrier: Any = None) -> None:
        del ready_barrier
        self._app = app
        self.results: list[Any] = list(results)

    # --- members

    def add(self, result: Any) -> None:
        """Add a member, unless it is one."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a member, or the one that has this id.

        Raises:
            KeyError: it is none.
        """
        try:
            self.results.remove(self._member_of_id(result) if isinstance(result, str) else result)
        except ValueError:
            raise KeyError(result) from None

    def _member_of_id(self, id: str) -> Any:
        return next((each for each in self.results if each == id), id)

    def discard(self, result: Any) -> None:
        """Remove a member if it is one."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add members, but those that are."""
        there = set(self.results)
        self.results.extend(each for each in dict.fromkeys(results) if each not in there)

    def clear(self) -> None:
        """Remove all members."""
        self.results.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(each.id) for each in self.results)}]>"

    @property
    def app(self) -> Umbel:
        """The app whose backend is asked."""
        if self._app is None:
            self._app = self.results[0].app if self.results else get_current_app()
        return self._app

    @app.setter
    def app(self, app: Umbel) -> None:
        self._app = app

    @property
    def backend(self) -> ResultBackend:
        """The backend that is asked."""
        found: ResultBackend = self.results[0].backend if self.results else self.app.backend
        return found

    @property
    def supports_native_join(self) -> bool:
        """Can all members be asked for at once?"""
        return all(each.supports_native_join for each in self.results)

    def tasks_of(self) -> dict[str, Stored[Any]]:
        """Return the results of single tasks in it, by id, those in members that are sets, too."""
        return {each.id: each for each in tasks_in(self)}

    # --- what is known: read for all members at once

    def metas(self) -> list[Mapping[str, Any]]:
        """Return what is known of each task, read in steps of 500."""
        members = self.tasks_of()
        ids = [task_id for task_id, each in members.items() if not each.is_settled]
        found = dict(zip(ids, read(self.backend, ids, 0.0), strict=True)) if ids else {}
        return [each.known_with(found.get(task_id)) for task_id, each in members.items()]

    def _states(self) -> list[str]:
        return [str(meta["status"]) for meta in self.metas()]

    def ready(self) -> bool:
        """Have all ended?"""
        return all(state in states.READY_STATES for state in self._states())

    def successful(self) -> bool:
        """Have all ended well?"""
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        """Has one ended with an exception?"""
        return states.FAILURE in self._states()

    def failed_or_revoked(self) -> bool:
        """Does `get` raise?"""
        return not states.PROPAGATE_STATES.isdisjoint(self._states())

    def waiting(self) -> bool:
        """Is there one that has not ended?"""
        return not self.ready()

    def completed_count(self) -> int:
        """Return how many have ended well."""
        return self._states().count(states.SUCCESS)

    @property
    def progress(self) -> Progress:
        """How many of its tasks have ended well."""
        found = self._states()
        return Progress(found.count(states.SUCCESS), len(found))

    def maybe_throw(self, callback: Callback = None, propagate: bool = True) -> None:
        """Raise the exception of the first member that failed or was revoked."""
        self.metas()
        for each in self.results:
            each.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # --- doing

    def forget(self) -> None:
        """Delete what is stored of all members."""
        for each in self.results:
            each.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run what has not started; the arguments are those of `AsyncResult.revoke`.

        Raises:
            BrokerUnavailable: some may not be revoked; to repeat the call is safe.
        """
        del connection, wait, timeout
        if ids := list(self.tasks_of()):
            self.app.control.revoke(ids, terminate=terminate, signal=signal)

    def revoke_by_stamped_headers(self, headers: Mapping[str, Any], *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: workers know revoked tasks by their ids.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        raise exceptions.NotSupported(
            f"Tasks cannot be revoked by their stamps ({', '.join(map(str, headers))}). Use revoke() of this set."
        )

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Self:
        """Call *callback* with this set when all have ended well, *on_error* if one has not; see `AsyncResult.then`."""
        left = [task_id for task_id, each in self.tasks_of().items() if not each.is_settled]
        if left:
            promise(self, left, callback, on_error, weak=weak)
        else:
            fulfil(self, callback, on_error)
        return self

    def take(self, id: str, data: bytes) -> bool:
        """Read a document that came for a member; answer whether it is the last."""
        member = self.tasks_of().get(id)
        return member is None or member.take(id, data)

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback = None,
        no_ack: bool = True,
        on_message: Callable[[Mapping[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R] | None:
        """Wait until all have ended, and return their values in the order of the members, or raise the exception of one.

        Args:
            timeout: seconds to wait for all of them together.
            propagate: False puts exceptions in the list.
            interval: has no effect, the backend tells when there is news.
            callback: called with the id and the value of each; then None is returned.
            no_ack: has no effect.
            on_message: called with each new document.
            disable_sync_subtasks: False allows waiting inside a task.
            on_interval: called after each bounded wait.

        Raises:
            TimeoutError: not all ended in time; they go on running. This is `umbel.exceptions.TimeoutError`.
            BackendUnavailable: the backend stayed away.
            RuntimeError: waiting for tasks inside a task.
        """
        join = self.join_native if self.supports_native_join else self.join
        return join(timeout, propagate, interval, callback, no_ack, on_message, on_interval, disable_sync_subtasks)

    wait = get

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback = None,
        no_ack: bool = True,
        on_message: Callable[[Mapping[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]:
        """Do as `get` does, but look at the members in their order: the first in the list that failed is raised.

        Raises:
            ImproperlyConfigured: there is *on_message*.
        """
        del interval, no_ack
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None:
            raise exceptions.ImproperlyConfigured("Backend does not support on_message callback")
        values: list[R] = []
        there, ends = set[int](), self._ends(timeout, None, on_interval)
        for position, each in enumerate(self.results):
            while position not in there:
                there.add(next(ends))
            value = value_of(each, propagate=propagate)
            if callback is None:
                values.append(value)
            else:
                callback(each.id, value)
        return values

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback = None,
        no_ack: bool = True,
        on_message: Callable[[Mapping[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R] | None:
        """Do as `get` does: the first that fails is raised at once, and *callback* is called as they end."""
        del interval, no_ack
        if disable_sync_subtasks:
            assert_will_not_block()
        values: list[Any] = [None] * len(self.results)
        for position in self._ends(timeout, on_message, on_interval):
            values[position] = value_of(self.results[position], propagate=propagate)
            if callback is not None:
                callback(self.results[position].id, values[position])
        return values if callback is None else None

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Mapping[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield the id and the document of each member as it ends; of a member that is a set, the list of its results.

        Raises:
            TimeoutError: not all ended in time.
        """
        del interval, no_ack
        for position in self._ends(timeout, on_message, on_interval):
            yield self._told(self.results[position])

    @staticmethod
    def _told(member: Any) -> tuple[str, Any]:
        return member.id, member.results if isinstance(member, ResultSet) else member.told()

    def _ends(self, timeout: float | None, on_message: Callable[..., Any] | None, on_interval: Callable[[], Any] | None) -> Iterator[int]:
        """Yield the position of each member as it ends, those first that are known to have."""
        ends = Ends(self.results, on_message)
        yield from ends.over
        if ends.tasks:
            for task_id in ended(self.backend, list(ends.tasks), ends.take, timeout, on_interval):
                yield from ends.note(task_id)

    # --- for coroutines

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[R]:  # noqa: ASYNC109 - as get()
        """Do as `get` does without blocking the event loop."""
        values: list[Any] = [None] * len(self.results)
        async for position in self._aends(timeout):
            values[position] = value_of(self.results[position], propagate=propagate)
        return values

    ajoin = aget

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield each member as it ends."""
        async for position in self._aends(None):
            yield self.results[position]

    async def _aends(self, timeout: float | None) -> AsyncIterator[int]:  # noqa: ASYNC109
        ends = Ends(self.results, None)
        for position in ends.over:
            yield position
        if ends.tasks:
            async for task_id in aended(self.backend, list(ends.tasks), ends.take, timeout):
                for position in ends.note(task_id):
                    yield position

    async def acompleted_count(self) -> int:
        """Do as `completed_count` does without blocking the event loop."""
        return await to_thread(self.completed_count)
