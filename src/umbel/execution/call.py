"""One message that runs, and what its task's class has of its own."""

from __future__ import annotations

import time
from contextvars import Token
from functools import cache
from typing import Any, NamedTuple

import msgspec

from umbel.broker import plain
from umbel.canvas.builtins import UNLOCK
from umbel.context import Context
from umbel.execution.outcome import Action, Outcome, Replacement
from umbel.task import Task
from umbel.wire.saferepr import one_line

__all__ = ["Call", "own"]


class Call(msgspec.Struct, eq=False):
    """One message that is running."""

    tag: int
    task: Task[..., Any]
    request: Context
    args: list[Any]
    kwargs: dict[str, Any]
    pid: int  # of this process: what a task forks is another one
    began: float  # time.perf_counter
    frame: Token[Any] | None = None
    said: tuple[str, Any] | None = None  # state and value, once the handlers of its class have heard them

    @property
    def embeds(self) -> bool:
        """Does what follows it travel in its message, as Celery's producers write it?"""
        request = self.request
        return bool(request.callbacks or request.errbacks or request.chain or request.chord) or self.task.name == UNLOCK

    @property
    def followed(self) -> bool:
        """May something follow it in a workflow?"""
        return self.request.umbel_flow is not None or self.embeds

    def outcome(
        self, action: Action, state: str, meta: bytes | None = None, *, replacement: Replacement | None = None, reason: str = "",
        kind: str = "", traceback: str = "", value: bytes | None = None, failure: bytes = b"",
    ) -> Outcome:  # fmt: skip
        """Say what happened."""
        runtime = time.perf_counter() - self.began
        return Outcome(
            self.tag, action, state, runtime, meta, replacement, reason and one_line(reason), kind, traceback and plain(traceback),
            value, failure, self.embeds,
        )  # fmt: skip


class Own(NamedTuple):
    """What a class of tasks has of its own: what it has not is not called."""

    call: bool
    before_start: bool
    on_success: bool
    after_return: bool


@cache
def own(cls: Any) -> Own:
    """Look at a class once."""
    return Own(
        cls.__call__ is not Task.__call__,
        cls.before_start is not Task.before_start,
        cls.on_success is not Task.on_success,
        cls.after_return is not Task.after_return,
    )
