"""`umbel result --watch` of a group or a workflow: how many of its tasks have ended, until all have."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from umbel import states
from umbel.exceptions import TimeoutError as ResultTimeoutError
from umbel.result import GroupResult
from umbel.result.tree import together
from umbel.wire.saferepr import saferepr

__all__ = ["Whole", "plain", "watched_many", "whole_of"]

LOOK = 0.5  # seconds between two looks
REST = 10  # a look at many tasks takes its time: so much longer is the pause after it
LONGEST = 10_000  # characters of an exception


@dataclass(frozen=True, slots=True)
class Whole:
    """How far many tasks are together."""

    kind: str  # group or workflow
    state: str
    done: int  # have ended, well or not
    failed: int
    total: int

    def __str__(self) -> str:
        return f"{self.done}/{self.total}" + (f", {self.failed} failed" if self.failed else "")


def whole_of(found: Any) -> Whole:
    """Look at all tasks of a group, or of the workflow of a result."""
    if isinstance(found, GroupResult):
        return _counted("group", [str(meta["status"]) for meta in found.metas()])
    return _counted("workflow", [task.state for task in found.tree().tasks()])


def _counted(kind: str, found: Sequence[str]) -> Whole:
    ended, failed = (sum(state in some for state in found) for some in (states.READY_STATES, states.PROPAGATE_STATES))
    return Whole(kind, together(found), ended, failed, len(found))


def watched_many(found: Any, timeout: float | None, *, as_json: bool) -> None:
    """Print how far *found* is whenever that changes, and return when it has ended.

    Raises:
        TimeoutError: ours; it did not end in time.
    """
    if as_json:
        _follow(found, timeout, lambda whole, ended: _say_json(found, whole, ended=ended))
    elif sys.stdout.isatty():
        _with_bar(found, timeout)
    else:
        _follow(found, timeout, lambda whole, _: click.echo(f"{whole.state} {whole}"))


def _follow(found: Any, timeout: float | None, say: Callable[[Whole, bool], None]) -> None:
    deadline, last = None if timeout is None else time.monotonic() + timeout, None
    while True:
        began = time.monotonic()
        ended = found.ready()  # before the look, so that the last one sees the end
        whole = whole_of(found)
        if whole != last or ended:
            say(whole, ended)
            sys.stdout.flush()
        last = whole
        if ended:
            return
        now = time.monotonic()
        pause = max(LOOK, REST * (now - began))
        if deadline is not None and now >= deadline:
            raise ResultTimeoutError("It has not ended in time.")
        _wait(found, pause if deadline is None else min(pause, deadline - now))


def _wait(found: Any, seconds: float) -> None:
    """Wait until *found* has ended, or so long."""
    with contextlib.suppress(ResultTimeoutError):
        found.get(timeout=seconds, propagate=False)


def _say_json(found: Any, whole: Whole, *, ended: bool) -> None:
    value = found.get(propagate=False) if ended else None
    click.echo(json.dumps({"id": found.id, **asdict(whole), "result": plain(value)}, default=repr, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Return values with exceptions, at any depth of groups in groups, as text."""
    if isinstance(value, BaseException):
        return saferepr(value, LONGEST)
    return [plain(each) for each in value] if isinstance(value, list) else value


def _with_bar(found: Any, timeout: float | None) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # a fifth of a second, that only a terminal needs

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn()) as bars:
        bar = bars.add_task(states.PENDING, total=None, said="")

        def say(whole: Whole, _: bool) -> None:
            bars.update(bar, description=whole.state, total=whole.total or 1, completed=whole.done, said=str(whole))

        _follow(found, timeout, say)
