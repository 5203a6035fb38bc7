"""SQL results on each database that is there: SQLite always, PostgreSQL and MariaDB where a server is."""

import json
import pickle
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.faults.proxy import Proxy

from umbel import Celery
from umbel.backend import Record
from umbel.drivers import open_backend
from umbel.exceptions import BackendUnavailable, ContentDisallowed, ImproperlyConfigured
from umbel.testing import FakeClock
from umbel.testing.conformance import BackendConformance, FlowConformance
from umbel.wire.serializers import content_types

sqlalchemy = pytest.importorskip("sqlalchemy")
SQLBackend = pytest.importorskip("umbel.drivers.sql").SQLBackend

SERVERS = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}
IDS = ["sqlite", "postgresql", "mariadb"]


@dataclass
class Database:
    """A database, or a schema, that belongs to one test."""

    kind: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)

    def backend(self, **options):
        return open_backend(f"db+{options.pop('url', self.url)}", options={**self.options, **options}, timeout=options.pop("timeout", 2.0))

    @property
    def schema(self):
        return self.options.get("table_schemas", {}).get("task")

    @contextmanager
    def connected(self):
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    def run(self, statement, **values):
        """The rows of a statement, in which {tasks} stands for the table."""
        name = "celery_taskmeta" if self.schema is None else f"{self.schema}.celery_taskmeta"
        with self.connected() as connection:
            done = connection.execute(sqlalchemy.text(statement.format(tasks=name, schema=self.schema)), values)
            return [dict(row) for row in done.mappings()] if done.returns_rows else []


@contextmanager
def database_of(request, kind):
    if kind == "sqlite":
        yield Database(kind, f"sqlite:///{request.getfixturevalue('tmp_path')}/results.sqlite3")
        return
    name = f"umbel_test_{uuid.uuid4().hex[:12]}"
    url = request.getfixturevalue(SERVERS[kind]).replace("postgresql:", "postgresql+psycopg:")
    made = Database(kind, url, {"table_schemas": {"task": name, "group": name}})
    made.run("CREATE SCHEMA {schema}")
    try:
        yield made
    finally:
        made.run("DROP SCHEMA {schema}" + (" CASCADE" if kind == "postgresql" else ""))


@pytest.fixture(params=IDS)
def database(request):
    with database_of(request, request.param) as made:
        yield made


@pytest.fixture
def postgresql(request):
    with database_of(request, "postgresql") as made:
        yield made


@pytest.fixture
def mariadb(request):
    with database_of(request, "mariadb") as made:
        yield made


@pytest.fixture
def sqlite(request):
    with database_of(request, "sqlite") as made:
        yield made


@pytest.fixture
def backend(database):
    backend = database.backend()
    yield backend
    backend.close()


class TestSQLBackend(BackendConformance, FlowConformance):
    clock = FakeClock()

    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @pytest.fixture
    def make_backend(self, database):
        def make():
            backend = SQLBackend(database.url, options=database.options, clock=self.clock)
            backend.open()  # as a worker does: making the tables is no part of what is timed
            return backend

        return make


def record(id, state="SUCCESS", result=None, *, fence=0, expires=60.0, **fields):
    document = {"status": state, "result": result, "traceback": None, "children": [], "date_done": None, **fields, "task_id": id}
    return Record(id=id, state=state, meta=json.dumps(document).encode(), fence=fence, expires=expires)


STAMPED = {"tenant": "acme"}
EXTENDED = {"name": "m.t", "args": [1, "ü"], "kwargs": {"a": None}, "worker": "w@h", "retries": 2, "queue": "celery"}
CHILD = [[["c", None], None]]


