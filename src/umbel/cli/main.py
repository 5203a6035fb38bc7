"""The program `umbel`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Group
from umbel.cli.call import call
from umbel.cli.errors import explain
from umbel.cli.options import global_options
from umbel.cli.purge import purge
from umbel.cli.report import report
from umbel.cli.result import result
from umbel.cli.worker import worker

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["main", "program"]


def print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version and end."""
    if value:
        from umbel import __version__

        click.echo(f"umbel {__version__}")
        ctx.exit()


@click.pass_context
def help_without_command(ctx: click.Context) -> None:
    """Print the help if no command was given, and end well, as Celery does."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


program = Group(
    "umbel",
    callback=help_without_command,
    invoke_without_command=True,
    help="A distributed task queue. Options stand before or behind the command.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        *global_options(repeated=False),
        click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="Print the version."),
    ],
)
for command in (worker, call, result, purge, report):
    program.add_command(command)


def main(argv: Sequence[str] | None = None, app: Umbel | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: the words behind the program's name; those of this process by default.
        app: the app to use when there is no -A.
    """
    errors = sys.stderr  # before a worker redirects it to its log
    try:
        code: Any = program.main(list(sys.argv[1:] if argv is None else argv), prog_name="umbel", obj=app, standalone_mode=False)
    except click.Abort:
        click.echo("Aborted!", file=errors)
        return 1
    except click.ClickException as exc:
        exc.show(file=errors)
        return exc.exit_code
    except Exception as exc:
        explained = explain(exc)
        if explained is None:
            raise
        if os.environ.get("UMBEL_DEBUG"):
            traceback.print_exception(exc, file=errors)
        click.echo(f"Error: {explained.sentence}", file=errors)
        return explained.exit_code
    return int(code or 0)
