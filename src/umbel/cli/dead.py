"""`umbel dead` and `umbel parked`: look at what was put away, send it again, delete it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import click

from umbel.cli.base import CommaList, Command, Kind, Subcommands, current_app_of, without_color
from umbel.cli.purge import counted
from umbel.cli.tables import ago, print_rows, printable
from umbel.letters import Letter, Letters, as_document

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["dead", "parked"]

SHOWN = 20  # letters that `list` shows unless told otherwise
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
Place = Literal["dead", "parked"]
NOUNS = {"dead": "dead letter", "parked": "parked message"}


class Duration(Kind):
    """A time such as 90s, 15m, 12h, 7d, 2w; a number alone is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if not found:
            self.fail(f"{value!r} is not a time. Write 90s, 15m, 12h, 7d or 2w.", param, ctx)
        return float(found[1]) * SECONDS[found[2]]


def filters() -> list[click.Parameter]:
    """Make the options that choose letters."""
    return [
        click.Option(["-Q", "--queue", "queues"], type=CommaList(), help="Queues, separated by commas, instead of all of task_queues."),
        click.Option(["--id", "ids"], multiple=True, metavar="ID", help="A task id; may be given several times."),
        click.Option(["--task"], metavar="NAME", help="The task's name; * and ? stand for any text and any character."),
        click.Option(["--reason"], metavar="TEXT", help="A part of the reason, or its kind, such as crashed or rejected."),
        click.Option(["--older-than"], type=Duration(), metavar="AGE", help="Put away longer ago than 90s, 15m, 12h, 7d, 2w."),
        click.Option(["--newer-than"], type=Duration(), metavar="AGE", help="Put away less long ago."),
        click.Option(["--limit"], type=click.IntRange(min=1), metavar="N", help="At most so many."),
        click.Option(["--all", "every"], is_flag=True, help="All that fit, however many there are."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one object on a line."),
    ]


class Choice:
    """The letters that a command line chooses."""

    def __init__(self, ctx: click.Context, place: Place, *, limit: int | None, queues: list[str] | None, **wanted: Any) -> None:
        self.app: Umbel = current_app_of(ctx)
        self.app.import_default_modules()
        self.letters: Letters = self.app.dead_letters if place == "dead" else self.app.parked_messages
        self.queues = queues
        self.noun = NOUNS[place]
        self._limit, self._wanted = limit, wanted

    def __iter__(self) -> Iterator[Letter]:
        """Find them, anew each time: so a million of them are never held."""
        return islice(self.letters.find(self.queues, **self._wanted), self._limit)

    def total(self) -> str:
        """Say how many there are in all."""
        counts = self.letters.count(self.queues)
        known = [count for count in counts.values() if count is not None]
        said = f"{sum(known):,} {self.noun}s in all" if len(known) == len(counts) else f"{self.noun}s that the broker cannot count"
        if len(counts) == 1:
            return f"{said} on {next(iter(counts))}"
        each = ", ".join(f"{queue} {'?' if count is None else f'{count:,}'}" for queue, count in counts.items())
        return f"{said} ({each})"

    def nothing(self) -> str:
        """Say where it was looked in vain."""
        return f"{self.total()}." if self.queues else f"{self.total()}. Other queues: -Q NAME."


def listed(place: Place) -> Callable[..., int]:
    """Make the command that lists."""

    @click.pass_context
    def run(ctx: click.Context, /, every: bool, limit: int | None, as_json: bool, **wanted: Any) -> int:
        chosen = Choice(ctx, place, limit=limit or (None if every or as_json else SHOWN), **wanted)
        number = 0
        if as_json:
            for letter in chosen:
                number += 1
                click.echo(json.dumps(as_document(letter)))
        else:
            number = print_table(chosen, place, colors=not without_color(ctx))
            more = "" if limit or every or number < SHOWN else "; --all shows more"
            click.echo(f"{number:,} shown of {chosen.total()}{more}.", err=True)
        return 0 if number else 1

    return run


def print_table(letters: Iterable[Letter], place: Place, *, colors: bool) -> int:
    """Print letters as rows, in bounded parts; return how many."""
    rest, number = iter(letters), 0
    while part := list(islice(rest, 1000)):
        number += len(part)
        if place == "dead":
            rows = [(x.id, x.task or "?", x.queue, ago(x.at), x.evidence.kind, first_line(x.reason)) for x in part]
            print_rows(("ID", "TASK", "QUEUE", "AGO", "KIND", "REASON"), rows, colors=colors)
        else:
            print_rows(("ID", "TASK", "QUEUE", "AGO"), [(x.id, x.task or "?", x.queue, ago(x.at)) for x in part], colors=colors)
    return number


def first_line(text: str) -> str:
    """Return a reason as one line; a traceback stays away."""
    return text.partition("\n")[0][:200]


def shown(place: Place) -> Callable[..., int]:
    """Make the command that shows one."""

    @click.pass_context
    def run(ctx: click.Context, /, id: str, queues: list[str] | None, as_json: bool) -> int:
        found = Choice(ctx, place, limit=None, queues=queues, ids=(id,))
        letter = None
        for letter in found:
            document = {**as_document(letter), "headers": letter.message.headers if letter.message else None,
                        "call": letter.call(found.app.accepted_content())}  # fmt: skip
            click.echo(json.dumps(document, default=repr) if as_json else as_text(document))
        if letter is None:
            click.echo(f"There is no {found.noun} {id}: {found.nothing()}", err=True)
        return 0 if letter else 1

    return run


def as_text(document: Mapping[str, Any]) -> str:
    """Lay out all that is known of one letter."""
    evidence = dict(document["evidence"])
    traceback = evidence.pop("traceback", "")
    when = datetime.fromtimestamp(document["at"], UTC).astimezone()
    lines = [
        f"id        {document['id']}", f"task      {document['task'] or '?'}", f"queue     {document['queue']}",
        f"at        {when:%Y-%m-%d %H:%M:%S%z} ({ago(document['at'])} ago)", f"call      {document['call']}",
        f"reason    {first_line(document['reason'])}",
        *(f"  {name:<13} {value:,}" if name == "peak_memory" else f"  {name:<13} {value}" for name, value in evidence.items()),
    ]  # fmt: skip
    lines += ["headers", *(f"  {name:<13} {value!r}" for name, value in (document["headers"] or {}).items() if value is not None)]
    if traceback:
        lines += ["traceback", *(f"  {line}" for line in traceback.splitlines())]
    return "\n".join(printable(line, lines=True) for line in lines) + "\n"


def acted(place: Place, verb: Literal["retry", "delete"]) -> Callable[..., int]:
    """Make the command that sends again or deletes."""
    asks = {"retry": "Send {} again?", "delete": "Delete {}? There is no undo."}[verb]
    says = {"retry": "sent again", "delete": "deleted"}[verb]

    @click.pass_context
    def run(
        ctx: click.Context, /, words: Sequence[str], ids: Sequence[str], every: bool, dry_run: bool, yes: bool, as_json: bool, **wanted: Any
    ) -> int:
        ids = (*words, *ids)
        if not (ids or every or any(wanted[name] is not None for name in ("task", "reason", "older_than", "newer_than", "limit"))):
            raise click.UsageError(
                f"Say which: ids, a filter such as --task or --older-than, or --all. `umbel {place} list` shows them.", ctx
            )
        chosen = Choice(ctx, place, ids=ids, **wanted)
        number = sum(1 for _ in chosen)
        what = counted(number, chosen.noun)
        if number and dry_run and not as_json:
            print_table(islice(chosen, SHOWN), place, colors=not without_color(ctx))
            click.echo(f"{what} would be {says}{f', {SHOWN} of them shown' if number > SHOWN else ''}. Nothing was done.", err=True)
        elif not number and not as_json:
            click.echo(f"Nothing fits: {chosen.nothing()}", err=True)
        done = 0
        if number and not dry_run:
            if number > 1 and not yes:
                click.confirm(asks.format(what), abort=True, err=True)
            done = (chosen.letters.retry if verb == "retry" else chosen.letters.delete)(islice(chosen, number))
            if not as_json:
                click.echo(f"{counted(done, chosen.noun)} {says}.")
        if as_json:
            click.echo(json.dumps({"matched": number, says.replace(" ", "_"): done}))
        return 0 if number else 1

    return run


def group(place: Place, what: str) -> click.Group:
    """Make the commands for one place."""
    made = Subcommands(place, help=f"Look at {what}, send them again, delete them.", short_help=f"{what.capitalize()}.")
    again = [
        click.Argument(["words"], nargs=-1, metavar="[ID]..."), *filters(),
        click.Option(["--dry-run"], is_flag=True, help="Only say what would be done."),
        click.Option(["-y", "--yes"], is_flag=True, help="Do not ask."),
    ]  # fmt: skip
    one = [click.Argument(["id"]), *(each for each in filters() if each.name in {"queues", "as_json"})]
    order = "the newest first" if place == "dead" else "the oldest first"
    made.add_command(Command("list", place, callback=listed(place), params=filters(), help=f"Lists {what}, {order}."))
    made.add_command(Command("show", place, callback=shown(place), params=one, help="Prints all that is known of one."))
    made.add_command(
        Command("retry", place, callback=acted(place, "retry"), params=[*again], help="Sends them again, as if they had never died.")
    )
    made.add_command(
        Command("delete", place, callback=acted(place, "delete"), params=[*again], help="Deletes them for good. There is no undo.")
    )
    return made


dead = group("dead", "tasks that nobody can run, with the reason")
parked = group("parked", "messages that wait for a worker that knows their task")