@pytest.mark.parametrize(
    "fields",
    [
        {"result": [1, {"a": [2.5, "☃", None]}], "children": CHILD, "date_done": "2026-11-23T08:22:08.358388+00:00"},
        {"date_done": "2026-11-23T09:22:08.358388+01:00", "group_id": "g", "parent_id": "p"},
        {"date_done": "2026-11-23T09:22:08+01:00", "traceback": "Traceback\n  ☃ 🌻\n", "children": None},
        {**EXTENDED},
        {"group_id": "g", "parent_id": "p", **STAMPED, **EXTENDED, "stamped_headers": ["tenant"]},
        {**EXTENDED, "name": "n" * 400, "of_another_program": {"x": 1}},
        {"result": {"__type__": "decimal", "__value__": "1.10"}},
        {"result": {"nan": float("nan"), "inf": float("-inf")}},
        {"result": ["\ud800 half", "zero \x00"]},
    ],
    ids=" ".join,
)
def test_a_document_comes_back_to_the_byte(backend, fields):
    written = record("a", **fields)
    assert backend.store([written]) == [True]
    assert json.loads(backend.get(["a"])[0]) == json.loads(written.meta) or "nan" in str(fields)
    assert backend.get(["a"]) == [written.meta]


def test_a_row_is_as_celery_writes_it(database, backend):
    fields = {"children": CHILD, "date_done": "2026-11-23T09:22:08+01:00", **STAMPED, **EXTENDED, "stamped_headers": ["tenant"]}
    backend.store([record("a", result=5, **fields), record("b", "STARTED", {"pid": 1})])
    first, second = database.run("SELECT * FROM {tasks} ORDER BY task_id")
    assert (first["task_id"], first["status"], bytes(first["result"]), first["traceback"]) == ("a", "SUCCESS", b"5", None)
    assert str(first["date_done"]).startswith("2026-11-23 08:22:08")
    assert json.loads(bytes(first["children"])) == CHILD
    assert json.loads(bytes(first["stamps"])) == {"stamped_headers": ["tenant"], "stamps": STAMPED}
    assert (bytes(first["kwargs"]), first["name"], first["worker"], first["retries"], first["queue"]) == (
        b'{"a": null}',
        "m.t",
        "w@h",
        2,
        "celery",
    )
    assert (second["status"], bytes(second["result"]), second["date_done"], second["name"]) == ("STARTED", b'{"pid": 1}', None, None)


def test_a_traceback_that_is_no_text_for_a_database_is_stored_in_escapes(backend):
    backend.store([record("a", "FAILURE", traceback="zero \x00 half \ud800 whole ☃")])
    assert json.loads(backend.get(["a"])[0])["traceback"] == "zero \\x00 half \\ud800 whole ☃"


def in_threads(*functions):
    errors = []

    def run(function):
        try:
            function()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_of_many_who_write_the_same_new_ids_at_the_same_time_exactly_one_succeeds(database):
    ids = [f"{number:03}" for number in range(60)]
    gate = threading.Barrier(6, timeout=30)
    flags = {}

    def writer(number):
        backend = database.backend(engine_options={"connect_args": {"timeout": 30}} if database.kind == "sqlite" else {})
        backend.open()
        order = ids if number % 2 else ids[::-1]
        gate.wait()
        for at in range(0, len(ids), 20):
            part = order[at : at + 20]
            flags.update(
                {(number, key): flag for key, flag in zip(part, backend.store([record(i, result=number) for i in part]), strict=True)}
            )
        backend.close()

    in_threads(*(lambda number=number: writer(number) for number in range(6)))
    backend = database.backend()
    for key, document in zip(ids, backend.get(ids), strict=True):
        winners = [number for number in range(6) if flags[number, key]]
        assert winners == [json.loads(document)["result"]]
    backend.close()


def test_tables_that_many_make_at_the_same_time_are_made_once(database):
    backends = [database.backend() for _ in range(5)]
    gate = threading.Barrier(5, timeout=30)
    in_threads(*(lambda each=each, n=n: (gate.wait(), each.store([record(f"{n}")])) for n, each in enumerate(backends)))
    assert None not in backends[0].get([f"{n}" for n in range(5)])
    for each in backends:
        each.close()


OLD = """CREATE TABLE {tasks} (id INTEGER NOT NULL PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50), result BLOB,
    date_done DATETIME, traceback TEXT)"""


