"""`umbel call`."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Command, Kind, current_app_of

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["call"]


class Json(Kind):
    """JSON of one kind: a list or an object."""

    def __init__(self, kind: type, word: str, example: str) -> None:
        self.kind, self.word, self.example = kind, word, example
        self.name = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the JSON, or say where it is wrong."""
        if isinstance(value, self.kind):
            return value
        try:
            read = json.loads(value)
        except ValueError as exc:
            self.fail(f"{value!r} is not JSON: {exc}. {self.shown()}", param, ctx)
        if not isinstance(read, self.kind):
            self.fail(f"{value!r} is JSON, but not {self.word}. {self.shown()}", param, ctx)
        return read

    def shown(self) -> str:
        """Show how to write it, with the quotes that a shell needs."""
        return f"Write {self.word} in single quotes: {self.example}"


class Moment(Kind):
    """A time in ISO 8601, or, where that is meant, a number of seconds from now."""

    name = "time"

    def __init__(self, *, seconds: bool) -> None:
        self.seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the time."""
        if not isinstance(value, str):
            return value
        for read in (datetime.fromisoformat, float) if self.seconds else (datetime.fromisoformat,):
            with contextlib.suppress(ValueError):
                return read(value)
        more = ", or a number of seconds" if self.seconds else ""
        return self.fail(
            f"{value!r} is not a time. Write it as 2030-01-31T12:00:00 (in the app's time zone) or 2030-01-31T12:00:00+00:00{more}.",
            param,
            ctx,
        )


def options() -> list[click.Parameter]:
    """Make the parameters of the command."""
    array, mapping = Json(list, "a list", "-a '[2, 3]'"), Json(dict, "an object", """-k '{"name": "value"}'""")
    return [
        click.Argument(["name"]),
        click.Option(["-a", "--args"], type=array, default="[]", help="Positional arguments, as JSON."),
        click.Option(["-k", "--kwargs"], type=mapping, default="{}", help="Keyword arguments, as JSON."),
        click.Option(["--eta"], type=Moment(seconds=False), help="When to run it, in ISO 8601."),
        click.Option(["--countdown"], type=float, help="Seconds from now after which to run it."),
        click.Option(["--expires"], type=Moment(seconds=True), help="When not to start it any more: ISO 8601 or seconds from now."),
        click.Option(["--serializer"], help="How to write the arguments; the task's or the app's by default."),
        click.Option(["--queue"], help="The queue to send it to."),
        click.Option(["--exchange"], help="The exchange to send it to."),
        click.Option(["--routing-key"], help="The routing key to send it with."),
    ]


@click.pass_context
def send(ctx: click.Context, /, name: str, args: list[Any], kwargs: dict[str, Any], **given: Any) -> None:
    """Sends the task NAME and prints its id.

    The task need not be known here: a worker that knows it runs it.
    """
    app = current_app_of(ctx)
    chosen = {option: in_time_zone(app, value) for option, value in given.items() if value is not None}
    sent = app.send_task(name, args=args, kwargs=kwargs, **chosen)
    click.echo(sent.id)


def in_time_zone(app: Umbel, value: Any) -> Any:
    """Take a time without a zone as one on the app's clock."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=app.timezone)
    return value


call = Command("call", callback=send, params=options(), help=send.__doc__, short_help="Send a task by its name.")
