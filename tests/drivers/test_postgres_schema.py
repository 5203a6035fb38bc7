"""The tables in PostgreSQL: made at the first use, by many at once, or by `umbel migrate`; never changed in silence."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from umbel.drivers.postgres import PostgresBackend, PostgresBroker
from umbel.drivers.postgres.schema import LOCK, found, migrate, migrations, rename
from umbel.exceptions import ImproperlyConfigured
from umbel.testing.conformance.base import item, settlement

pytestmark = pytest.mark.postgres

PUBLISH = """
import sys
from umbel.drivers.postgres import PostgresBroker
from umbel.testing.conformance.base import item
sys.stdin.readline()
broker = PostgresBroker(sys.argv[1], options={"schema": sys.argv[2]})
broker.publish([item("q", sys.argv[3])])
broker.close()
"""


def run(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def begin_publishing(count, *where):
    """Processes that publish their first message at the same time."""
    command = [sys.executable, "-c", PUBLISH, *where]
    started = [
        subprocess.Popen([*command, f"m{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for n in range(count)
    ]
    for process in started:
        process.stdin.write("now\n")
        process.stdin.flush()
    return started


def end_well(started):
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)


def runner(connection):
    def execute(statement, params=None):
        cursor = connection.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

    return execute


def until_waits(holder, number):
    """Return when *number* wait for the lock that *holder* has."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
    deadline = time.monotonic() + 30
    while holder.execute(waiting, (LOCK,)).fetchone() != (number,):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def broker(postgres_url, postgres_schema):
    broker = PostgresBroker(postgres_url, options={"schema": postgres_schema})
    yield broker
    broker.close()


def other(url, schema, **options):
    return PostgresBroker(url, options={"schema": schema, **options})


def test_many_processes_that_start_at_once_make_the_tables_once(postgres_url, postgres_schema):
    end_well(begin_publishing(12, postgres_url, postgres_schema))
    assert run(postgres_url, f"SELECT count(*) FROM {postgres_schema}.ready") == [(12,)]
    names = run(postgres_url, f"SELECT name FROM {postgres_schema}.migrations ORDER BY number")
    assert names == [(each.name,) for each in migrations()]


def test_the_time_that_making_the_tables_takes_is_not_taken_from_the_first_calls(postgres_url, postgres_schema):
    with psycopg.connect(postgres_url) as another:
        another.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        started = begin_publishing(8, postgres_url, postgres_schema)
        until_waits(another, 8)
        time.sleep(2.5)  # all of the time that a call has
    end_well(started)


def test_those_who_waited_for_another_to_make_the_tables_see_them(postgres_url, postgres_schema):
    begun = threading.Barrier(8)

    def make(schema):
        with psycopg.connect(postgres_url) as connection:
            assert found(runner(connection), schema) == (0, 0)  # the server keeps for this session that there are none
            connection.commit()
            begun.wait(timeout=30)
            return len(migrate(runner(connection), schema))

    with ThreadPoolExecutor(8) as sessions:
        for attempt in range(12):
            schema = f"{postgres_schema}_{attempt}"
            made = list(sessions.map(make, [schema] * 8, timeout=60))
            run(postgres_url, f"DROP SCHEMA {schema} CASCADE")
            assert sorted(made) == [0] * 7 + [len(migrations())]


def test_tables_are_made_once_also_where_transactions_are_serializable(postgres_url, postgres_schema):
    strict = f"{postgres_url}?options=-c%20default_transaction_isolation%3Dserializable"
    with psycopg.connect(postgres_url) as first, ThreadPoolExecutor(1) as threads:
        made = migrate(runner(first), postgres_schema)
        waiting = threads.submit(other(strict, postgres_schema).publish, [item("q", "a")])
        until_waits(first, 1)
        first.commit()
        assert made
        waiting.result(timeout=30)


def test_threads_that_start_at_once_wait_for_the_one_that_makes_the_tables(broker, postgres_url):
    with psycopg.connect(postgres_url) as another, ThreadPoolExecutor(4) as threads:
        another.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        published = [threads.submit(broker.publish, [item("q", f"m{n}")]) for n in range(4)]
        time.sleep(2.5)  # all of the time that a call has
        another.rollback()
        for each in published:
            each.result(timeout=30)
    assert broker.depth(["q"])["q"].ready == 4


def test_migrating_says_what_it_did_and_the_second_time_that_there_is_nothing_to_do(broker):
    assert broker.migrate() == [each.name for each in migrations()]
    assert broker.migrate() == []
    broker.publish([item("q", "a")])


def test_the_sql_that_is_shown_makes_what_migrating_makes(broker, postgres_url, postgres_schema):
    run(postgres_url, broker.migration_sql())
    assert broker.migrate() == []
    broker.publish([item("q", "a")])
    assert broker.depth(["q"])["q"].ready == 1