def test_a_table_of_an_older_celery_gets_the_columns_that_it_lacks(sqlite):
    sqlite.run(OLD)
    sqlite.run("INSERT INTO {tasks} (task_id, status, result) VALUES ('old', 'SUCCESS', :result)", result=b"5")
    sqlite.run("INSERT INTO {tasks} (task_id, status, result) VALUES ('pickled', 'SUCCESS', :result)", result=pickle.dumps({"a": 1}, 2))
    backend = sqlite.backend()
    assert json.loads(backend.get(["old"])[0]) == {
        "status": "SUCCESS", "result": 5, "traceback": None, "children": None, "date_done": None, "task_id": "old",
    }  # fmt: skip
    backend.store([record("new", fence=7, **EXTENDED)])
    assert backend.store([record("new", "FAILURE", fence=6)]) == [False]
    with pytest.raises(ContentDisallowed, match="pickle"):
        backend.get(["pickled"])
    backend.close()
    trusting = sqlite.backend(accept=content_types(["json", "pickle"]))
    assert json.loads(trusting.get(["pickled"])[0])["result"] == {"a": 1}
    trusting.close()


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_other_serializers_keep_bare_results_too(database, serializer):
    from umbel.wire.serializers import decode, encode

    (kind,) = types = content_types([serializer])
    backend = database.backend(serializer=serializer)
    document = {**json.loads(record("a", result=[1, "☃"], group_id="g", **EXTENDED).meta)}
    backend.store([Record(id="a", state="SUCCESS", meta=encode(serializer, document)[2], expires=60)])
    assert decode(backend.get(["a"])[0], kind, "utf-8", types) == document
    (row,) = database.run("SELECT result FROM {tasks}")
    assert decode(bytes(row["result"]), kind, "utf-8", types) == [1, "☃"]
    backend.close()


def test_a_compressed_document_is_stored_in_columns_and_read_whole(database, backend):
    from umbel.meta import build_meta, encode_meta

    meta = build_meta("a", "SUCCESS", "x" * 1000)
    backend.store([Record(id="a", state="SUCCESS", meta=encode_meta(meta, compression="zlib"), expires=60)])
    assert json.loads(backend.get(["a"])[0]) == meta
    assert bytes(database.run("SELECT result FROM {tasks}")[0]["result"]) == b'"' + b"x" * 1000 + b'"'


def test_who_may_not_alter_the_table_writes_what_it_has_and_is_warned(postgresql, caplog):
    backend = postgresql.backend()
    backend.open()
    backend.close()
    user = postgresql.schema + "_user"
    postgresql.run("ALTER TABLE {tasks} DROP COLUMN umbel_fence, DROP COLUMN umbel_expires, DROP COLUMN umbel_more")
    postgresql.run(f"CREATE ROLE {user} LOGIN; GRANT USAGE ON SCHEMA {{schema}} TO {user}")
    postgresql.run(f"GRANT ALL ON ALL TABLES IN SCHEMA {{schema}} TO {user}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {{schema}} TO {user}")
    try:
        poor = postgresql.backend(url=postgresql.url.replace("postgres@", f"{user}@"))
        assert poor.store([record("a", "STARTED", fence=7), record("a", result=1, fence=8), record("a", "FAILURE")]) == [True, True, False]
        assert json.loads(poor.get(["a"])[0])["result"] == 1
        assert poor.prune() == 0
        poor.close()
    finally:
        postgresql.run(f"DROP OWNED BY {user}; DROP ROLE {user}")
    assert "has no column umbel_fence, and this user may not add it" in caplog.text
    assert "Let somebody who may run: ALTER TABLE" in caplog.text


