"""The result of a call that ran where it was made."""

from __future__ import annotations

from typing import Any, TypeVar

from umbel import exceptions, states
from umbel.joining import assert_will_not_block
from umbel.result.single import AsyncResult

__all__ = ["EagerResult"]

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a task that ran where it was called."""

    supports_native_join = False

    def __init__(self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None) -> None:
        super().__init__(id or "", task_name=name)  # without an id: of a call that was not made, as celery-once says
        self.id = id
        self._meta = {"status": state, "result": ret_value, "traceback": traceback, "children": None}

    def get(  # type: ignore[override]
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        follow_parents: bool = True,
        **kwargs: Any,
    ) -> R:
        """Return the value or raise the exception: of a canvas that which came first, as `AsyncResult.get` does."""
        del timeout, kwargs
        if disable_sync_subtasks:
            assert_will_not_block()
        self._refuse_to_wait()
        if propagate and follow_parents and self.failed_or_revoked():
            self._throw_parents()
        return self._answer(propagate)

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True, follow_parents: bool = True) -> R:  # noqa: ASYNC109 - as get()
        """Return the value or raise the exception."""
        return self.get(timeout, propagate, disable_sync_subtasks=False, follow_parents=follow_parents)

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
