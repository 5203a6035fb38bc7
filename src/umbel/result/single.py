"""The result of one task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Self, TypeVar, cast

from umbel import exceptions, states
from umbel.joining import assert_will_not_block
from umbel.meta import result_of
from umbel.result.aside import to_thread
from umbel.result.base import Stored
from umbel.result.graph import DependencyGraph, graph_of, walk
from umbel.result.promises import fulfil, promise
from umbel.result_wait import aended, ended

__all__ = ["AsyncResult"]

R = TypeVar("R")


class AsyncResult(Stored[R]):
    """The result of one task, wherever it runs."""

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
        follow = follow_parents and propagate and self.parent is not None
        if follow:
            self._throw_parents()
        if self._meta is None:
            self._wait(timeout, on_message, on_interval, follow=follow)
            if follow and self.state in states.PROPAGATE_STATES:
                self._throw_parents()  # what failed first is what the caller is told
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

    def _wait(
        self, timeout: float | None, on_message: Callable[..., Any] | None, on_interval: Callable[[], Any] | None, *, follow: bool
    ) -> None:
        def take(_: str, data: bytes) -> bool:
            meta = self._take(data)
            if on_message is not None:
                on_message(meta)
            return self._meta is not None

        def quiet() -> None:
            if follow:
                self._throw_parents()
            if on_interval is not None:
                on_interval()

        for _ in ended(self.backend, [self.id], take, timeout, quiet):
            return

    def _answer(self, propagate: bool, callback: Callable[[str, Any], Any] | None = None) -> R:
        value = self.result
        if propagate:
            self.maybe_throw()
        if callback is not None:
            callback(self.id, value)
        return cast("R", value)

    async def aget(self, timeout: float | None = None, propagate: bool = True, follow_parents: bool = True) -> R:  # noqa: ASYNC109 - as get()
        """Do as `get` does without blocking the event loop."""
        if self.ignored:
            return cast("R", None)
        if self._meta is None:
            async for _ in aended(self.backend, [self.id], self.take, timeout):
                break
        if follow_parents and propagate and self.parent is not None and self.state in states.PROPAGATE_STATES:
            await to_thread(self._throw_parents)
        return self._answer(propagate)

    async def astate(self) -> str:
        """Return the `state` without blocking the event loop."""
        return await to_thread(lambda: self.state)

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Self:
        """Call *callback* with this result when it has ended well; at once if it has.

        Args:
            callback: must not wait: it runs in the thread that hears of all results of this process. What it raises is logged.
            on_error: called with this result if it has failed or was revoked.
            weak: True calls nothing if nobody else keeps this result.
        """
        if self._meta is None:
            promise(self, [self.id], callback, on_error, weak=weak)
        else:
            fulfil(self, callback, on_error)
        return self

    # --- what it sent

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield this result and each below it, with its value; *kwargs* are those of `get`.

        Raises:
            IncompleteStream: one has not ended, and not *intermediate*.
        """
        for _, node in walk(self, intermediate=intermediate):
            yield node, node.get(**kwargs)

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield this result and each below it, as the second of a pair with the one that it is a child of.

        Raises:
            IncompleteStream: one has not ended, and not *intermediate*.
        """
        return walk(self, intermediate=intermediate)

    def get_leaf(self) -> Any:
        """Return the value of the last result below this one.

        Raises:
            IncompleteStream: one has not ended.
        """
        value: Any = None
        for _, node in walk(self, intermediate=False):
            value = node.get()
        return value

    @property
    def graph(self) -> DependencyGraph[Any]:
        """This result and all below it, each with its children."""
        return self.build_graph()

    def build_graph(self, intermediate: bool = False, formatter: Callable[[Any], str] | None = None) -> DependencyGraph[Any]:
        """Return this result and all below it, each with its children.

        Raises:
            IncompleteStream: one has not ended, and not *intermediate*.
        """
        return graph_of(self, intermediate=intermediate, formatter=formatter)

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

    def revoke_by_stamped_headers(self, headers: Mapping[str, Any], *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: workers know revoked tasks by their ids.

        Raises:
            NotSupported: always.
        """
        del args, kwargs
        raise exceptions.NotSupported(
            f"Tasks are not revoked by stamps ({', '.join(map(str, headers))}). Keep their results, or save the group, and revoke that."
        )
