"""What all commands share: global options in either place, variables of the environment, the app."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.find import find_app, put_working_directory_on_path
from umbel.cli.options import APP, NO_COLOR, QUIET, global_options

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["CommaList", "Command", "Group", "Kind", "Subcommands", "current_app_of", "is_quiet", "program_of", "without_color"]

# Commands of Celery that users will type.
LATER = ("amqp", "events", "graph", "inspect", "list", "logtool", "shell", "status", "upgrade")

if TYPE_CHECKING:
    Kind = click.ParamType[Any]
else:
    Kind = click.ParamType  # not generic before click 8.4


class Command(click.Command):
    """A command whose options may come from `UMBEL_<COMMAND>_<OPTION>` or `CELERY_<COMMAND>_<OPTION>`.

    One of a family, such as `dead list`, has both words in these names.

    Global options are understood behind its name too: the order does not matter.
    """

    def __init__(self, name: str | None, family: str = "", **more: Any) -> None:
        super().__init__(name, **more)
        name_parameters(self.params, name and f"{family and family + '_'}{name}")
        taken = {spelling for parameter in self.params for spelling in parameter.opts}
        self.params += [option for option in global_options(repeated=True) if taken.isdisjoint(option.opts)]


def name_parameters(parameters: Sequence[click.Parameter], command: str | None) -> None:
    """Give each option its variables of the environment."""
    for parameter in parameters:
        if isinstance(parameter, click.Option) and parameter.envvar is None and parameter.name and command:
            words = f"{command}_{parameter.name}".upper().replace("-", "_")
            parameter.envvar = [f"UMBEL_{words}", f"CELERY_{words}"]


class Group(click.Group):
    """The program: its commands in the order in which they were added, and a suggestion for one that there is not."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands as they stand in `main`."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say what was probably meant."""
        name = args[0]
        if name in self.commands:
            return super().resolve_command(ctx, args)
        if name in LATER:
            raise click.UsageError(f"The command {name!r} comes with a later version of umbel. There are: {', '.join(self.commands)}.", ctx)
        near = difflib.get_close_matches(name, self.commands, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(self.commands)}."
        raise click.UsageError(f"There is no command {name!r}. {hint}", ctx)


class Subcommands(click.Group):
    """A family of commands, such as `umbel dead list`; global options are understood behind its name too."""

    def __init__(self, name: str, options: Sequence[click.Parameter] = (), **more: Any) -> None:
        name_parameters(options, name)
        taken = {spelling for option in options for spelling in option.opts}
        shared = [option for option in global_options(repeated=True) if taken.isdisjoint(option.opts)]
        super().__init__(name, params=[*options, *shared], **more)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which there are."""
        if args[0] not in self.commands:
            raise click.UsageError(f"There is no command '{self.name} {args[0]}'. There are: {', '.join(self.commands)}.", ctx)
        return super().resolve_command(ctx, args)


class CommaList(Kind):
    """Words separated by commas."""

    name = "a,b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:  # noqa: ARG002
        """Split the words; an empty list of words is no list."""
        return value if isinstance(value, list) else [word.strip() for word in str(value).split(",") if word.strip()]


def current_app_of(ctx: click.Context, *, needed: bool = True) -> Umbel:
    """Return the app of this command line: one that was handed in, that of -A, or the current one.

    Args:
        ctx: of the command.
        needed: refuse the current one if nobody has set it up.

    Raises:
        UsageError: it is so.
    """
    given = ctx.obj
    if given is not None:
        app: Umbel = given
        return app
    name = ctx.meta.get(APP)
    if name:
        return find_app(name)
    from umbel.current import get_current_app

    put_working_directory_on_path()
    current = get_current_app()
    module = os.environ.get("CELERY_CONFIG_MODULE")
    if module:
        current.config_from_object(module)
    if needed and not current.conf.first("broker_write_url", "broker_url", "result_backend"):
        raise click.UsageError(
            f"No app was named. Give it with -A, for example: umbel -A mysite {ctx.info_name}. Without an app, -b names a broker.", ctx
        )
    return current


def program_of(ctx: click.Context) -> str:
    """Return how a shell calls this program with the app of this command line."""
    name = ctx.meta.get(APP)
    return shlex.join(["umbel", "-A", name]) if name else "umbel"


def is_quiet(ctx: click.Context) -> bool:
    """Answer whether -q was given."""
    return bool(ctx.meta.get(QUIET))


def without_color(ctx: click.Context) -> bool:
    """Answer whether colours are unwanted."""
    return bool(ctx.meta.get(NO_COLOR) or os.environ.get("NO_COLOR"))