def test_rows_of_celery_expire_by_their_date_and_ours_by_what_was_asked(database):
    backend = database.backend(expires=3600.0)
    backend.store([record(name, expires=None if name == "kept" else 60.0) for name in ("kept", "ours", "theirs", "theirs-new")])
    database.run("UPDATE {tasks} SET umbel_expires = NULL, date_done = '2020-01-01 00:00:00' WHERE task_id = 'theirs'")
    database.run("UPDATE {tasks} SET umbel_expires = NULL WHERE task_id = 'theirs-new'")
    database.run("UPDATE {tasks} SET umbel_expires = 1 WHERE task_id = 'ours'")
    assert backend.prune() == 2
    assert [document is not None for document in backend.get(["kept", "ours", "theirs", "theirs-new"])] == [True, False, False, True]
    backend.close()


def test_many_that_have_expired_are_pruned_in_steps(sqlite):
    backend = sqlite.backend()
    backend.store([record(f"{number}") for number in range(2500)])
    sqlite.run("UPDATE {tasks} SET umbel_expires = 1")
    assert backend.prune() == 2500
    assert sqlite.run("SELECT * FROM {tasks}") == []
    backend.close()


def test_a_process_that_writes_deletes_what_has_expired_by_itself(sqlite):
    first = sqlite.backend()
    first.store([record("gone", expires=0.05)])
    first.close()
    threading.Event().wait(0.1)
    second = sqlite.backend()
    second.store([record("new")])
    assert [row["task_id"] for row in sqlite.run("SELECT task_id FROM {tasks}")] == ["new"]
    second.close()


def test_a_process_that_writes_deletes_saved_groups_that_have_expired(sqlite):
    first = sqlite.backend(expires=3600.0)
    for name in ("old", "new"):
        first.save_group(name, b'{"result": []}', expires=3600.0)
    first.close()
    sqlite.run("UPDATE celery_tasksetmeta SET date_done = '2020-01-01 00:00:00' WHERE taskset_id = 'old'")
    second = sqlite.backend(expires=3600.0)
    second.store([record("any")])
    assert [row["taskset_id"] for row in sqlite.run("SELECT taskset_id FROM celery_tasksetmeta")] == ["new"]
    second.close()


def test_what_does_not_fit_into_a_table_of_celery_s_fails_and_says_so(mariadb, caplog):
    backend = mariadb.backend()
    backend.open()
    mariadb.run("ALTER TABLE {tasks} MODIFY result BLOB")
    assert backend.store([record("small", result="x"), record("large", result="x" * 70_000), record("too", result="y")]) == [True] * 3
    small, large, too = map(json.loads, backend.get(["small", "large", "too"]))
    assert (small["result"], too["result"]) == ("x", "y")
    assert large["status"] == "FAILURE"
    assert large["result"]["exc_type"] == "BackendStoreError"
    assert "Data too long for column 'result'" in caplog.text
    backend.close()


def test_a_text_that_a_table_of_celery_s_cannot_hold_is_stored_in_escapes(mariadb):
    backend = mariadb.backend()
    backend.open()
    mariadb.run("ALTER TABLE {tasks} CONVERT TO CHARACTER SET latin1")
    assert backend.store([record("a", "FAILURE", result="☃", traceback="☃ ü")]) == [True]
    document = json.loads(backend.get(["a"])[0])
    assert (document["result"], document["traceback"]) == ("☃", "\\u2603 \\xfc")
    backend.close()


def test_ids_that_differ_in_case_are_two_and_in_a_table_that_holds_them_for_one_the_first_stays(mariadb, caplog):
    backend = mariadb.backend()
    assert backend.store([record("a", result=1), record("A", result=2)]) == [True, True]
    assert [json.loads(document)["result"] for document in backend.get(["a", "A"])] == [1, 2]
    mariadb.run("DELETE FROM {tasks}")
    mariadb.run("ALTER TABLE {tasks} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    assert backend.store([record("a", result=1), record("A", result=2), record("b", result=3)]) == [True, False, True]
    assert "The result of A cannot be stored as it is" in caplog.text
    backend.close()


def test_an_id_that_does_not_fit_is_refused_and_said(backend, caplog):
    assert backend.store([record("a" * 156), record("b" * 155)]) == [False, True]
    assert "its id has 156 characters, the column 155" in caplog.text


def behind(database, proxy):
    parts = urlsplit(database.url)
    return parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request):
    with database_of(request, request.param) as made, Proxy(made.url) as proxy:
        yield made, proxy


