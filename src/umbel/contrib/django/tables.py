"""Making the tables of a broker or result backend in PostgreSQL with `manage.py migrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from umbel.current import get_current_app
from umbel.drivers.postgres.schema import Run, migrate, schema_of

__all__ = ["carry_out"]

SCHEMES = {"postgres", "postgresql"}


def carry_out(number: int) -> Callable[[Any, Any], None]:
    """Return what carries out the driver's migrations up to *number*, as `RunPython` calls it."""

    def forward(apps: Any, editor: Any) -> None:  # noqa: ARG001 - Django's signature
        for schema in sorted(set(schemas_in(editor.connection))):
            migrate(run_with(editor.connection), schema, upto=number)

    return forward


def schemas_in(connection: Any) -> Iterator[str]:
    """Yield the schemas of the broker and of the result backend, if they are in the database of *connection*."""
    if connection.vendor != "postgresql":
        return
    conf = get_current_app().conf
    stores = (
        (conf.broker_write_url or conf.broker_url, conf.broker_transport_options),
        (conf.result_backend, conf.result_backend_transport_options),
    )
    for url, options in stores:
        if isinstance(url, str) and same_database(url, connection.settings_dict):
            yield schema_of(options or {})


def same_database(url: str, settings: Mapping[str, Any]) -> bool:
    """Answer whether *url* and the settings of one of Django's databases name the same."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        return False
    mine = (parts.hostname or "", str(parts.port or 5432), unquote(parts.path.lstrip("/")))
    theirs = (str(settings.get("HOST") or ""), str(settings.get("PORT") or 5432), str(settings.get("NAME") or ""))
    return mine == theirs


def run_with(connection: Any) -> Run:
    """Return what executes SQL through Django."""

    def run(sql: str, params: Sequence[Any] | None = None) -> list[Sequence[Any]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []

    return run
