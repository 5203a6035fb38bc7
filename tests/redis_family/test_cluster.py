"""A Redis Cluster of three masters: the conformance suites, and what is its own."""

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

pytest.importorskip("redis")

from msgspec.structs import replace
from redis.crc import key_slot
from tests.faults.conftest import Faults, faults_on
from tests.processes import wait_for
from tests.redis_family import processes
from tests.redis_family.test_users import rules

from umbel.backend import Record
from umbel.broker import Verb
from umbel.drivers import open_backend, open_broker
from umbel.drivers.redis import RedisBus, RedisClusterBackend, RedisClusterBroker, RedisLeases, RedisSchedules
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured
from umbel.testing.conformance import (
    BackendConformance,
    BrokerConformance,
    BusConformance,
    FlowConformance,
    LeaseConformance,
    ScheduleStoreConformance,
)
from umbel.testing.conformance.base import ids_of, item, settlement

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[processes.Cluster]:
    with processes.cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def prefix():
    return f"umbel-test-{uuid.uuid4().hex}:"


@pytest.fixture
def broker(cluster, prefix):
    with contextlib.closing(open_broker(cluster.url, options={"global_keyprefix": prefix})) as broker:
        yield broker


class TestClusterBroker(BrokerConformance):
    @pytest.fixture
    def make_broker(self, cluster, prefix):
        return lambda: RedisClusterBroker(cluster.url, options={"global_keyprefix": prefix})


class TestClusterBackend(BackendConformance, FlowConformance):
    @pytest.fixture
    def make_backend(self, cluster, prefix):
        return lambda: RedisClusterBackend(cluster.url, options={"global_keyprefix": prefix})


class TestClusterBus(BusConformance):
    @pytest.fixture
    def make_bus(self, cluster, prefix):
        return lambda: RedisBus(cluster.url, options={"global_keyprefix": prefix})


class TestClusterLeases(LeaseConformance):
    @pytest.fixture
    def make_leases(self, cluster, prefix):
        return lambda: RedisLeases(cluster.url, options={"global_keyprefix": prefix})


class TestClusterSchedules(ScheduleStoreConformance):
    @pytest.fixture
    def make_schedules(self, cluster, prefix):
        return lambda **how: RedisSchedules(cluster.url, options={"global_keyprefix": prefix}, **how)


@pytest.fixture
def faults(cluster, tmp_path) -> Faults:
    return faults_on(cluster.url, cluster.url, tmp_path)


def keys_at(cluster, pattern):
    return [key for node in cluster.nodes for key in node.ask("KEYS", pattern)]


def test_all_keys_of_a_queue_are_in_one_slot_also_those_of_its_priorities(cluster, broker, prefix):
    broker.publish([item("q", f"m{n}", priority=n) for n in range(10)])
    broker.publish([item("q", "later", due=4e9), replace(item("q", "keyed"), once="a{b}c", once_for=60)])
    broker.join("w", ["q"], lease=60)
    held = broker.fetch("q", 4, owner="w", seq=1)
    broker.settle([settlement(held[0], Verb.BURY, reason="r"), settlement(held[1], Verb.PARK, reason="t")])
    keys = keys_at(cluster, f"{prefix}*")
    assert len(keys) > 10
    assert {key_slot(key) for key in keys} == {key_slot(b"q")}


def test_a_batch_to_many_queues_goes_to_all_nodes(cluster, broker):
    queues = [f"q{n}" for n in range(12)]
    assert len({cluster.owner(key_slot(queue.encode())).port for queue in queues}) == 3
    broker.publish([item(queue, f"{queue}-{n}", priority=n % 10) for n in range(20) for queue in queues])
    broker.join("w", queues, lease=60)
    assert broker.renew("w", queues, lease=60)
    assert [each.ready for each in broker.depth(queues).values()] == [20] * 12
    for queue in queues:
        held = broker.fetch(queue, 20, owner="w", seq=1)
        assert all(broker.settle([settlement(each) for each in held]))
    broker.leave("w", queues)


def test_a_queue_whose_name_makes_no_tag_is_refused(cluster):
    with contextlib.closing(open_broker(cluster.url)) as broker, pytest.raises(ImproperlyConfigured, match="an empty tag"):
        broker.publish([item("}q", "a")])


