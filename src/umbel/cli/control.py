"""`umbel control`: what all workers are told."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from umbel.cli.base import Command, Group, current_app_of
from umbel.control import signal_name

__all__ = ["control"]

AS_JSON = click.Option(["-j", "--json", "as_json"], is_flag=True, help="Print the ids as JSON.")
IDS = click.Argument(["ids"], nargs=-1, required=True, metavar="ID...")


def signal_of(_: click.Context, __: click.Parameter, value: str) -> str:
    """Understand a signal's name or number."""
    try:
        return signal_name(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.pass_context
def revoke_tasks(ctx: click.Context, ids: Sequence[str], terminate: bool, signal: str, as_json: bool) -> None:
    """Keeps the tasks ID... from starting, on all workers, also on those that start later.

    They are known by their ids, whether they wait, are delayed or have not been sent yet.
    """
    current_app_of(ctx).control.revoke(ids, terminate=terminate, signal=signal)
    say(ids, terminate, signal, as_json)


@click.pass_context
def terminate_tasks(ctx: click.Context, signal: str, ids: Sequence[str], as_json: bool) -> None:
    """Keeps the tasks ID... from starting, and ends those that run with SIGNAL, for example SIGTERM."""
    current_app_of(ctx).control.terminate(ids, signal=signal)
    say(ids, True, signal, as_json)


def say(ids: Sequence[str], terminate: bool, signal: str, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        click.echo(json.dumps({"revoked": list(ids), "signal": signal if terminate else None}))
        return
    click.echo(f"{len(ids)} task{'' if len(ids) == 1 else 's'} revoked{f'; what runs is ended with {signal}' if terminate else ''}.")


control = Group("control", help="Tell all workers something.", short_help="Tell all workers something: revoke, terminate.")
control.add_command(
    Command(
        "revoke",
        callback=revoke_tasks,
        help=revoke_tasks.__doc__,
        short_help="Keep tasks from starting.",
        params=[
            IDS,
            click.Option(["--terminate"], is_flag=True, help="Also end those that run."),
            click.Option(["--signal"], default="SIGTERM", show_default=True, callback=signal_of, help="With what."),
            AS_JSON,
        ],
    )
)
control.add_command(
    Command(
        "terminate",
        callback=terminate_tasks,
        help=terminate_tasks.__doc__,
        short_help="Keep tasks from starting, and end those that run.",
        params=[click.Argument(["signal"], callback=signal_of), IDS, AS_JSON],
    )
)
