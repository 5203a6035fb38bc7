"""Makes or drops procrastinate's schema: python procrastinate_store.py ping|make|drop; a ping only connects."""

import sys

import psycopg
from procrastinate import SyncPsycopgConnector
from procrastinate_app import PG_URL, SCHEMA, app


def main(what):
    with psycopg.connect(PG_URL, autocommit=True, connect_timeout=3) as connection:
        if what in {"make", "drop"}:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        if what == "make":
            connection.execute(f"CREATE SCHEMA {SCHEMA}")
    if what == "make":
        connector = SyncPsycopgConnector(conninfo=PG_URL, kwargs={"options": f"-c search_path={SCHEMA}"})
        with app.with_connector(connector).open() as synchronous:
            synchronous.schema_manager.apply_schema()


main(sys.argv[1])