def test_a_retry_may_go_to_a_queue_of_another_node_once(cluster, broker):
    here, there = "q0", next(f"q{n}" for n in range(99) if cluster.owner(key_slot(b"q%d" % n)) is not cluster.owner(key_slot(b"q0")))
    broker.publish([item(here, "a"), item(here, "b")])
    broker.join("w", [here], lease=60)
    first, second = broker.fetch(here, 2, owner="w", seq=1)
    again = settlement(first, Verb.RETRY, replacement=item(there, "a"))
    assert broker.settle([again]) == [True]
    assert broker.settle([again]) == [False]
    broker.fetch(here, 1, owner="w", seq=2, settle=[settlement(second, Verb.RETRY, replacement=item(there, "b"))])
    broker.join("w", [there], lease=60)
    assert ids_of(broker.fetch(there, 9, owner="w", seq=1)) == ["a", "b"]
    assert broker.depth([here])[here].claimed == 0


def test_a_node_that_forgot_its_scripts_is_told_them_again(cluster, broker):
    for node in cluster.nodes:
        node.ask("SCRIPT FLUSH")
    broker.publish([item("q", "a")])
    broker.join("w", ["q"], lease=60)
    assert ids_of(broker.fetch("q", 1, owner="w", seq=1)) == ["a"]


def test_a_client_that_knew_other_nodes_finds_the_queue_where_it_has_moved(cluster, broker):
    broker.publish([item("q", "a")])
    slot = key_slot(b"q")
    before = cluster.owner(slot)
    cluster.move(slot)
    assert cluster.owner(slot) is not before
    broker.publish([item("q", "b")])
    broker.join("w", ["q"], lease=60)
    assert ids_of(broker.fetch("q", 2, owner="w", seq=1)) == ["a", "b"]


def test_while_half_of_the_keys_of_a_queue_have_moved_nothing_of_it_changes_and_calls_wait(cluster, prefix):
    with contextlib.closing(open_broker(cluster.url, options={"global_keyprefix": prefix}, timeout=0.2)) as broker:
        broker.publish([item("half", f"m{n}", priority=n) for n in (0, 3, 6)])
        broker.join("w", ["half"], lease=60)
        (held,) = broker.fetch("half", 1, owner="w", seq=1)
        said = []

        def attempt():
            with pytest.raises(BrokerUnavailable, match="A slot moves to another node") as caught:
                broker.fetch("half", 1, owner="w", seq=2, settle=[settlement(held)])
            said.append(caught.value.maybe_sent)
            with pytest.raises(BrokerUnavailable):
                broker.publish([item("half", "late"), item("half", "late", due=4e9)][: 1 + len(said) % 2])

        cluster.move(key_slot(b"half"), attempt)
        assert said
        assert not any(said)
        assert ids_of(broker.fetch("half", 9, owner="w", seq=2, settle=[settlement(held)])) == ["m3", "m6"]
        depth = broker.depth(["half"])["half"]
        assert (depth.ready, depth.delayed, depth.claimed) == (0, 0, 2)


def test_a_call_that_comes_while_a_slot_moves_is_carried_out_when_it_has_moved(cluster, broker):
    broker.publish([item("moving", f"m{n}", priority=n) for n in (0, 3)])
    begun, go_on = threading.Event(), threading.Event()

    def pause():
        begun.set()
        assert go_on.wait(10)

    mover = threading.Thread(target=cluster.move, args=(key_slot(b"moving"), pause))
    mover.start()
    assert begun.wait(10)
    threading.Timer(0.3, go_on.set).start()
    broker.publish([item("moving", "late")])
    mover.join()
    broker.join("w", ["moving"], lease=60)
    assert sorted(ids_of(broker.fetch("moving", 9, owner="w", seq=1))) == ["late", "m0", "m3"]


def test_results_go_to_all_nodes_and_come_back_in_their_order(cluster, prefix):
    with contextlib.closing(open_backend(cluster.url, options={"global_keyprefix": prefix})) as backend:
        records = [Record(id=f"r{n}", state="SUCCESS", meta=b"%d" % n, expires=60) for n in range(300)]
        assert backend.store(records) == [True] * 300
        assert backend.get([f"r{n}" for n in range(301)]) == [*(b"%d" % n for n in range(300)), None]
        assert {len(node.ask("KEYS", f"{prefix}*")) > 50 for node in cluster.nodes} == {True}
        backend.forget([f"r{n}" for n in range(300)])
        assert keys_at(cluster, f"{prefix}*") == []


