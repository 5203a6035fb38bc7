"""Dead rows are dropped, not vacuumed: beside a snapshot that is held elsewhere, with locks in the way, and under load."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from msgspec.structs import replace

from umbel.broker import Verb
from umbel.drivers.postgres import PostgresBroker
from umbel.drivers.postgres import broker as module
from umbel.testing.conformance.base import ids_of, item, settlement

pytestmark = pytest.mark.postgres

SMALL = 20_000  # bytes of a slot


@pytest.fixture
def broker(postgres_url, postgres_schema):
    broker = PostgresBroker(postgres_url, options={"schema": postgres_schema})
    broker.join("w", ["q"], lease=60)
    yield broker
    broker.close()


def turn(broker, *rings, size=SMALL, most=2000, carried=1_000_000):
    broker._database.call("UPDATE umbel.rings SET again = 0")
    for ring in rings or ("ready", "claimed", "counts"):
        broker._database.call("SELECT umbel.turn(%s, %s, %s::integer, %s)", (ring, size, 0 if ring == "counts" else most, carried))


def sizes(broker, ring):
    ask = "SELECT pg_relation_size('umbel." + ring + "_' || s) FROM generate_series(0, 3) s"
    return [row[0] for row in broker._database.call(ask)]


def work(broker, count, seq, *, tally=""):
    """Publish, claim and acknowledge *count* messages."""
    broker.publish([item("q", f"m{n}", size=500) for n in range(count)])
    held = broker.fetch("q", count, owner="w", seq=seq)
    assert len(held) == count
    assert all(broker.settle([replace(settlement(each), tally=tally) for each in held]))


def test_finished_work_leaves_no_rows_behind_though_a_snapshot_is_held(broker, postgres_url):
    broker.open()
    with psycopg.connect(postgres_url) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("CREATE TEMPORARY TABLE mine (x integer)")
        for seq in range(1, 21):
            work(broker, 200, seq, tally=f"t{seq % 3}")
            turn(broker)
        for ring in ("ready", "claimed"):
            assert sum(sizes(broker, ring)) < 4 * 200 * 1500, ring  # 4,000 messages were there
        assert sum(each.count for each in broker.tallies("q", since=0)) == 4000
        other.rollback()


def test_what_is_left_in_an_old_slot_is_carried_over_in_its_order(broker):
    broker.publish([item("q", f"old{n}", size=500) for n in range(100)])
    turn(broker, "ready")
    broker.publish([item("q", "new", size=500)])
    taken = ids_of(broker.fetch("q", 95, owner="w", seq=1))
    turn(broker, "ready", most=10)
    taken += ids_of(broker.fetch("q", 95, owner="w", seq=2))
    assert taken == [*(f"old{n}" for n in range(100)), "new"]
    turn(broker, "ready")
    assert sum(size > 0 for size in sizes(broker, "ready")) <= 2


def test_claims_that_were_carried_over_are_settled_and_given_again(broker):
    broker.publish([item("q", f"m{n}", size=500) for n in range(100)])
    held = broker.fetch("q", 100, owner="w", seq=1)
    where = "SELECT DISTINCT slot FROM umbel.claimed"
    for _ in range(3):
        before = broker._database.call(where)
        turn(broker, "claimed")
        assert broker._database.call(where) != before
        broker.publish([item("q", f"x{n}", size=500) for n in range(100)])
    assert ids_of(broker.fetch("q", 100, owner="w", seq=1)) == [f"m{n}" for n in range(100)]
    assert all(broker.settle([settlement(each) for each in held]))
    assert broker.depth(["q"])["q"].claimed == 0


def test_large_messages_are_not_carried_over_as_all_would_wait_meanwhile(broker):
    broker.publish([item("q", f"m{n}", size=1_000_000) for n in range(5)])
    held = broker.fetch("q", 5, owner="w", seq=1)
    turn(broker, size=1_000_000)
    turn(broker, size=1_000_000)
    counts = broker._database.call("SELECT slot, count(*) FROM umbel.claimed GROUP BY slot")
    assert counts == [(0, 5)]
    assert broker._database.call("SELECT slot FROM umbel.rings WHERE name = 'claimed'") != [(0,)]
    assert all(broker.settle([settlement(each) for each in held]))
    turn(broker, size=1_000_000)
    assert sizes(broker, "claimed")[0] == 0


def test_a_slot_that_somebody_reads_is_left_alone_and_holds_up_nobody(broker, postgres_url, postgres_schema):
    work(broker, 200, 1)
    with psycopg.connect(postgres_url) as other:
        other.execute(f"SELECT count(*) FROM {postgres_schema}.ready_0")
        for seq in range(2, 12):
            work(broker, 200, seq)
            broker._database.call("SELECT umbel.turn('ready', %s, 2000, 100000)", (SMALL,))
        assert sizes(broker, "ready")[0] > 0
        other.rollback()
    turn(broker)
    turn(broker)
    work(broker, 200, 12)
    assert broker.depth(["q"])["q"].ready == 0


def test_workers_lose_nothing_and_get_nothing_twice_while_the_rings_turn_all_the_time(broker, postgres_url, postgres_schema):
    count, over = 4000, threading.Event()
    taken: list[str] = []
    lost: list[str] = []

    def turns():
        while not over.is_set():
            turn(broker, size=1)

    def works(name):
        mine = PostgresBroker(postgres_url, options={"schema": postgres_schema})
        mine.join(name, ["q"], lease=60)
        seq = 0
        while not over.is_set():
            seq += 1
            held = mine.fetch("q", 20, owner=name, seq=seq)
            flags = mine.settle([settlement(each, Verb.GIVE_BACK if seq % 7 == 0 else Verb.ACK) for each in held])
            lost.extend(each.tag for each, done in zip(held, flags, strict=True) if not done)
            if seq % 7:
                taken.extend(ids_of(held))
            if len(taken) >= count:
                over.set()
        mine.close()

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(turns), *(pool.submit(works, f"w{n}") for n in range(3))]
        for start in range(0, count, 50):
            broker.publish([item("q", f"m{n}") for n in range(start, start + 50)])
        over.wait(60)
        over.set()
        for future in running:
            future.result()
    assert lost == []
    assert sorted(taken) == sorted(f"m{n}" for n in range(count))
    depth = broker.depth(["q"])["q"]
    assert (depth.ready, depth.claimed) == (0, 0)


def test_a_claim_that_passes_dead_rows_goes_on_where_the_last_one_ended_and_returns_to_the_beginning(broker, postgres_url, monkeypatch):
    monkeypatch.setattr(module, "SLOW", -1.0)  # as if each look took long
    monkeypatch.setattr(module, "SLOW_AT_LEAST", 1)
    broker.publish([item("q", f"m{n}", priority=5) for n in range(20)])
    assert ids_of(broker.fetch("q", 5, owner="w", seq=1)) == [f"m{n}" for n in range(5)]
    assert broker._places["q"].position > 0
    broker.publish([item("q", "urgent", priority=0)])
    assert ids_of(broker.fetch("q", 5, owner="w", seq=2)) == [f"m{n}" for n in range(5, 10)]
    broker._places["q"] = broker._places["q"]._replace(until=0.0)
    held = broker.fetch("q", 3, owner="w", seq=3)
    assert ids_of(held) == ["urgent", "m10", "m11"]
    assert broker.settle([settlement(held[1], Verb.GIVE_BACK)]) == [True]
    assert ids_of(broker.fetch("q", 2, owner="w", seq=4)) == ["m10", "m12"]


def test_a_claim_that_finds_little_behind_its_place_looks_from_the_beginning_the_next_time(broker, monkeypatch):
    monkeypatch.setattr(module, "SLOW", -1.0)
    monkeypatch.setattr(module, "SLOW_AT_LEAST", 1)
    broker.publish([item("q", f"m{n}", priority=5) for n in range(6)])
    broker.fetch("q", 5, owner="w", seq=1)
    broker.publish([item("q", "urgent", priority=0)])
    assert ids_of(broker.fetch("q", 5, owner="w", seq=2)) == ["m5"]
    assert ids_of(broker.fetch("q", 5, owner="w", seq=3)) == ["urgent"]


def test_a_claim_that_took_long_once_still_looks_from_the_beginning(broker, monkeypatch):
    monkeypatch.setattr(module, "SLOW", -1.0)
    broker.publish([item("q", f"m{n}", priority=5) for n in range(20)])
    broker.fetch("q", 5, owner="w", seq=1)
    broker.publish([item("q", "urgent", priority=0)])
    assert ids_of(broker.fetch("q", 1, owner="w", seq=2)) == ["urgent"]


def test_a_worker_that_finds_nothing_writes_nothing(broker):
    for seq in range(1, 20):
        assert broker.fetch("q", 5, owner="w", seq=seq) == []
    assert broker._database.call("SELECT count(*) FROM umbel.fetches") == [(0,)]
    broker.publish([item("q", "a")])
    broker.fetch("q", 5, owner="w", seq=20)
    assert broker._database.call("SELECT seq FROM umbel.fetches") == [(20,)]


def test_a_claim_from_a_long_queue_reads_only_what_it_takes_though_the_server_knows_nothing_of_its_size(
    broker, postgres_url, postgres_schema
):
    read = "SELECT sum(idx_tup_fetch) FROM pg_stat_xact_user_tables WHERE schemaname = %s AND relname LIKE 'ready%%'"
    fetch = f"SELECT count(*) FROM {postgres_schema}.fetch(NULL, 'q', 'w', %s, 300, 8000000, '{{}}', false, false, 5.0, -1::smallint, 0)"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        broker.publish([item("q", "first")])
        assert connection.execute(fetch, (1,)).fetchone() == (1,)  # its plan is made, and kept, now
        for start in range(0, 6000, 500):
            broker.publish([item("q", f"m{start + n}") for n in range(500)])
        with connection.transaction():
            assert connection.execute(fetch, (2,)).fetchone() == (300,)
            assert connection.execute(read, (postgres_schema,)).fetchone()[0] <= 3 * 300
