"""`umbel stats`."""

from __future__ import annotations

import json
import time

import click

from umbel import states
from umbel.broker import TALLIES_KEPT
from umbel.cli.base import CommaList, Command, current_app_of, without_color
from umbel.cli.tables import print_rows
from umbel.tally import LOST, Row, rows_of

__all__ = ["stats"]

MINUTE = 60
MOST = TALLIES_KEPT // MINUTE - 1  # that are whole and are surely kept
SHOWN = {"DONE": states.SUCCESS, "FAILED": states.FAILURE, "RETRIED": states.RETRY, "LOST": LOST}
HEADS = ("QUEUE", "TASK", *SHOWN, "OTHER", "PER MIN", "WAIT P50", "WAIT P95", "RUN P50", "RUN P95")
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
PARAMETERS: list[click.Parameter] = [
    click.Option(["-Q", "--queues"], type=CommaList(), help="Queues, separated by commas, instead of all of task_queues."),
    click.Option(
        ["--minutes"], type=click.IntRange(1, MOST), default=60, show_default=True,
        help="How many minutes to look back; the one that has begun comes on top.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one object on a line."),
]  # fmt: skip


@click.pass_context
def show(ctx: click.Context, queues: list[str] | None, minutes: int, as_json: bool) -> None:
    """Prints what tasks came to in the last minutes, and how long they waited and ran, by queue and task."""
    app = current_app_of(ctx)
    app.import_default_modules()
    now = time.time()
    since = (now // MINUTE - minutes) * MINUTE
    names = list(queues or app.consumed_queues())
    rows = rows_of({name: app.broker.tallies(name, since=since) for name in names})
    passed = (now - since) / MINUTE
    if as_json:
        for row in rows:
            click.echo(json.dumps(described(row, passed)))
        return
    if not rows:
        click.echo(f"Nothing was counted on {', '.join(names)} in the last {minutes} minute(s).", err=True)
        return
    print_rows(HEADS, [cells(row, passed) for row in rows], numbers=len(HEADS) - 2, colors=not without_color(ctx))


def described(row: Row, minutes: float) -> dict[str, object]:
    """Return what programs read of *row*."""
    return {
        "queue": row.queue, "task": row.task, "ends": dict(sorted(row.ends.items())), "per_minute": round(row.total / minutes, 3),
        "wait_p50": row.wait(0.5), "wait_p95": row.wait(0.95), "run_p50": row.run(0.5), "run_p95": row.run(0.95),
    }  # fmt: skip


def cells(row: Row, minutes: float) -> tuple[str, ...]:
    """Return what people read of *row*."""
    shown = [row.ends[end] for end in SHOWN.values()]
    counts = (f"{count:,}" for count in (*shown, row.total - sum(shown)))
    times = (duration(each) for each in (row.wait(0.5), row.wait(0.95), row.run(0.5), row.run(0.95)))
    return row.queue, row.task, *counts, f"{row.total / minutes:,.1f}", *times


def duration(seconds: float | None) -> str:
    """Return a time in a unit that suits it."""
    if seconds is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), (0.001, "ms"))
    return f"{seconds / size:.3g}{unit}"


stats = Command("stats", callback=show, params=PARAMETERS, help=show.__doc__, short_help="Print what tasks came to, and how fast.")
