"""`umbel result`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Command, current_app_of
from umbel.cli.watching import watched
from umbel.cli.watching_many import plain, watched_many, whole_of
from umbel.exceptions import DecodeError
from umbel.exceptions import TimeoutError as ResultTimeoutError
from umbel.result import GroupResult
from umbel.result.looking import is_of_workflow
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.result import AsyncResult

__all__ = ["result"]

INTERRUPTED = 130  # the exit code of what was ended with Ctrl-C
NOTHING = (
    "Nothing is stored of {}. It may wait in a queue, have expired, or be no id of this app; a group is found only after result.save()."
)
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
    click.Option(["--watch"], is_flag=True, help="Show each change and how far it is, of many tasks how many have ended, until it ends."),
]


@click.pass_context
def show(ctx: click.Context, id: str, task: str | None, traceback: bool, timeout: float | None, as_json: bool, watch: bool) -> int:
    """Prints the value that the task, the workflow or the saved group ID came to, and waits for it if it has not ended.

    What failed prints its traceback, and the exit code is 1.
    """
    try:
        found = found_by(current_app_of(ctx), id, task)
        many = isinstance(found, GroupResult) or (watch and is_of_workflow(found))
        if watch:
            (watched_many if many else watched)(found, timeout, as_json=as_json)
        value: Any = found.get(timeout=timeout, propagate=False)
    except ResultTimeoutError:
        raise click.ClickException(too_late(found, timeout or 0.0, many=many)) from None
    except (NotImplementedError, DecodeError) as exc:  # there is no result backend, or it is no group; the text says which
        raise click.ClickException(str(exc)) from None
    except KeyboardInterrupt:  # who has watched, or waited, long enough: no error
        return INTERRUPTED
    ended_well = found.successful()
    if not (as_json and watch):  # there the last change was the end
        tell(found, value, as_json=as_json, traceback=traceback)
    return 0 if ended_well else 1


def too_late(found: Any, timeout: float, *, many: bool) -> str:
    """Say that it has not ended, and how far it is."""
    if not many:
        return f"The task {found.id} has not ended within {timeout:g} s; its state is {found.state}."
    whole = whole_of(found)
    return f"The {whole.kind} {found.id} has not ended within {timeout:g} s: {whole.done} of its {whole.total} tasks have."


def tell(found: Any, value: Any, *, as_json: bool, traceback: bool) -> None:
    """Print what *found* came to."""
    members = list(found.tasks_of().values()) if isinstance(found, GroupResult) else [found]
    failed = [each for each in members if each.failed_or_revoked()]
    if as_json:
        text = "\n".join(each.traceback for each in failed if each.traceback) or None
        state = whole_of(found).state if isinstance(found, GroupResult) else found.state
        document = {"id": found.id, "state": state, "result": plain(value), "traceback": text}
        click.echo(json.dumps(document, default=repr, ensure_ascii=False))
    elif traceback:
        click.echo("\n".join(each.traceback or "" for each in failed))
    elif not failed:
        click.echo(value)
    else:
        for each in failed:
            who = f"{each.id}: " if isinstance(found, GroupResult) else ""
            click.echo(who + (each.traceback or saferepr(each.result, LONGEST)).rstrip(), err=True)


def found_by(app: Umbel, id: str, task: str | None) -> Any:
    """Return the group that was saved under *id*, or the result of a task; say so if nothing is known of it."""
    saved = GroupResult.restore(id, app=app) if task is None and app.backend.keeps_flows else None
    if saved is not None:
        return saved
    found = result_of(app, id, task)
    if found.backend.keeps_flows and not found.exists() and not is_of_workflow(found):
        click.echo(NOTHING.format(id), err=True)
    return found


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


result = Command("result", callback=show, params=PARAMETERS, help=show.__doc__, short_help="Print what a task or a workflow returned.")
