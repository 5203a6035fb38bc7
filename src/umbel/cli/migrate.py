"""`umbel migrate`."""

from __future__ import annotations

import click

from umbel.backend import ResultBackend
from umbel.broker import Broker
from umbel.cli.base import Command, current_app_of

__all__ = ["migrate"]

PARAMETERS: list[click.Parameter] = [
    click.Option(["--show-sql"], is_flag=True, help="Print the SQL that makes all tables in a new database, and change nothing."),
]


@click.pass_context
def bring_up_to_date(ctx: click.Context, show_sql: bool) -> None:
    """Brings the tables of the broker (or of `umbel_state_url` beside it) and of the result backend up to date, and says what it did.

    Only PostgreSQL has tables that need it. It may be called again at any time, also by many at once, before new workers start.
    """
    app = current_app_of(ctx)
    stores: list[tuple[str, str, Broker | ResultBackend]] = [
        ("broker", app.broker_address(), app.broker),
        ("results", app.backend_address(), app.backend),
    ]
    if show_sql:
        click.echo("\n".join(dict.fromkeys(sql for _, _, store in stores if (sql := store.migration_sql()))))
        return
    for name, address, store in stores:
        click.echo(f"{name} {address}: {outcome(store)}.")


def outcome(store: Broker | ResultBackend) -> str:
    """Migrate one store, and say what was done."""
    done = store.migrate()
    if done is None:
        return "nothing to migrate"
    return f"carried out {', '.join(done)}" if done else "up to date"


migrate = Command(
    "migrate", callback=bring_up_to_date, params=PARAMETERS, help=bring_up_to_date.__doc__, short_help="Bring the tables up to date."
)