def test_a_schema_that_is_there_already_is_used_by_one_who_may_not_make_any(postgres_url, postgres_schema):
    role = f"{postgres_schema}_role"
    run(postgres_url, f"CREATE SCHEMA {postgres_schema}; CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA {postgres_schema} TO {role}")
    try:
        broker = other(postgres_url.replace("postgres@", f"{role}@", 1), postgres_schema)
        broker.publish([item("q", "a")])
        broker.close()
    finally:
        run(postgres_url, f"DROP SCHEMA {postgres_schema} CASCADE; DROP ROLE {role}")


def test_a_user_without_rights_is_told_so(postgres_url, postgres_schema, broker):
    broker.publish([item("q", "a")])
    role = f"{postgres_schema}_role"
    run(postgres_url, f"CREATE ROLE {role} LOGIN")
    try:
        stranger = other(postgres_url.replace("postgres@", f"{role}@", 1), postgres_schema)
        with pytest.raises(Exception, match=r"permission denied.*Grant the user its rights"):
            stranger.publish([item("q", "a")])
        stranger.close()
    finally:
        run(postgres_url, f"DROP ROLE {role}")


def test_a_user_with_rights_on_tables_and_sequences_alone_works_and_drops_what_is_old(postgres_url, postgres_schema, broker):
    broker.migrate()
    role = f"{postgres_schema}_role"
    rights = (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {postgres_schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {postgres_schema} TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {postgres_schema} TO {role}",
    )
    run(postgres_url, ";".join(rights))
    try:
        user = other(postgres_url.replace("postgres@", f"{role}@", 1), postgres_schema, migrate=False)
        user.join("w", ["q"], lease=60)
        user.publish([item("q", f"m{n}", size=500) for n in range(100)])
        held = user.fetch("q", 100, owner="w", seq=1)
        assert all(user.settle([settlement(each) for each in held]))
        user._database.call("SELECT umbel.turn('ready', 1, 2000, 1048576)")
        assert user._database.call("SELECT pg_relation_size(%s)", (f"{postgres_schema}.ready_0",)) == [(0,)]
        user.revoke(["x"], ttl=60)
        user.wait("w", ["q"], 0.01)
        user.promote("q")
        assert user.purge("q") == 0
        user.leave("w", ["q"])
        user.close()
    finally:
        run(postgres_url, f"DROP SCHEMA {postgres_schema} CASCADE; DROP ROLE {role}")


def test_tables_are_not_made_if_the_option_migrate_is_off(postgres_url, postgres_schema):
    broker = other(postgres_url, postgres_schema, migrate=False)
    with pytest.raises(ImproperlyConfigured, match=r"has no tables of umbel.*umbel migrate"):
        broker.publish([item("q", "a")])
    assert broker.migrate()
    broker.publish([item("q", "a")])
    broker.close()


def test_older_tables_are_not_changed_in_silence(broker, postgres_url, postgres_schema):
    broker.migrate()
    last = migrations()[-1].number
    run(postgres_url, f"DELETE FROM {postgres_schema}.migrations WHERE number = {last}")
    with pytest.raises(ImproperlyConfigured, match=f"migration {last - 1}.*needs {last}.*umbel migrate"):
        broker.publish([item("q", "a")])


def test_newer_tables_are_used_if_they_serve_this_code_and_else_it_says_so(broker, postgres_url, postgres_schema):
    broker.migrate()
    last = migrations()[-1].number
    add = f"INSERT INTO {postgres_schema}.migrations (number, name, serves) VALUES (%d, 'later', %d)"
    run(postgres_url, add % (last + 1, last))
    broker.publish([item("q", "a")])
    run(postgres_url, add % (last + 2, last + 1))
    broker.publish([item("q", "a")])  # it looked at its first use
    late = other(postgres_url, postgres_schema)
    with pytest.raises(ImproperlyConfigured, match=r"made by a newer umbel.*Update umbel here"):
        late.publish([item("q", "a")])
    late.close()


def test_tables_that_were_dropped_are_made_again_by_the_next_call_but_one(broker, postgres_url, postgres_schema):
    broker.publish([item("q", "a")])
    run(postgres_url, f"DROP SCHEMA {postgres_schema} CASCADE")
    with pytest.raises(Exception, match="does not exist"):
        broker.publish([item("q", "b")])
    broker.publish([item("q", "c")])
    assert broker.depth(["q"])["q"].ready == 1


def test_two_schemas_of_one_database_know_nothing_of_each_other(broker, postgres_url, postgres_schema):
    second = other(postgres_url, f"{postgres_schema}b")
    broker.publish([item("q", "a")])
    assert second.depth(["q"])["q"].ready == 0
    backend = PostgresBackend(postgres_url, options={"schema": f"{postgres_schema}b"})
    assert not broker.settles_with(backend)
    assert second.settles_with(backend)
    second.close()
    backend.close()
    run(postgres_url, f"DROP SCHEMA {postgres_schema}b CASCADE")


def test_every_name_in_the_sql_follows_the_schema():
    for each in migrations():
        code = "\n".join(line.partition("--")[0] for line in each.sql.splitlines())
        assert "umbel" not in rename(code, "elsewhere")
