"""The tables, as Celery has them, and three columns of ours that Celery's programs do not see.

Celery's columns cannot hold the number of the delivery that wrote a result, when it expires, and what has no column. Where the
table is there already and may be altered, what is missing is added; all of it may be empty, so older programs do not mind.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    false,
    inspect,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

__all__ = ["OURS", "Tables"]

logger = logging.getLogger("celery.backends.database")

OURS = ("umbel_fence", "umbel_expires", "umbel_more")
TRIES = 5  # others may make the same tables at the same moment

BYTES = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")  # a BLOB of theirs ends at 64 KiB
TEXT = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
# Of MySQL, whose default may not know a snowman, and holds two ids for one that differ in case.
FORM: dict[str, Any] = {
    "sqlite_autoincrement": True,
    **dict.fromkeys(("mysql_charset", "mariadb_charset"), "utf8mb4"),
    **dict.fromkeys(("mysql_collate", "mariadb_collate"), "utf8mb4_bin"),
}
TIME = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # a DATETIME of theirs has no fractions of a second


def make_all(metadata: MetaData, engine: Engine) -> None:
    """Make the tables that are missing; others may do it at the same moment."""
    for left in reversed(range(TRIES)):
        try:
            metadata.create_all(engine)
            break
        except DBAPIError:
            if not left:
                raise


class Tables:
    """What is written to: names, schemas, and the columns that are really there.

    Args:
        names: the settings `database_table_names`: `task`, `group`.
        schemas: the settings `database_table_schemas`, likewise.
    """

    def __init__(self, names: Mapping[str, str], schemas: Mapping[str, str]) -> None:
        metadata = MetaData()
        self.tasks = Table(
            names.get("task") or "celery_taskmeta", metadata,
            primary_key("task_id_sequence", schemas.get("task")),
            Column("task_id", String(155), unique=True),
            Column("status", String(50)),
            Column("result", BYTES),
            Column("date_done", TIME, index=True),
            Column("traceback", TEXT),
            Column("children", BYTES),
            Column("name", String(155)),
            Column("args", BYTES),
            Column("kwargs", BYTES),
            Column("worker", String(155)),
            Column("retries", Integer),
            Column("queue", String(155)),
            Column("stamps", BYTES),
            Column("umbel_fence", BigInteger),
            Column("umbel_expires", Double, index=True),
            Column("umbel_more", BYTES),
            schema=schemas.get("task"), **FORM,
        )  # fmt: skip
        self.groups = Table(
            names.get("group") or "celery_tasksetmeta", metadata,
            primary_key("taskset_id_sequence", schemas.get("group")),
            Column("taskset_id", String(155), unique=True),
            Column("result", BYTES),
            Column("date_done", TIME, index=True),
            schema=schemas.get("group"), **FORM,
        )  # fmt: skip
        self._metadata = metadata
        self.columns: tuple[str, ...] = ()

    @property
    def fenced(self) -> bool:
        """Does the table have our columns?"""
        return all(name in self.columns for name in OURS)

    def prepare(self, engine: Engine) -> None:
        """Make what is missing, as far as this user may. Mostly nothing is, and one question tells."""
        with contextlib.suppress(DBAPIError), engine.connect() as connection:
            connection.execute(select(self.tasks).where(false()))
            self.columns = tuple(column.name for column in self.tasks.columns if column.name != "id")
            return
        make_all(self._metadata, engine)
        with engine.connect() as connection:
            there = columns_of(connection, self.tasks)
        for column in self.tasks.columns:
            if column.name not in there and self._added(engine, column):
                there.add(column.name)
        self.columns = tuple(column.name for column in self.tasks.columns if column.name in there and column.name != "id")

    def _added(self, engine: Engine, column: Column[object]) -> bool:
        """Add a column to a table that somebody else has made; answer whether it is there now."""
        table = engine.dialect.identifier_preparer.format_table(self.tasks)
        statement = f"ALTER TABLE {table} ADD COLUMN {CreateColumn(column).compile(dialect=engine.dialect)}"
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
        except DBAPIError as exc:
            with engine.connect() as connection:
                if column.name in columns_of(connection, self.tasks):  # another was faster
                    return True
            logger.warning(
                "The table %s has no column %s, and this user may not add it (%s). %s Let somebody who may run: %s", self.tasks.name,
                column.name, exc.orig, "An older delivery of a task may write over a newer one." if column.name in OURS else "", statement,
            )  # fmt: skip
            return False
        return True


def primary_key(sequence: str, schema: str | None) -> Column[int]:
    """Return the key, which has a sequence where the database knows sequences."""
    return Column("id", Integer, Sequence(sequence, schema=schema), primary_key=True, autoincrement=True)


def columns_of(connection: Connection, table: Table) -> set[str]:
    """Return the columns that *table* has in the database."""
    return {column["name"] for column in inspect(connection).get_columns(table.name, schema=table.schema)}
