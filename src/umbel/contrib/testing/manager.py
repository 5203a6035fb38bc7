"""What long tests wait with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from umbel import states
from umbel.app import Umbel
from umbel.exceptions import TimeoutError as TookTooLong

__all__ = ["Manager", "ManagerMixin", "Sentinel"]


class Sentinel(Exception):  # noqa: N818 - Celery's name
    """What was waited for has come."""


class ManagerMixin:
    """Waits for tasks, with a deadline."""

    app: Umbel

    def _init_manager(
        self, block_timeout: float = 30 * 60.0, no_join: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.block_timeout, self.no_join = block_timeout, no_join
        self.stdout, self.stderr = stdout or sys.stdout, stderr or sys.stderr

    def remark(self, s: str, sep: str = "-") -> None:
        """Print a remark."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Print a warning."""
        print(f"Warning: {s}", file=self.stderr)

    def missing_results(self, r: Any) -> list[str]:
        """Return the ids of those in a group that have no result yet."""
        return [each.id for each in r.results if each.state not in states.READY_STATES]

    def wait_for(
        self, fun: Callable[..., Any], catch: type[BaseException] | tuple[type[BaseException], ...], desc: str = "thing",
        args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, errback: Callable[..., Any] | None = None,
        max_retries: int | None = 10, interval_start: float = 0.1, interval_step: float = 0.5, interval_max: float = 5.0,
        emit_warning: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        """Call *fun* again and again until it raises nothing of *catch*.

        Raises:
            Exception: what it raised the last time.
        """
        del options
        pause, left = interval_start, max_retries
        while True:
            try:
                return fun(*args, **kwargs or {})
            except catch as exc:
                if left is not None:
                    left -= 1
                    if left < 0:
                        raise
                if emit_warning:
                    self.warn(f"Waiting for {desc}: {exc!r}")
                if errback is not None:
                    errback(exc, pause, max_retries)
            time.sleep(pause)
            pause = min(pause + interval_step, interval_max)

    retry_over_time = wait_for

    def ensure_not_for_a_while(self, fun: Callable[[], Any], catch: type[BaseException], desc: str = "thing", max_retries: int = 20,
                               interval_start: float = 0.1, **options: Any) -> None:  # fmt: skip
        """Check that *fun* goes on raising *catch*.

        Raises:
            AssertionError: it did not.
        """
        del options
        for _ in range(max_retries):
            try:
                fun()
            except catch:
                time.sleep(interval_start)
            else:
                raise AssertionError(f"Should not have happened: {desc}")

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for the results of a group.

        Raises:
            TimeoutError: some are missing after *max_retries* tries.
        """
        if self.no_join:
            return None
        for _ in range(max_retries):
            try:
                return r.get(propagate=propagate, **{"timeout": 10.0, **kwargs})
            except TookTooLong:
                self.remark(f"Still waiting for {len(self.missing_results(r))} of {len(r)} results", "!")
        raise TookTooLong(f"The group {r.id} has no results of: {', '.join(self.missing_results(r))}.")

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what *fun* returns if it is true.

        Raises:
            Sentinel: it is not.
        """
        answer = fun(*args, **kwargs)
        if not answer:
            raise Sentinel
        return answer

    @staticmethod
    def is_result_task_in_progress(results: Any, **_: Any) -> bool:
        """Answer whether each was begun or has ended."""
        known = {states.STARTED, states.RECEIVED, states.SUCCESS, states.FAILURE, states.RETRY, "PROGRESS"}
        return all(each.state in known for each in results)

    def assert_result_tasks_in_progress_or_completed(
        self, async_results: Any, interval: float = 0.5, desc: str = "tasks", **policy: Any
    ) -> Any:
        """Wait until each was begun or has ended."""
        return self.wait_for(
            lambda: self.true_or_raise(self.is_result_task_in_progress, async_results), (AssertionError, Sentinel), desc,
            interval_start=interval, **policy,
        )  # fmt: skip


class Manager(ManagerMixin):
    """Waits for tasks of one app."""

    def __init__(self, app: Umbel, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
