"""`umbel beat`: send periodic tasks; look at the schedule, and change it, while it runs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Command, Subcommands, current_app_of, is_quiet, without_color
from umbel.cli.launch import Launch, launched
from umbel.cli.tables import ago, print_rows
from umbel.cli.worker import LEVELS, Octal
from umbel.ids import nodename

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.beat.editing import Schedule
    from umbel.beat.entry import Entry
    from umbel.schedule_store import State

__all__ = ["beat"]

AS_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one object on a line.")


def options() -> list[click.Parameter]:
    """Make the options of the scheduler."""
    level = click.Choice(LEVELS, case_sensitive=False)
    return [
        click.Option(["-l", "--loglevel"], type=level, default="WARNING", show_default=True, help="What to log."),
        click.Option(["-f", "--logfile"], type=click.Path(dir_okay=False), help="File for the log, instead of standard error."),
        click.Option(["-D", "--detach"], is_flag=True, help="Go on in the background; the command ends when it has started."),
        click.Option(["--pidfile"], type=click.Path(dir_okay=False), help="File for the process id."),
        click.Option(["--uid"], metavar="USER", help="The user to become, if root starts it."),
        click.Option(["--gid"], metavar="GROUP", help="The group to become, if root starts it."),
        click.Option(["--umask"], type=Octal(), help="Permissions that new files do not get, such as 022."),
        click.Option(
            ["-S", "--scheduler"], metavar="CLASS", help="Run this subclass of umbel.beat.Scheduler instead of umbel's scheduler."
        ),
        click.Option(["--max-interval"], type=click.FloatRange(min=0), help="Seconds between two looks of such a class at most."),
        click.Option(["-s", "--schedule"], type=click.Path(dir_okay=False), help="File of umbel.beat.PersistentScheduler."),
    ]


@click.pass_context
def run_scheduler(ctx: click.Context, /, **given: Any) -> int | None:
    """Sends periodic tasks when they are due, until it is told to stop; start as many as you like, of which one sends.

    With one of the commands below it shows the schedule or changes it.
    """
    launch = Launch.take(given)
    if ctx.invoked_subcommand is not None:
        return None
    given["loglevel"] = "CRITICAL" if given["loglevel"] == "FATAL" else given["loglevel"]
    with launched(launch, node=nodename("celerybeat@%h"), logfile=given["logfile"]) as report:
        code = int(current_app_of(ctx).Beat(**given, quiet=is_quiet(ctx), no_color=without_color(ctx)).run(ready=report.ready))
        report.ended(code)
    return code


def opened(ctx: click.Context) -> Umbel:
    """Return the app, with its tasks."""
    app = current_app_of(ctx)
    app.import_default_modules()
    app.finalize()
    if app.conf.beat_scheduler:
        raise click.UsageError(
            f"beat_scheduler is {app.conf.beat_scheduler!r}, which keeps the schedule itself: look at it, and change it, there.", ctx
        )
    return app


@click.pass_context
def show_entries(ctx: click.Context, as_json: bool) -> None:
    """Prints each periodic task: when it runs, ran last and runs next."""
    from umbel.beat.editing import open_schedule

    app = opened(ctx)
    with open_schedule(app) as schedule:
        documents = [document(app, schedule, *each) for each in schedule]
    if as_json:
        for each in documents:
            click.echo(json.dumps(each))
        return
    if not documents:
        click.echo("There are no periodic tasks. Write them into beat_schedule.")
        return
    rows = [row_of(each) for each in documents]
    print_rows(("NAME", "TASK", "WHEN", "LAST", "NEXT", "RUNS"), rows, numbers=1, colors=not without_color(ctx))


def row_of(each: dict[str, Any]) -> tuple[str, ...]:
    """Return what a table says of an entry."""
    following = short(each["next"]) if each["enabled"] else "paused"
    return each["name"], each["task"], each["schedule"], since(each["last"]), following, f"{each['runs']:,}"


def document(app: Umbel, schedule: Schedule, entry: Entry, state: State) -> dict[str, Any]:
    """Return what JSON says of an entry."""
    from umbel.beat.planning import ran_at
    from umbel.beat.sending import run_id

    following = schedule.upcoming(entry, state, 1) if entry.enabled else []
    return {
        "name": entry.name, "task": entry.task, "schedule": entry.schedule.describe(), "enabled": entry.enabled,
        "last": text(app, ran_at(entry, state)) if state.id else None,
        "last_id": run_id(app, state.id, entry.options) if state.id else None,
        "runs": state.runs,
        "next": text(app, following[0]) if following else None, "misfire": entry.misfire, "overlap": entry.overlap,
    }  # fmt: skip


def text(app: Umbel, slot: float) -> str:
    """Return a moment in the app's zone."""
    return datetime.fromtimestamp(slot, app.timezone).isoformat()


