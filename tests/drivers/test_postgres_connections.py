"""Connections to PostgreSQL that break, hang, are refused, or are inherited; and PgBouncer between."""

import contextlib
import select
import threading
import time

import psycopg
import pytest
from tests.conftest import absent
from tests.faults.proxy import Proxy
from tests.postgres import needs_postgres, pgbouncer, running_postgres
from tests.processes import wait_for
from tests.servers import PGBOUNCER, find_binary

from umbel.backend import Record
from umbel.drivers.postgres import PostgresBackend, PostgresBroker, PostgresBus
from umbel.exceptions import BackendUnavailable, BrokerUnavailable, ImproperlyConfigured
from umbel.testing.conformance import BackendConformance, BrokerConformance, BusConformance
from umbel.testing.conformance.base import ids_of, item, settlement, succeeds_in_child

pytestmark = pytest.mark.postgres


@pytest.fixture
def make_broker(postgres_url, postgres_schema):
    with contextlib.ExitStack() as stack:

        def make(url=postgres_url, **options):
            broker = PostgresBroker(url, options={"schema": postgres_schema}, **options)
            stack.callback(broker.close)
            return broker

        yield make


@pytest.fixture
def behind(postgres_url):
    with Proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
def own_server():
    needs_postgres()
    with running_postgres() as server:
        yield server


def ended_connections(url):
    """End all connections of umbel to this database, as an administrator does; return how many there were."""
    ask = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'umbel' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(ask).fetchone()[0]


