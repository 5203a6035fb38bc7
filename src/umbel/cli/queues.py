"""`umbel queues`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from umbel.cli.base import CommaList, Command, current_app_of, without_color
from umbel.cli.tables import print_rows

__all__ = ["queues"]

PLACES = ("ready", "delayed", "claimed", "parked", "dead")
PARAMETERS: list[click.Parameter] = [
    click.Option(["-Q", "--queues"], type=CommaList(), help="Queues, separated by commas, instead of all of task_queues."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one object on a line."),
]


@click.pass_context
def show(ctx: click.Context, queues: list[str] | None, as_json: bool) -> None:
    """Prints how many messages each queue holds: ready, delayed, claimed by a worker, parked, dead."""
    app = current_app_of(ctx)
    app.import_default_modules()
    depths = {name: asdict(depth) for name, depth in app.broker.depth(queues or app.consumed_queues()).items()}
    if as_json:
        for name, depth in depths.items():
            click.echo(json.dumps({"queue": name, **depth}))
        return
    rows = [(name, *("?" if depth[place] is None else f"{depth[place]:,}" for place in PLACES)) for name, depth in depths.items()]
    print_rows(("QUEUE", *(place.upper() for place in PLACES)), rows, numbers=len(PLACES), colors=not without_color(ctx))


queues = Command("queues", callback=show, params=PARAMETERS, help=show.__doc__, short_help="Print how much each queue holds.")