def test_a_connection_that_was_lost_while_nobody_used_it_is_replaced_unseen(server):
    database, proxy = server
    backend = database.backend(url=behind(database, proxy))
    backend.store([record("a", result=1)])
    assert proxy.cut() == 1
    assert json.loads(backend.get(["a"])[0])["result"] == 1
    assert proxy.cut() == 1
    assert backend.store([record("b")]) == [True]
    backend.close()


def test_a_database_that_does_not_answer_costs_a_bounded_time_and_is_used_again_when_it_does(server):
    database, proxy = server
    backend = database.backend(url=behind(database, proxy), engine_options={"pool_size": 2})
    backend.store([record("a", result=1)])
    for call in (lambda: backend.get(["a"]), lambda: backend.store([record("b")])):
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match="does not take or give results"):
            call()
        assert time.monotonic() - began < 15
        proxy.cut()
        proxy.thaw()
    assert json.loads(backend.get(["a"])[0])["result"] == 1
    backend.close()


def test_a_database_that_is_not_there_is_told_without_the_password():
    backend = open_backend("db+postgresql+psycopg://me:geheim@127.0.0.1:1/x")
    with pytest.raises(BackendUnavailable) as caught:
        backend.open()
    assert "127.0.0.1:1/x does not take or give results" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["db+nosuch://me:geheim@host/x", "db+postgresql://me:geheim@host:port/x"])
def test_a_url_that_cannot_be_used_is_told_without_the_password(url):
    with pytest.raises(ImproperlyConfigured, match=r"Write it as db\+postgresql://") as caught:
        open_backend(url)
    assert "geheim" not in str(caught.value)


def test_a_database_without_an_installed_package_names_some(monkeypatch):
    from umbel.drivers.sql import engine

    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured, match=r"needs a package for postgresql .* Install one: psycopg, psycopg2\."):
        open_backend("db+postgresql://host/x")


def test_sessions_may_be_short_lived_and_the_engine_is_shown_to_who_asks(database):
    seen = []
    backend = database.backend(short_lived_sessions=True, engine_callback=seen.append, engine_options={"pool_recycle": 3600})
    backend.store([record("a")])
    (engine,) = seen
    assert engine.pool.__class__.__name__ == "NullPool"
    backend.close()


def test_tables_are_made_at_the_first_use_if_they_are_not_to_be_made_at_the_start(sqlite):
    backend = sqlite.backend(create_tables_at_setup=False, table_names={"task": "mine", "group": "ours"})
    backend.open()
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('mine', 'ours')"
    assert sqlite.run(tables) == []
    backend.store([record("a")])
    assert len(sqlite.run(tables)) == 2
    backend.close()


@pytest.mark.parametrize("url", ["db+{url}", "database"])
def test_an_app_hands_its_settings_to_sql_results(sqlite, url):
    app = Celery("sql", broker="memory://sql", backend=url.format(url=sqlite.url))
    app.conf.update(database_url=sqlite.url, database_table_names={"task": "mine"}, result_expires=7200, task_always_eager=True)
    app.conf.task_store_eager_result = True

    @app.task
    def add(x, y):
        return x + y

    assert app.AsyncResult(add.delay(2, 3).id).get(timeout=60) == 5
    ((expires,),) = [row.values() for row in sqlite.run("SELECT umbel_expires FROM mine")]
    assert 7100 < expires - time.time() <= 7200
    app.backend.close()


def test_an_app_whose_results_are_in_a_database_that_it_does_not_name_says_so():
    app = Celery("sql", broker="memory://sql", backend="database")
    with pytest.raises(ImproperlyConfigured, match=r"database_url is not set\. Set it to postgresql://"):
        _ = app.backend
    with pytest.raises(ImproperlyConfigured, match="database_url is not set"):
        app.backend_address()
    app.conf.database_url = "postgresql://me:geheim@host/x"
    assert app.backend_address() == "db+postgresql://me:**@host/x"
