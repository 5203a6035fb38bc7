"""Calls that are part of the caller's transaction."""

import asyncio
import threading
import time

import psycopg
import pytest
from msgspec.structs import replace

from umbel import Celery
from umbel.drivers.postgres import PostgresBroker
from umbel.exceptions import ImproperlyConfigured, NotSupported
from umbel.testing.conformance.base import ids_of, item

pytestmark = pytest.mark.postgres
sqlalchemy = pytest.importorskip("sqlalchemy")


@pytest.fixture
def app(postgres_url, postgres_schema):
    with Celery("using", broker=postgres_url, set_as_current=False) as app:
        app.conf.broker_transport_options = {"schema": postgres_schema}
        yield app


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y):
        return x + y

    return add


@pytest.fixture
def mine(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        yield connection
        connection.rollback()


def ready(app):
    return app.broker.depth(["celery"])["celery"].ready


def test_a_commit_sends_and_a_rollback_leaves_nothing(app, add, mine):
    add.apply_async((1, 2), using=mine)
    add.apply_async((1, 2), using=mine, countdown=60)
    assert ready(app) == 0
    mine.rollback()
    assert app.broker.depth(["celery"])["celery"].delayed == 0
    with mine.transaction():
        add.apply_async((1, 2), using=mine)
        app.send_task("elsewhere", using=mine)
        add.delay_many([((n, n), {}) for n in range(3)], using=mine)
        assert ready(app) == 0
    assert ready(app) == 5


def test_a_key_is_remembered_if_the_transaction_commits(app, mine):
    keyed = replace(item("celery", "a"), once="key", once_for=60)
    app.broker.publish([keyed], using=mine)
    mine.rollback()
    with mine.transaction():
        app.broker.publish([keyed, item("celery", "b")], using=mine)
        app.broker.publish([keyed], using=mine)
    app.broker.publish([keyed])
    assert ready(app) == 2


def test_a_savepoint_that_is_rolled_back_takes_its_calls_along(app, add, mine):
    with mine.transaction():
        add.apply_async((1, 2), using=mine)
        with mine.transaction() as inner:
            add.apply_async((1, 2), using=mine)
            raise psycopg.Rollback(inner)
    assert ready(app) == 1


def test_a_commit_wakes_a_worker_that_waits(app, add, mine, postgres_url, postgres_schema):
    waiting = PostgresBroker(postgres_url, options={"schema": postgres_schema})
    waiting.join("w", ["celery"], lease=60)
    add.apply_async((1, 2), using=mine)
    woke = []

    def wait():
        waiting.wait("w", ["celery"], 20)
        woke.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    threading.Event().wait(0.3)
    assert not woke
    committed = time.monotonic()
    mine.commit()
    thread.join(10)
    assert woke[0] - committed < 0.2
    assert len(waiting.fetch("celery", 1, owner="w", seq=1)) == 1
    waiting.close()


def test_all_calls_in_a_block_go_through_its_connection_and_the_innermost_counts(app, add, mine, postgres_url):
    with psycopg.connect(postgres_url) as second:
        with app.publish_using(mine):
            add.delay(1, 2)
            with app.publish_using(second):
                add.delay(1, 2)
            add.delay(1, 2)
        assert ready(app) == 0
        second.commit()
        assert ready(app) == 1
    mine.commit()
    assert ready(app) == 3
    add.delay(1, 2)
    assert ready(app) == 4


def test_other_threads_and_other_apps_do_not_inherit_the_connection(app, add, mine, postgres_url, postgres_schema):
    with Celery("other", broker="memory://using-other", set_as_current=False) as other, app.publish_using(mine):
        other.task(lambda: None, name="t").delay()
        thread = threading.Thread(target=add.delay, args=(1, 2))
        thread.start()
        thread.join()
        asyncio.run(asyncio.to_thread(add.delay, 1, 2))
    assert ready(app) == 2


def test_a_coroutine_sends_through_the_connection_of_its_block(app, add, mine):
    async def call():
        with app.publish_using(mine):
            await add.adelay(1, 2)

    asyncio.run(call())
    assert ready(app) == 0
    mine.commit()
    assert ready(app) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy_sends_with_its_connection_and_with_its_session(app, add, postgres_url, driver):
    pytest.importorskip(driver)
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(postgres_url.replace("postgresql://", f"postgresql+{driver}://"))
    with engine.connect() as connection:
        add.apply_async((1, 2), using=connection)
        connection.rollback()
        add.apply_async((1, 2), using=connection)
        assert ready(app) == 0
        connection.commit()
    assert ready(app) == 1

    class Derived(Session):
        """As SQLModel's and Flask's are."""

    with Derived(engine) as session, app.publish_using(session):
        add.delay(1, 2)
        session.rollback()
        add.delay(1, 2)
        assert ready(app) == 1
        session.commit()
    assert ready(app) == 2
    engine.dispose()


def test_a_connection_to_another_database_is_refused_and_its_transaction_goes_on(app, add, postgres_url):
    app.broker.open()
    with psycopg.connect(postgres_url, dbname="template1") as elsewhere:
        with pytest.raises(ImproperlyConfigured, match="leads to the database 'template1', which is not the broker's"):
            add.apply_async((1, 2), using=elsewhere)
        assert elsewhere.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("what", [object(), 3, "SELECT"])
def test_what_is_no_connection_is_refused(app, add, what):
    with pytest.raises((NotSupported, ImproperlyConfigured), match=r"cannot be sent through|Sending through the database"):
        add.apply_async((1, 2), using=what)


def test_an_engine_of_another_database_system_is_refused(app, add):
    with sqlalchemy.create_engine("sqlite://").connect() as connection, pytest.raises(NotSupported, match=r"sqlite\+pysqlite"):
        add.apply_async((1, 2), using=connection)


def test_an_asynchronous_session_is_refused_and_its_synchronous_one_is_named(app, add):
    pytest.importorskip("greenlet")  # which its asyncio imports
    from sqlalchemy.ext.asyncio import AsyncSession

    with pytest.raises(NotSupported, match="AsyncSession, but its sync_session"):
        add.apply_async((1, 2), using=AsyncSession())


def test_an_asynchronous_connection_is_refused(app, add, postgres_url):
    async def call():
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            with pytest.raises(NotSupported, match="AsyncConnection"):
                await add.aapply_async((1, 2), using=connection)

    asyncio.run(call())


@pytest.mark.parametrize("url", ["memory://using-elsewhere", "sqlite:///using.sqlite3"])
def test_brokers_elsewhere_refuse_and_say_what_to_use(mine, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Celery("elsewhere", broker=url, set_as_current=False) as app:
        with pytest.raises(NotSupported, match=r"delay_on_commit\(\) with Django, or a broker in that database"):
            app.send_task("t", using=mine)
        assert app.broker.depth(["celery"])["celery"].ready == 0


def test_a_transaction_that_stays_open_for_long_loses_nothing_though_the_rings_turn(app, mine, postgres_url, postgres_schema):
    """What was inserted before a turn, and is committed long after, is found."""
    broker = app.broker
    broker.publish([item("celery", "late")], using=mine)
    broker.join("w", ["celery"], lease=60)
    for seq in range(1, 6):
        broker.publish([item("celery", f"m{seq}-{n}", size=1000) for n in range(100)])
        held = broker.fetch("celery", 200, owner="w", seq=2 * seq - 1)
        assert len(held) == 100
        broker._database.call("SELECT umbel.turn('ready', 10000, 2000, 100000)")
        broker._database.call("UPDATE umbel.rings SET again = 0")
    assert broker._database.call("SELECT slot FROM umbel.rings WHERE name = 'ready'")[0][0] != 0
    mine.commit()
    assert ids_of(broker.fetch("celery", 5, owner="w", seq=12)) == ["late"]
