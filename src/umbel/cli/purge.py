"""`umbel purge`."""

from __future__ import annotations

import json

import click

from umbel.cli.base import CommaList, Command, current_app_of

__all__ = ["purge"]

PARAMETERS: list[click.Parameter] = [
    click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
    click.Option(["-Q", "--queues"], type=CommaList(), help="Queues to empty, instead of all of task_queues."),
    click.Option(["-X", "--exclude-queues"], type=CommaList(), help="Queues to leave alone."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print the number of deleted messages of each queue as JSON."),
]


@click.pass_context
def empty(ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None, as_json: bool) -> None:
    """Deletes all messages that wait in the queues, those with a countdown included.

    There is no undo. What workers hold at this moment is not touched.
    """
    app = current_app_of(ctx)
    app.import_default_modules()
    names = list(app.consumed_queues(queues, exclude_queues))
    if not force:
        click.echo(
            f"All waiting tasks of {counted(len(names), 'queue')} will be deleted: {', '.join(names)}. There is no undo (-f does not ask).",
            err=True,
        )
        click.confirm("Delete them?", abort=True, err=True)
    deleted = {name: app.broker.purge(name) for name in names}
    click.echo(json.dumps(deleted) if as_json else summary(sum(deleted.values()), len(names)))


def summary(messages: int, queues: int) -> str:
    """Say what was deleted."""
    if not messages:
        return f"No messages purged from {counted(queues, 'queue')}."
    return f"Purged {counted(messages, 'message')} from {counted(queues, 'known task queue')}."


def counted(number: int, noun: str) -> str:
    """Return the number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


purge = Command("purge", callback=empty, params=PARAMETERS, help=empty.__doc__, short_help="Delete the messages that wait.")