def refused_by(act, error=BrokerUnavailable):
    """Call *act*, which must fail within its deadline; return the error."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        act()
    assert time.monotonic() - began < 2.5
    return caught.value


def test_a_call_on_a_connection_that_the_server_ended_while_it_was_idle_makes_a_new_one(make_broker, own_server):
    broker = make_broker(own_server.url)
    broker.publish([item("q", "a")])
    assert ended_connections(own_server.url) >= 1
    wait_for(lambda: select.select([broker._database._idle[0].pgconn.socket], [], [], 0)[0], 10)  # the news has come
    broker._database._idle[0].used -= 60  # it has been idle for long
    broker.publish([item("q", "b")])
    assert broker.depth(["q"])["q"].ready == 2


def test_what_is_safe_to_repeat_is_sent_again_when_its_connection_breaks(make_broker, behind):
    broker = make_broker(behind.url)
    broker.publish([item("q", "a")])
    behind.cut()
    assert broker.depth(["q"])["q"].ready == 1


def test_a_publish_whose_reply_is_lost_says_that_it_was_maybe_sent(make_broker, behind):
    broker = make_broker(behind.url)
    broker.open()
    behind.swallow(b"umbel_")
    assert refused_by(lambda: broker.publish([item("q", "a")])).maybe_sent
    assert behind.swallowed.wait(5)
    assert make_broker().depth(["q"])["q"].ready == 1


def test_a_claim_whose_reply_is_lost_gives_the_same_when_it_is_repeated_and_a_late_copy_claims_nothing(make_broker, behind):
    broker = make_broker(behind.url)
    broker.publish([item("q", f"m{n}") for n in range(4)])
    broker.join("w", ["q"], lease=60)
    behind.swallow(b"fetch")
    refused_by(lambda: broker.fetch("q", 2, owner="w", seq=1))
    held = broker.fetch("q", 2, owner="w", seq=1)
    assert ids_of(held) == ["m0", "m1"]
    assert broker.fetch("q", 0, owner="w", seq=2, settle=[settlement(each) for each in held]) == []
    other = make_broker()  # knows nothing of what was answered
    other.fetch("q", 2, owner="w", seq=1)
    assert [broker.depth(["q"])["q"].ready, broker.depth(["q"])["q"].claimed] == [2, 0]


def test_a_recovery_whose_reply_is_lost_gives_the_same_when_it_is_repeated(make_broker, behind):
    broker = make_broker(behind.url)
    broker.publish([item("q", f"m{n}") for n in range(3)])
    broker.join("lost", ["q"], lease=0.1)
    broker.fetch("q", 3, owner="lost", seq=1)
    broker.join("heir", ["q"], lease=60)
    wait_for(lambda: broker._database.call("SELECT o_lapsed FROM umbel.lapsed(%s, %s)", ("q", "heir"))[0][0])
    behind.swallow(b"umbel.recover".replace(b"umbel", broker._database.schema.encode()))
    with contextlib.suppress(BrokerUnavailable):
        first = broker.recover("q", owner="heir", limit=2)
        assert behind.swallowed.is_set()  # it was repeated by itself
        taken = ids_of(first.deliveries)
    assert taken == ["m0", "m1"]
    assert ids_of(broker.recover("q", owner="heir", limit=2).deliveries) == ["m2"]


@pytest.mark.parametrize("what", ["publish", "depth", "settle"])
def test_a_server_that_freezes_is_given_up_in_time(make_broker, behind, what):
    broker = make_broker(behind.url, timeout=1.0)
    broker.publish([item("q", "a")])
    broker.join("w", ["q"], lease=60)
    (held,) = broker.fetch("q", 1, owner="w", seq=1)
    acts = {
        "publish": lambda: broker.publish([item("q", "b")]),
        "depth": lambda: broker.depth(["q"]),
        "settle": lambda: broker.settle([settlement(held)]),
    }
    behind.freeze()
    error = refused_by(acts[what])
    assert error.maybe_sent or what == "depth"
    assert "no answer within 1 s" in str(error)
    refused_by(acts[what])
    behind.thaw()
    wait_for(lambda: answers(broker))


def answers(broker):
    with contextlib.suppress(BrokerUnavailable):
        broker.open()
        return True
    return False


def test_a_server_that_is_not_there_is_unreachable_and_says_what_to_do(make_broker, behind):
    broker = make_broker(behind.url)
    behind.refuse(True)
    error = refused_by(lambda: broker.publish([item("q", "a")]))
    assert error.unreachable
    assert not error.maybe_sent
    assert "Check that it runs and that the URL is right" in str(error)


def test_a_wait_ends_with_an_error_when_its_connection_breaks(make_broker, behind):
    broker = make_broker(behind.url)
    broker.join("w", ["q"], lease=60)
    threading.Timer(0.2, behind.cut).start()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        broker.wait("w", ["q"], 30)
    assert time.monotonic() - began < 5


def test_a_wait_on_a_connection_that_the_server_ended_meanwhile_makes_a_new_one(make_broker, own_server):
    broker = make_broker(own_server.url)
    broker.join("w", ["q"], lease=60)
    broker.wait("w", ["q"], 0.01)
    assert ended_connections(own_server.url) >= 1
    wait_for(lambda: not broker._database._listening[0].is_open())
    broker.wait("w", ["q"], 0.01)


def test_a_connection_whose_end_was_announced_is_not_waited_on_though_the_end_has_not_come(make_broker, own_server):
    with Proxy(own_server.url) as proxy:
        broker = make_broker(proxy.url)
        broker.join("w", ["q"], lease=60)
        broker.wait("w", ["q"], 0.01)
        proxy.keep_open(True)
        assert ended_connections(own_server.url) >= 1
        wait_for(lambda: not broker._database._listening[0].is_open())
        broker.wait("w", ["q"], 0.01)
        wait_for(lambda: proxy.kept_open >= 1)


def test_a_deadlock_is_tried_again(postgres_url, postgres_schema):
    backend = PostgresBackend(postgres_url, options={"schema": postgres_schema}, timeout=8)
    backend.store([Record(id=name, state="STARTED", meta=b"0") for name in "ab"])
    with psycopg.connect(postgres_url) as other:
        other.execute("SET deadlock_timeout TO '20s'")  # so that ours is the one that is ended
        other.execute(f"UPDATE {postgres_schema}.results SET state = 'X' WHERE id = 'b'")
        stored = []
        thread = threading.Thread(
            target=lambda: stored.extend(backend.store([Record(id=name, state="SUCCESS", meta=b"1") for name in "ab"]))
        )
        thread.start()
        wait_for(lambda: other.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] > 0)
        other.execute(f"UPDATE {postgres_schema}.results SET state = 'X' WHERE id = 'a'")
        other.commit()
    thread.join(10)
    assert stored == [True, True]
    backend.close()


def test_a_lock_that_another_transaction_holds_is_waited_for_shortly_and_named(make_broker, postgres_url, postgres_schema):
    broker = make_broker()
    broker.open()
    with psycopg.connect(postgres_url) as other:
        other.execute(f"LOCK TABLE {postgres_schema}.ready IN ACCESS EXCLUSIVE MODE")
        error = refused_by(lambda: broker.publish([item("q", "a")]))
        other.rollback()
    assert "Another transaction holds a lock" in str(error)
    assert not error.maybe_sent
    assert broker.depth(["q"])["q"].ready == 0


def test_a_server_that_is_killed_and_started_again_keeps_all_that_was_published(make_broker, own_server):
    broker = make_broker(own_server.url)
    backend = PostgresBackend(own_server.url)
    broker.publish([item("q", f"m{n}") for n in range(5)])
    broker.join("w", ["q"], lease=60)
    held = broker.fetch("q", 2, owner="w", seq=1)
    own_server.kill()
    assert refused_by(lambda: broker.publish([item("q", "b")]))
    assert refused_by(lambda: broker.publish([item("q", "b")])).unreachable
    refused_by(lambda: backend.get(["x"]), BackendUnavailable)
    own_server.start()
    assert broker.depth(["q"])["q"].ready == 3
    assert broker.settle([settlement(each) for each in held]) == [True, True]
    assert backend.get(["x"]) == [None]
    backend.close()


@pytest.mark.parametrize("listening", [True, False])
def test_a_child_leaves_the_connections_of_its_parent_alone(make_broker, listening, postgres_schema, postgres_url):
    broker = make_broker()
    broker.publish([item("q", "a")])
    if listening:
        broker.wait("w", ["other"], 0.01)
    pids = {session.pgconn.backend_pid for session in (*broker._database._idle, *broker._database._listening)}

    def child():
        broker.publish([item("q", "b")])
        broker.wait("w", ["q"], 0.01)
        broker.close()

    assert succeeds_in_child(child)
    broker.publish([item("q", "c")])
    assert broker.depth(["q"])["q"].ready == 3
    after = {session.pgconn.backend_pid for session in (*broker._database._idle, *broker._database._listening)}
    assert after == pids


@pytest.mark.parametrize(
    ("url", "said"),
    [("postgresql://u:p@host:port/x", "is not a PostgreSQL URL"), ("postgresql://u:p@host/x?nonsense=1", "is not a PostgreSQL URL")],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url, said):
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        PostgresBroker(url)
    assert "u:p@" not in str(caught.value)


def test_an_odd_schema_is_refused():
    with pytest.raises(ImproperlyConfigured, match="option schema"):
        PostgresBroker("postgresql://", options={"schema": 'x"; DROP'})


def test_what_a_text_of_postgresql_cannot_hold_is_an_error_about_the_value_and_no_outage(make_broker):
    with pytest.raises(ValueError, match="PostgreSQL cannot keep it"):
        make_broker().publish([item("nul \0 in the name", "a")])


@pytest.fixture(scope="module")
def bouncer(postgres_server):
    if find_binary(PGBOUNCER) is None:
        absent(PGBOUNCER)
    with pgbouncer(postgres_server) as url:
        yield url


class TestBrokerThroughPgBouncer(BrokerConformance):
    @pytest.fixture
    def make_broker(self, bouncer, postgres_shared):
        return lambda: PostgresBroker(bouncer, options={"schema": postgres_shared})

    @pytest.fixture
    def partner(self, bouncer, postgres_shared):
        backend = PostgresBackend(bouncer, options={"schema": postgres_shared})
        yield backend
        backend.close()

    def test_it_is_noticed(self, broker):
        broker.open()
        assert broker._database._idle[0].pooled


class TestBackendThroughPgBouncer(BackendConformance):
    @pytest.fixture
    def make_backend(self, bouncer, postgres_shared):
        return lambda: PostgresBackend(bouncer, options={"schema": postgres_shared})


class TestBusThroughPgBouncer(BusConformance):
    @pytest.fixture
    def make_bus(self, bouncer, postgres_shared):
        return lambda: PostgresBus(bouncer, options={"schema": postgres_shared})
