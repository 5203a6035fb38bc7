"""`umbel result --watch`: what changes of a task until it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from umbel.meta import result_of
from umbel.result.progress import progress_of

if TYPE_CHECKING:
    from umbel.result import AsyncResult

__all__ = ["watched"]

Say = Callable[[Mapping[str, Any]], None]


def watched(found: AsyncResult[Any], timeout: float | None, *, as_json: bool) -> None:
    """Print each change of a task, and return when it has ended.

    Raises:
        TimeoutError: ours; it did not end in time.
    """
    if not as_json and sys.stdout.isatty():
        _with_bar(found, timeout)
    else:
        _follow(found, timeout, (lambda meta: say_json(found.id, meta)) if as_json else (lambda meta: click.echo(line(meta))))


def _follow(found: AsyncResult[Any], timeout: float | None, say: Say) -> None:
    last: list[Any] = []

    def changed(meta: Mapping[str, Any]) -> None:
        new = [meta["status"], meta.get("result")]
        if new != last:
            last[:] = new
            say(meta)

    changed(found.document())
    found.get(timeout=timeout, propagate=False, on_message=changed)


def line(meta: Mapping[str, Any]) -> str:
    """Return one change as text."""
    progress = progress_of(meta.get("result"))
    if progress is None:
        return str(meta["status"])
    return f"{meta['status']} {progress.current:g}/{progress.total:g} {progress.message}".rstrip()


def say_json(id: str, meta: Mapping[str, Any]) -> None:
    """Print one change as an object."""
    progress = progress_of(meta.get("result"))
    said = None if progress is None else progress.to_dict()
    value = result_of(meta)
    change = {"id": id, "state": meta["status"], "progress": said, "result": repr(value) if isinstance(value, BaseException) else value}
    click.echo(json.dumps(change, default=repr, ensure_ascii=False))
    sys.stdout.flush()


def _with_bar(found: AsyncResult[Any], timeout: float | None) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn()) as bars:
        bar = bars.add_task("PENDING", total=None, said="")

        def say(meta: Mapping[str, Any]) -> None:
            progress = progress_of(meta.get("result"))
            if progress is not None:
                bars.update(bar, total=progress.total or None, completed=progress.current, said=progress.message)
            elif meta["status"] == "SUCCESS":
                total = bars.tasks[0].total or 1
                bars.update(bar, total=total, completed=total)
            bars.update(bar, description=str(meta["status"]))

        _follow(found, timeout, say)
