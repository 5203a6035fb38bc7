"""`umbel report`."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.base import Command, current_app_of
from umbel.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["report"]

PACKAGES = (
    "umbel", "click", "msgspec", "redis", "hiredis", "psycopg", "sqlalchemy", "psycopg2", "pymysql", "mysqlclient", "django",
    "djangorestframework", "celery", "kombu",
)  # fmt: skip

PARAMETERS: list[click.Parameter] = [click.Option(["--json", "as_json"], is_flag=True, help="Print it as JSON.")]


@click.pass_context
def describe(ctx: click.Context, as_json: bool) -> None:
    """Prints what a bug report should hold: software, platform, app, and the settings without their secrets."""
    facts = gather(current_app_of(ctx, needed=False))
    click.echo(json.dumps(facts, default=repr, indent=2, ensure_ascii=False) if as_json else as_text(facts))


def gather(app: Umbel) -> dict[str, dict[str, Any]]:
    """Collect the facts."""
    app.import_default_modules()
    return {
        "software": {"python": platform.python_version(), **installed()},
        "platform": {
            "system": platform.system(), "release": platform.release(), "machine": platform.machine(),
            "implementation": platform.python_implementation(), "executable": sys.executable,
        },
        "app": {
            "name": app.main or "__main__", "transport": address(app.broker_address), "results": address(app.backend_address),
            "tasks": sorted(app.tasks),
        },
        "settings": dict(app.conf.table(with_defaults=False, censored=True)),
    }  # fmt: skip


def address(of: Callable[[], str]) -> str:
    """Return an address; a report is asked for just when something is missing."""
    try:
        return of()
    except ImproperlyConfigured as exc:
        return f"not usable: {exc}"


def installed() -> dict[str, str]:
    """Return the versions of the packages that matter here."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def as_text(facts: dict[str, dict[str, Any]]) -> str:
    """Lay the facts out, one on a line."""
    lines = []
    for part, entries in facts.items():
        lines += ["", part] + [f"  {name}: {shown(value)}" for name, value in entries.items()]
    return "\n".join(lines[1:])


def shown(value: Any) -> str:
    """Return a list of words as words, a text as it is, everything else as Python writes it."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else repr(value)


report = Command("report", callback=describe, params=PARAMETERS, help=describe.__doc__, short_help="Print what a bug report needs.")
