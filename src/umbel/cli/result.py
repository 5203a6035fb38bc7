"""`umbel result`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Command, current_app_of
from umbel.cli.watching import watched
from umbel.exceptions import TimeoutError as ResultTimeoutError
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.result import AsyncResult

__all__ = ["result"]

INTERRUPTED = 130  # the exit code of what was ended with Ctrl-C
LONGEST = 10_000  # characters of an exception; its own repr may raise anything

PARAMETERS: list[click.Parameter] = [
    click.Argument(["id"]),
    click.Option(["-t", "--task"], metavar="NAME", help="The task's name, if it keeps results in a backend of its own."),
    click.Option(["--traceback"], is_flag=True, help="Print the traceback instead of the value."),
    click.Option(
        ["--timeout"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for a task that has not ended; for ever by default.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print id, state, result and traceback as JSON; with --watch, each change."),
    click.Option(["--watch"], is_flag=True, help="Show each change of its state and how far it is, until it ends."),
]


@click.pass_context
def show(ctx: click.Context, id: str, task: str | None, traceback: bool, timeout: float | None, as_json: bool, watch: bool) -> int:
    """Prints the value that the task ID returned, and waits for it if it has not ended.

    A task that failed prints its traceback, and the exit code is 1.
    """
    found = result_of(current_app_of(ctx), id, task)
    try:
        if watch:
            watched(found, timeout, as_json=as_json)
        value: Any = found.get(timeout=timeout, propagate=False)
    except ResultTimeoutError:
        raise click.ClickException(f"The task {id} has not ended within {timeout:g} s; its state is {found.state}.") from None
    except NotImplementedError as exc:  # there is no result backend; the text says what to set
        raise click.ClickException(str(exc)) from None
    except KeyboardInterrupt:  # who has watched, or waited, long enough: no error
        return INTERRUPTED
    ended_well = found.successful()
    if as_json and watch:
        return 0 if ended_well else 1  # the last change was the end
    if as_json:
        shown = value if ended_well else saferepr(value, LONGEST)
        document = {"id": id, "state": found.state, "result": shown, "traceback": found.traceback}
        click.echo(json.dumps(document, default=repr, ensure_ascii=False))
    elif traceback:
        click.echo(found.traceback or "")
    elif ended_well:
        click.echo(value)
    else:
        click.echo((found.traceback or saferepr(value, LONGEST)).rstrip(), err=True)
    return 0 if ended_well else 1


def result_of(app: Umbel, id: str, task: str | None) -> AsyncResult[Any]:
    """Return the result, as the task *task* reads it if one is named."""
    if task is None:
        return app.AsyncResult(id)
    app.import_default_modules()
    if task not in app.tasks:
        own = [name for name in app.tasks if not name.startswith("celery.")]
        raise click.BadParameter(
            f"the app has no task {task!r}. It has: {', '.join(sorted(own)) or 'none'}.",
            param_hint="'-t' / '--task'",
        )
    named: AsyncResult[Any] = app.tasks[task].AsyncResult(id)
    return named


result = Command("result", callback=show, params=PARAMETERS, help=show.__doc__, short_help="Print what a task returned.")
