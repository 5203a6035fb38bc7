"""The tables and functions of the driver: numbered SQL files, each carried out once in a database, and written down there.

Knows no client library: `umbel migrate --show-sql` and Django's migrations use it, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from umbel.exceptions import ImproperlyConfigured

__all__ = ["Run", "check", "found", "migrate", "migrations", "rename", "schema_of", "script"]

DEFAULT = "umbel"
NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
SERVES = re.compile(r"^-- serves: (\d+)$", re.MULTILINE)
LOCK = 1886217577  # of those who migrate: one at a time in a database

# Read as rows: who waited for another to make them is told by to_regclass(), out of its cache, that there are still none.
TABLES = """
SELECT 1 FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace AS space ON space.oid = relnamespace
WHERE nspname = %s AND relname = 'migrations'"""

Run = Callable[..., Sequence[Sequence[Any]]]  # executes one text of SQL with parameters, and returns rows


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    serves: int  # the oldest code that can use a database in which this was carried out: it knows the migration with this number
    sql: str  # with the schema `umbel`


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all, in their order."""
    folder = resources.files("umbel.drivers.postgres") / "migrations"
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    made = []
    for file in files:
        sql = file.read_text()
        serves = SERVES.search(sql)
        assert serves, f"{file.name} does not say which code it serves"
        name = file.name.removesuffix(".sql")
        made.append(Migration(int(name.partition("_")[0]), name, int(serves[1]), sql))
    return tuple(made)


def schema_of(options: Mapping[str, Any]) -> str:
    """Return the option `schema`: where the tables are.

    Raises:
        ImproperlyConfigured: it cannot be a name.
    """
    name = str(options.get("schema", DEFAULT))
    if not NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"The option schema of PostgreSQL is {name!r}. Use 1 to 40 of the small letters a to z, digits and _, not a digit first."
        )
    return name


@lru_cache(maxsize=256)
def rename(sql: str, schema: str) -> str:
    """Return *sql* for another schema than `umbel`. Kept, as it is asked for each call."""
    return sql if schema == DEFAULT else re.sub(rf"\b{DEFAULT}\.(?=[a-z%'])", f"{schema}.", sql)


def script(schema: str, *, after: int = 0) -> str:
    """Return the SQL that makes everything, or what comes after the migration with the number *after*."""
    parts = [] if after else [before(schema)]
    for each in migrations():
        if each.number > after:
            parts += [rename(each.sql, schema), note(each, schema) + ";\n"]
    return "\n".join(parts)


def before(schema: str) -> str:
    """Return the SQL that makes the schema, and the table in which migrations are written down."""
    return (
        f"CREATE SCHEMA IF NOT EXISTS {schema};\n"
        f"CREATE TABLE IF NOT EXISTS {schema}.migrations (\n"
        "    number integer PRIMARY KEY, name text NOT NULL, serves integer NOT NULL, at timestamptz NOT NULL DEFAULT now()\n);\n"
    )


def note(migration: Migration, schema: str) -> str:
    """Return the SQL that writes *migration* down."""
    return (
        f"INSERT INTO {schema}.migrations (number, name, serves) "  # noqa: S608 - our own names and numbers
        f"VALUES ({migration.number}, '{migration.name}', {migration.serves})"
    )


def found(run: Run, schema: str) -> tuple[int, int]:
    """Return the number of the last migration that was carried out, 0 if none was, and the oldest code that the tables serve."""
    if not run(TABLES, (schema,)):
        return 0, 0
    rows = run(f"SELECT coalesce(max(number), 0), coalesce(max(serves), 0) FROM {schema}.migrations")  # noqa: S608
    return int(rows[0][0]), int(rows[0][1])


def migrate(run: Run, schema: str, *, upto: int | None = None) -> list[str]:
    """Carry out what is missing, in the transaction of *run*; return the names of what was. Safe for many at once."""
    run(f"SELECT pg_advisory_xact_lock({LOCK})")
    last, _ = found(run, schema)
    if not last and run("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)) == []:
        run(f"CREATE SCHEMA {schema}")
    if not last:
        run(before(schema).partition("\n")[2])
    done = []
    for each in migrations():
        if last < each.number <= (upto or each.number):
            run(rename(each.sql, schema))
            run(note(each, schema))
            done.append(each.name)
    return done


def check(last: int, serves: int, schema: str, where: str) -> None:
    """Refuse tables that this code cannot use.

    Raises:
        ImproperlyConfigured: they are missing, older, or too new.
    """
    mine = migrations()[-1].number
    if last == 0:
        raise ImproperlyConfigured(
            f"{where} has no tables of umbel in the schema {schema!r}, and the option migrate is off. Make them with: umbel migrate"
        )
    if last < mine:
        raise ImproperlyConfigured(
            f"{where} has the tables of migration {last} in the schema {schema!r}, and this umbel needs {mine}. Run once: umbel migrate"
        )
    if serves > mine:
        raise ImproperlyConfigured(
            f"{where} has the tables of migration {last} in the schema {schema!r}, made by a newer umbel; this one knows {mine}, and they "
            f"serve code that knows at least {serves}. Update umbel here."
        )