def short(moment: str | None) -> str:
    """Return a moment for people."""
    return "never" if moment is None else datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S %Z")


def since(moment: str | None) -> str:
    """Return how long ago it was."""
    return "-" if moment is None else ago(datetime.fromisoformat(moment).timestamp())


@click.pass_context
def show_next(ctx: click.Context, name: str | None, count: int, as_json: bool) -> None:
    """Prints when a periodic task runs next, or what runs next of all."""
    from umbel.beat.editing import open_schedule

    app = opened(ctx)
    with open_schedule(app) as schedule:
        chosen = list(schedule) if name is None else [schedule.find(name)]
        found = [(slot, entry) for entry, state in chosen if entry.enabled or name for slot in schedule.upcoming(entry, state, count)]
    found.sort(key=lambda each: (each[0], each[1].name))
    for slot, entry in found[:count]:
        when = text(app, slot)
        if as_json:
            click.echo(json.dumps({"name": entry.name, "task": entry.task, "at": when}))
        else:
            click.echo(f"{short(when)}  {entry.name}" + ("" if entry.enabled else "  (paused)"))


@click.pass_context
def run_entry(ctx: click.Context, name: str, as_json: bool) -> None:
    """Sends a periodic task now, beside its schedule, and prints the id of the task."""
    from umbel.beat.editing import open_schedule

    with open_schedule(opened(ctx)) as schedule:
        task_id = schedule.run(name)
    click.echo(json.dumps({"name": name, "id": task_id}) if as_json else task_id)


@click.pass_context
def pause_entry(ctx: click.Context, name: str, as_json: bool) -> None:
    """Sends nothing of a periodic task until it is resumed."""
    switch(ctx, name, enabled=False, as_json=as_json)


@click.pass_context
def resume_entry(ctx: click.Context, name: str, as_json: bool) -> None:
    """Sends a periodic task again, from now on: what was missed meanwhile is not made up for."""
    switch(ctx, name, enabled=True, as_json=as_json)


def switch(ctx: click.Context, name: str, *, enabled: bool, as_json: bool) -> None:
    """Switch an entry on or off."""
    from umbel.beat.editing import open_schedule

    with open_schedule(opened(ctx)) as schedule:
        (schedule.resume if enabled else schedule.pause)(name)
    click.echo(json.dumps({"name": name, "enabled": enabled}) if as_json else f"{name} is {'resumed' if enabled else 'paused'}.")


NAME = click.Argument(["name"])

COUNT = click.Option(["-n", "count"], type=click.IntRange(min=1), default=5, show_default=True, help="How many.")

beat = Subcommands(
    "beat", callback=run_scheduler, invoke_without_command=True, options=options(), help=run_scheduler.__doc__,
    short_help="Send periodic tasks.",
)  # fmt: skip


def add(name: str, does: Any, short_help: str, *parameters: click.Parameter) -> None:
    """Add a command about the schedule."""
    beat.add_command(Command(name, "beat", callback=does, params=[*parameters, AS_JSON], help=does.__doc__, short_help=short_help))


add("list", show_entries, "Print the schedule.")
add("next", show_next, "Print what runs next.", click.Argument(["name"], required=False), COUNT)
add("run", run_entry, "Send a periodic task now.", NAME)
add("pause", pause_entry, "Switch a periodic task off.", NAME)
add("resume", resume_entry, "Switch it on again.", NAME)
