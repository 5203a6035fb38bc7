"""The program `umbel`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

import click

from umbel.cli.base import Group
from umbel.cli.beat import beat
from umbel.cli.call import call
from umbel.cli.control import control
from umbel.cli.dead import dead, parked
from umbel.cli.errors import explain
from umbel.cli.frames import from_first_foreign_frame
from umbel.cli.graph import graph
from umbel.cli.migrate import migrate
from umbel.cli.multi import multi
from umbel.cli.options import FOLDER, WORDS, global_options
from umbel.cli.purge import purge
from umbel.cli.queues import queues
from umbel.cli.report import report
from umbel.cli.result import result
from umbel.cli.stats import stats
from umbel.cli.worker import worker

__all__ = ["main"]


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


class Program(Group):
    """The whole command line. Called, it runs one and ends the process, as every click command does."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Begin, and keep what was typed and where, for those who start the program again."""
        words, folder = list(args), os.getcwd()  # noqa: PTH109 - a text
        ctx = super().make_context(info_name, args, parent, **extra)
        ctx.meta[WORDS], ctx.meta[FOLDER] = words, folder
        return ctx

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "umbel",
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line.

        Args:
            args: the words behind the program's name; those of this process by default.
            prog_name: the program's name.
            complete_var: as for click.
            standalone_mode: False returns what the command returns, and raises what it raises.
            windows_expand_args: as for click.
            extra: `obj` is the app to use, whatever -A says.
        """
        words: dict[str, Any] = {
            "args": args,
            "prog_name": prog_name,
            "complete_var": complete_var,
            "windows_expand_args": windows_expand_args,
            **extra,
        }
        if not standalone_mode:
            return super().main(standalone_mode=False, **words)
        errors = sys.stderr  # before a worker redirects it to its log
        try:
            code = super().main(standalone_mode=False, **words)
        except click.Abort:
            click.echo("Aborted!", file=errors)
            code = 1
        except click.ClickException as exc:
            exc.show(file=errors)
            code = exc.exit_code
        except Exception as exc:  # noqa: BLE001 - the rim of the program: it is printed, and the exit code says so
            code = say(exc, errors)
        sys.exit(code or 0)


def say(exc: Exception, errors: TextIO) -> int:
    """Print one sentence if the user caused the error or can mend it, else the traceback; return the exit code."""
    explained = explain(exc)
    if explained is None or os.environ.get("UMBEL_DEBUG"):
        traceback.print_exception(type(exc), exc, from_first_foreign_frame(exc.__traceback__), file=errors)
    if explained is None:
        return 1
    click.echo(f"Error: {explained.sentence}", file=errors)
    return explained.exit_code


main = Program(
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
for command in (worker, beat, multi, call, result, graph, control, queues, stats, dead, parked, purge, migrate, report):
    main.add_command(command)
