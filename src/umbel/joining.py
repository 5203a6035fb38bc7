"""Whether code that runs here may wait for the result of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from umbel.current import worker_frame

__all__ = ["allow_join_result", "assert_will_not_block", "denied_join_result", "may_join"]

_may_join: ContextVar[bool] = ContextVar("umbel_may_join", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let tasks wait for results inside this block."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Forbid again, inside this block, what `allow_join_result` allows."""
    token = _may_join.set(False)
    try:
        yield
    finally:
        _may_join.reset(token)


def may_join() -> bool:
    """Answer whether code that runs here may wait for the result of a task."""
    return _may_join.get() or worker_frame() is None


def assert_will_not_block() -> None:
    """Refuse to wait for a task inside a task: with all workers waiting, none is left to run what they wait for.

    Raises:
        RuntimeError: a task is running here.
    """
    if not may_join():
        raise RuntimeError(
            "Never call result.get() within a task!\n"
            "See https://docs.celeryq.dev/en/latest/userguide/tasks.html#avoid-launching-synchronous-subtasks",
        )