def test_users_with_the_rights_of_the_docs_and_those_of_a_cluster_work_there(cluster):
    for role in ("producer", "worker"):
        allowed = [rule for rule in rules(role) if not rule.startswith("~{celery}")]
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", role, "reset", "on", ">secret", *allowed, "~{celery}*", "+cluster|slots")
    with contextlib.ExitStack() as stack:
        everything = stack.enter_context(contextlib.closing(open_broker(cluster.url)))
        stack.callback(everything.purge, "celery")
        urls = {role: cluster.url.replace("//", f"//{role}:secret@") for role in ("producer", "worker")}
        producer, worker = (stack.enter_context(contextlib.closing(open_broker(urls[role]))) for role in urls)
        producer.publish([item("celery", f"m{n}", priority=n) for n in range(9)])
        producer.publish([item("celery", "one")])
        producer.publish([item("celery", "later", due=4e9)])
        producer.revoke(["m1"], ttl=60)
        worker.join("w", ["celery"], lease=60)
        held = worker.fetch("celery", 10, owner="w", seq=1)
        assert len(held) == 10
        assert all(worker.settle([settlement(each) for each in held]))
        worker.wait("w", ["celery"], 0.01)
        assert not worker.recover("celery", owner="w", limit=1).deliveries
        assert worker.revoked_since(0).entries
        worker.leave("w", ["celery"])
        with pytest.raises(BrokerUnavailable, match="under Users"):
            producer.dead("celery")


def test_a_url_for_one_server_says_that_it_found_a_cluster(cluster):
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    with contextlib.closing(open_broker(url)) as broker:
        for n in range(4):
            with contextlib.suppress(BrokerUnavailable):
                broker.publish([item(f"q{n}", "a")])
        with pytest.raises(BrokerUnavailable, match=r"write redis\+cluster://"):
            broker.depth([f"q{n}" for n in range(9)])


def test_a_url_for_a_cluster_says_that_it_found_one_server(redis_server):
    url = "redis+cluster://" + redis_server.partition("://")[2]
    with contextlib.closing(open_broker(url, timeout=10.0)) as broker, pytest.raises(BrokerUnavailable, match="cluster support disabled"):
        broker.open()


def test_a_node_that_is_frozen_holds_up_no_call_for_longer_than_its_deadline(cluster, broker):
    broker.publish([item("q", "a")])
    owner = cluster.owner(key_slot(b"q"))
    other = next(f"q{n}" for n in range(99) if cluster.owner(key_slot(b"q%d" % n)) is not owner)
    owner.send(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            broker.publish([item("q", "b")])
        assert time.monotonic() - started < 3
        broker.publish([item(other, "c")])  # the cluster has not found out yet
        nodes = sorted(cluster.nodes, key=lambda node: node is not owner)  # it is the first that is asked
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        with contextlib.closing(open_broker(url)) as newcomer:
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                newcomer.publish([item("q", "b")])
            assert time.monotonic() - started < 3
            newcomer.publish([item(other, "c")])
    finally:
        owner.send(signal.SIGCONT)
    wait_for(lambda: takes(broker, item("q", "d")), 20)


def takes(broker, what):
    try:
        broker.publish([what])
    except BrokerUnavailable:
        return False
    return True


PRODUCE = """
from faults_app import *
import time
ids = []
for n in range({total}):
    ids.append(work.apply_async((n,), priority=n % 10, countdown=0.3 if n % 7 == 0 else None).id)
    time.sleep(0.002)
print([app.AsyncResult(each).get(timeout=60) for each in ids] == list(range({total})))
"""
EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


@pytest.mark.parametrize("pool", ["prefork", pytest.param("solo", marks=pytest.mark.slow)])
def test_nothing_is_lost_or_repeated_while_slots_move_under_load(cluster, faults, pool):
    total, slots, said, moved = 300, [key_slot(b"celery"), key_slot(b"umbel.revoked")], [], 0
    with faults.worker("-P", pool, "-c", "2") as worker:
        worker.waits_to_print("ready.")
        producer = threading.Thread(target=lambda: said.append(faults.script(PRODUCE.format(total=total))))
        producer.start()
        while producer.is_alive():
            cluster.move(slots[moved % 2])
            moved, done = moved + 1, len(faults.lines())
            wait_for(lambda done=done: len(faults.lines()) > done or not producer.is_alive(), 30, worker.tail)
        producer.join()
        assert said == ["True\n"], worker.tail()
        wait_for(lambda: faults.depth() == EMPTY, 20, faults.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert moved >= 3
    assert sorted(int(line) for line in faults.lines() if line.isdigit()) == list(range(total))


@pytest.mark.parametrize("bad", ["{}", "a{}b:"])
def test_a_prefix_that_would_scatter_the_keys_of_a_workflow_is_refused(bad):
    with pytest.raises(ImproperlyConfigured, match="global_keyprefix"):
        RedisClusterBackend("redis+cluster://127.0.0.1:1", options={"global_keyprefix": bad})
