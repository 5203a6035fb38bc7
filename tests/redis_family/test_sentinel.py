"""A master, its replica and three sentinels: the master dies under load, and what it had confirmed goes on at the replica."""

import contextlib
import json
import signal
import socket
import threading
import time

import pytest

pytest.importorskip("redis")

from tests.faults.conftest import Faults, faults_on
from tests.processes import wait_for
from tests.redis_family import processes

from umbel import Celery
from umbel.drivers import open_backend, open_broker
from umbel.drivers.redis import RedisBus, RedisLeases, sentinel
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured
from umbel.testing.conformance.base import ids_of, item

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with processes.watched(tmp_path_factory.mktemp("watched")) as made:
        yield made


@pytest.fixture
def breakable(tmp_path):
    with processes.watched(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def faults(breakable, tmp_path) -> Faults:
    options = {**breakable.options, "replicas": 1}
    made = faults_on(breakable.url, breakable.url, tmp_path)
    made.env["LEDGER_SETTINGS"] = json.dumps({"broker_transport_options": options, "result_backend_transport_options": breakable.options})
    return made


PRODUCE = """
from faults_app import *
from umbel.exceptions import OperationalError
import time
for n in range(1000):
    while True:
        try:
            work.delay(n, 0.005)
        except OperationalError as exc:
            time.sleep(0.05)
        else:
            break
    time.sleep(0.01 * (n > 700))
"""


@pytest.mark.parametrize("harm", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
def test_the_master_is_harmed_under_load_and_every_call_that_returned_is_done(breakable, faults, harm):
    if harm == "frozen":  # it comes back with one of its replicas, and still takes itself for the master
        faults.env["LEDGER_SETTINGS"] = faults.env["LEDGER_SETTINGS"].replace('"replicas": 1', '"replicas": 2')
    with faults.worker("-c", "2") as worker:
        worker.waits_to_print("ready.")
        producer = threading.Thread(target=faults.script, args=(PRODUCE,))
        producer.start()
        wait_for(lambda: len(faults.numbers()) > 100, 20, worker.tail)
        first = breakable.master()
        if harm == "killed":
            first.kill()
        else:
            first.send(signal.SIGSTOP)
        wait_for(lambda: breakable.master() is not first, 20)
        agreed, done = time.monotonic(), len(faults.numbers())
        wait_for(lambda: len(faults.numbers()) > done, 5, worker.tail)
        print(f"{harm}: the next task ran {time.monotonic() - agreed:.2f} s after the sentinels agreed")
        if harm == "frozen":
            first.send(signal.SIGCONT)
        producer.join()
        wait_for(lambda: faults.numbers() == set(range(1000)), 30, faults.logs)
        wait_for(lambda: faults.depth() == EMPTY, 20, faults.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_masters_are_killed_one_after_the_other(breakable, faults):
    with faults.worker("-c", "2") as worker:
        worker.waits_to_print("ready.")
        for turn in range(10):
            faults.script(f"from faults_app import *\nfor n in range({turn * 200}, {turn * 200 + 200}): work.delay(n, 0.005)")
            wait_for(lambda turn=turn: len(faults.numbers()) > turn * 200 + 20, 20, worker.tail)
            dead = breakable.master()
            dead.kill()
            wait_for(lambda dead=dead: breakable.master() is not dead, 20)
            dead.start()
            wait_for(lambda turn=turn: faults.numbers() == set(range(turn * 200 + 200)), 30, faults.logs)
            wait_for(breakable.settled, 40)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()


def test_a_master_that_became_a_replica_is_not_written_to_and_the_new_one_is_found(breakable):
    with contextlib.closing(open_broker(breakable.url, options=breakable.options)) as broker:
        broker.publish([item("q", "a")])
        broker.join("w", ["q"], lease=60)
        first = breakable.master()
        breakable.sentinels[0].ask("SENTINEL FAILOVER", processes.NAME)
        wait_for(lambda: breakable.master() is not first, 20)
        wait_for(lambda: renewed(broker), 5)
        broker.publish([item("q", "b")])
        assert ids_of(broker.fetch("q", 9, owner="w", seq=1)) == ["a", "b"]


def test_a_master_that_comes_back_is_not_written_to_though_it_has_not_heard_of_the_other(breakable):
    with contextlib.closing(open_broker(breakable.url, options=breakable.options)) as broker:
        broker.publish([item("q", "a")])
        first = breakable.master()
        first.send(signal.SIGSTOP)
        wait_for(lambda: breakable.master() is not first, 20)
        for each in breakable.sentinels:
            wait_for(lambda each=each: each.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", processes.NAME)[1] != b"%d" % first.port, 20)
        first.send(signal.SIGCONT)
        asked_again = time.monotonic() + sentinel.ASK_EVERY
        wait_for(lambda: time.monotonic() > asked_again)
        broker.publish([item("q", "b")])
        assert first.ask("LLEN", "q") == 1
        assert breakable.master().ask("LLEN", "q") == 2


def test_who_writes_to_a_replica_is_told_that_nothing_was_done_and_asks_the_sentinels_again(breakable):
    """The sentinels are still to notice: the connection leads to a server that was demoted by hand."""
    with contextlib.closing(open_broker(breakable.url, options=breakable.options)) as broker:
        broker.publish([item("q", "a")])
        master = breakable.master()
        other = next(each for each in breakable.servers if each is not master)
        master.ask("REPLICAOF", "127.0.0.1", other.port)
        for what in (lambda: broker.publish([item("q", "b")]), lambda: broker.join("w", ["q"], lease=60)):
            with pytest.raises(BrokerUnavailable, match=r"(?i)read ?only") as caught:
                what()
            assert not caught.value.maybe_sent
            assert not caught.value.refused
        assert not broker._client._idle


def renewed(broker):
    try:
        return broker.renew("w", ["q"], lease=60)
    except BrokerUnavailable:
        return False


def test_results_bus_and_leases_are_at_the_master_too(watched):
    with contextlib.ExitStack() as stack:
        close = lambda driver: stack.enter_context(contextlib.closing(driver))  # noqa: E731
        bus, leases = close(RedisBus(watched.url, options=watched.options)), close(RedisLeases(watched.url, options=watched.options))
        listening = close(bus.subscribe(["t"]))
        bus.publish("t", b"1")
        assert listening.receive(5).body == b"1"
        assert leases.acquire("role", "me", ttl=10)
        broker = close(open_broker(watched.url, options=watched.options))
        backend = close(open_backend(watched.url, options=watched.options))
        assert broker.settles_with(backend)
        assert backend.get(["a"]) == [None]


@pytest.mark.parametrize("form", ["{0};{1}/0", "{0};{1}", "sentinel://127.0.0.1:{2},127.0.0.1:{3}/0"])
def test_each_form_of_the_url_finds_the_master(watched, form):
    urls = [f"sentinel://127.0.0.1:{each.port}" for each in watched.sentinels[:2]]
    with contextlib.closing(open_broker(form.format(*urls, *(each.port for each in watched.sentinels)), options=watched.options)) as broker:
        broker.open()


def test_the_name_of_the_master_may_stand_in_the_url(watched):
    with contextlib.closing(open_broker(f"{watched.url}?master_name={processes.NAME}")) as broker:
        broker.open()


def test_a_list_of_sentinels_is_one_broker(watched):
    urls = [f"sentinel://127.0.0.1:{port}" for port in (1, watched.sentinels[0].port)]
    app = Celery("sentinels", broker=urls, broker_transport_options=watched.options)
    with contextlib.closing(app):
        app.broker.open()


def test_sentinels_that_do_not_answer_are_passed_over_in_time(watched):
    frozen = watched.sentinels[0]
    frozen.send(signal.SIGSTOP)
    try:
        with contextlib.closing(open_broker(watched.url, options=watched.options)) as broker:
            started = time.monotonic()
            broker.open()
            assert time.monotonic() - started < 2
    finally:
        frozen.send(signal.SIGCONT)


def test_a_look_up_of_a_sentinel_that_hangs_holds_up_no_call_for_longer_than_its_deadline(watched, monkeypatch):
    url, ends = f"sentinel://localhost:{watched.sentinels[0].port}", threading.Event()
    with contextlib.closing(open_broker(url, options=watched.options)) as broker:
        broker.open()
        broker._client._asked = 0.0  # long ago
        for each in broker._client._sentinel.sentinels:
            each.close()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(20) and [])
        started = time.monotonic()
        with contextlib.suppress(BrokerUnavailable):  # little of its time may be left for the call itself
            broker.open()
        took = time.monotonic() - started
        ends.set()
        assert 1 < took < 4


def test_without_the_name_of_the_master_the_error_says_where_it_goes():
    with pytest.raises(ImproperlyConfigured, match=r"broker_transport_options .* {'master_name': 'mymaster'}"):
        open_broker("sentinel://127.0.0.1:26379")


def test_a_master_that_the_sentinels_do_not_know_is_named(watched):
    with contextlib.closing(open_broker(watched.url, options={"master_name": "another"})) as broker:
        with pytest.raises(BrokerUnavailable, match=r"No master found for 'another'.*master_name is not its name") as caught:
            broker.open()
        assert caught.value.unreachable


def test_sentinels_that_want_a_password_are_given_it(watched, tmp_path):
    with processes.sentinel(tmp_path / "guarded", watched.master().port, "requirepass secret", password="secret") as guarded:
        url = f"sentinel://127.0.0.1:{guarded.port}"
        with contextlib.closing(open_broker(url, options={**watched.options, "sentinel_kwargs": {"password": "secret"}})) as broker:
            broker.open()
        with contextlib.closing(open_broker(url, options=watched.options)) as broker, pytest.raises(BrokerUnavailable, match=r"(?i)auth"):
            broker.open()
