"""The ways to send a canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from umbel.joining import allow_join_result
from umbel.result import AsyncResult

if TYPE_CHECKING:
    from umbel.result import EagerResult

__all__ = ["Sendable"]

R = TypeVar("R")


class Sendable(Generic[R]):
    """What can be sent: `umbel.canvas.start` does it."""

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send it with further arguments."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, route_name: str | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send it with further arguments and options.

        Args:
            args: they stand before its own.
            kwargs: they win over its own.
            route_name: the name to route by, if not the task's.
            options: they win over its own.
        """
        return cast("AsyncResult[R]", self._starter().start(self, args, kwargs, {**options, **_routed(route_name)}))

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Do as `apply_async` does without blocking the event loop."""
        return cast("AsyncResult[R]", await self._starter().astart(self, args, kwargs, options))

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Do as `delay` does without blocking the event loop."""
        return await self.aapply_async(partial_args, partial_kwargs)

    def delay_on_commit(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send it when Django's transaction commits; at once outside of one."""
        return self.apply_async_on_commit(partial_args, partial_kwargs)

    def apply_async_on_commit(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *, using: str | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send it when the transaction of the database *using* commits, and return its result, with its id, now."""
        return cast("AsyncResult[R]", self._starter().start_on_commit(self, args, kwargs, using, options))

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> EagerResult[R]:
        """Run it and what follows it here and now."""
        return cast("EagerResult[R]", self._starter().run(self, args, kwargs, options))

    @staticmethod
    def _starter() -> Any:
        from umbel.canvas import start  # which needs every kind of canvas, and those need this module

        return start

    def __invert__(self) -> R:
        with allow_join_result():
            return self.apply_async().get()

    def election(self) -> Any:
        """Not there: a task that only one worker is to run needs nothing but a queue."""
        raise NotImplementedError("election() lets workers agree on one of them. Send the task: exactly one worker claims it.")


def _routed(route_name: str | None) -> dict[str, Any]:
    return {} if route_name is None else {"route_name": route_name}
