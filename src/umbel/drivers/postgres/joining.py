"""Publishing inside a transaction of the caller's, through its own connection.

Nothing is begun, committed or rolled back here, and no wait is bounded: that is the caller's, and so are the errors of its library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import psycopg

from umbel.broker import Item
from umbel.drivers.postgres import statements as sql
from umbel.drivers.postgres.database import Database
from umbel.drivers.postgres.schema import rename
from umbel.drivers.postgres.settling import columns, keys_of
from umbel.exceptions import ImproperlyConfigured, NotSupported

__all__ = ["Joining"]

Execute = Callable[[str, tuple[Any, ...]], list[Any]]

THERE = "SELECT to_regclass(%s) IS NOT NULL, current_database()"
WHICH = "SELECT id::text FROM umbel.store"
KNOWN = "a connection of psycopg or SQLAlchemy, a Session of SQLAlchemy, or a connection or alias of Django's"


class Joining:
    """Publishes through connections of the caller's, each of which is checked once: it must lead to the broker's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checked: WeakSet[Any] = WeakSet()
        self._store = ""
        self._lock = threading.Lock()

    def publish(self, using: object, items: Sequence[Item]) -> None:
        """Make *items* part of the transaction of *using*."""
        execute, connection = open_up(using)
        with self._lock:
            checked = connection in self._checked
        if not checked:
            self._check(execute)
            with self._lock:
                self._checked.add(connection)
        if items:
            keys = keys_of(items)
            statement = sql.PUBLISH_ONCE_USING if keys else sql.PUBLISH_USING
            execute(rename(statement, self._database.schema), (*columns(items), *keys))

    def _check(self, execute: Execute) -> None:
        """Refuse a connection to another database.

        Raises:
            ImproperlyConfigured: the tables are not there, or others are.
        """
        if not self._store:  # by a connection of our own, which makes the tables if they are missing
            self._store = self._database.call(WHICH, repeat=True)[0][0]
        schema = self._database.schema
        there, name = execute(THERE, (f"{schema}.store",))[0]
        if not there or execute(rename(WHICH, schema), ())[0][0] != self._store:
            raise ImproperlyConfigured(
                f"The connection that was given leads to the database {name!r}, which is not the broker's "
                f"({self._database.shown}). A call can be part of a transaction only in the broker's own database."
            )


def open_up(using: object) -> tuple[Execute, Any]:
    """Return what executes SQL through *using*, and the connection that it stands for.

    Raises:
        NotSupported: it is no connection that can be used.
    """
    kind = type(using)
    libraries = {each.__module__.partition(".")[0] for each in kind.__mro__}  # it may be of a class that was derived from theirs
    if isinstance(using, psycopg.Connection):
        return of_cursor(using), using
    if "sqlalchemy" in libraries:
        return of_sqlalchemy(using)
    if getattr(using, "vendor", None) == "postgresql":  # Django's wrapper, which connects when it needs to
        wrapper: Any = using
        wrapper.ensure_connection()
        return of_cursor(wrapper), wrapper.connection
    if "psycopg2" in libraries:
        return of_cursor(using), using
    raise NotSupported(
        f"A call cannot be sent through {kind.__module__}.{kind.__qualname__}. Give {KNOWN}; synchronous, and to PostgreSQL."
    )


def of_cursor(connection: Any) -> Execute:
    """Return what executes SQL through a cursor of *connection*."""

    def execute(statement: str, params: tuple[Any, ...]) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            return list(cursor.fetchall())

    return execute


def of_sqlalchemy(using: Any) -> tuple[Execute, Any]:
    """Return what executes SQL through SQLAlchemy, so that it knows of the transaction that begins with it."""
    session = hasattr(using, "get_bind") and not hasattr(using, "sync_session")  # the latter is an AsyncSession
    connection: Any = using.connection() if session else using
    dialect: Any = getattr(connection, "dialect", None)
    if not hasattr(connection, "exec_driver_sql") or dialect.name != "postgresql" or dialect.driver not in {"psycopg", "psycopg2"}:
        kind, known = type(using), "" if dialect is None else f" Its engine is {dialect.name}+{dialect.driver}://."
        raise NotSupported(
            f"A call cannot be sent through {kind.__module__}.{kind.__qualname__}.{known} Give a Connection or a Session of an engine "
            "postgresql+psycopg://; not an AsyncSession, but its sync_session."
        )

    def execute(statement: str, params: tuple[Any, ...]) -> list[Any]:
        return list(connection.exec_driver_sql(statement, params))

    return execute, connection.connection.dbapi_connection
