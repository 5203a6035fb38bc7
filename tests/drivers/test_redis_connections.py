"""Connections to Redis: what a user may ask of them in the URL and in the options, and how many round trips a batch takes."""

import contextlib
import threading

import pytest

from umbel.backend import Record
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.testing.conformance.base import LEASE, ids_of, item

pytestmark = pytest.mark.redis


@pytest.mark.parametrize(("query", "asked"), [("", {"health_check_interval": 0.01}), ("?protocol=3", {})])
def test_waiting_for_a_result_works_with_health_checks_and_whatever_protocol_the_url_names(redis_url, redis_prefix, query, asked):
    options = {"global_keyprefix": redis_prefix, **asked}
    with contextlib.closing(RedisBackend(redis_url + query, options=options)) as backend:
        stored = Record(id="a", state="SUCCESS", meta=b"{}", expires=60)
        watch = backend.watch()
        watch.listen(["a"])
        for _ in range(2):
            assert watch.wait(0.1) == {}
        thread = threading.Timer(0.1, backend.store, ([stored],))
        thread.start()
        assert watch.wait(10) == {"a": b"{}"}
        thread.join()
        watch.close()


def test_a_recovery_works_whatever_protocol_the_url_names(redis_url, redis_prefix):
    with contextlib.closing(RedisBroker(redis_url + "?protocol=3", options={"global_keyprefix": redis_prefix})) as broker:
        broker.publish([item("q", "a")])
        broker.join("w", ["q"], lease=LEASE)
        (held,) = broker.fetch("q", 1, owner="w", seq=1)
        assert broker.mark_started(held)
        broker._client.call("ZADD", broker.keys("q")["owners"], 1, "w")
        broker.join("heir", ["q"], lease=60)
        (taken,) = broker.recover("q", owner="heir", limit=1).deliveries
        assert taken.attempts == 1
        broker.leave("heir", ["q"])
        assert broker.depth(["q"])["q"].ready == 1


def test_a_batch_whose_queues_alternate_takes_few_round_trips_and_keeps_the_order_of_each(redis_url, redis_prefix, monkeypatch):
    with contextlib.closing(RedisBroker(redis_url, options={"global_keyprefix": redis_prefix})) as broker:
        trips = []
        ask = broker._client.pipeline
        monkeypatch.setattr(broker._client, "pipeline", lambda *args, **how: trips.append(args) or ask(*args, **how))
        broker.publish([item(f"q{n % 2}", f"m{n}") for n in range(100)])
        assert len(trips) <= 6  # for each queue: push, and ring, once more if the server does not know the script
        for n in range(2):
            broker.join("w", [f"q{n}"], lease=60)
            assert ids_of(broker.fetch(f"q{n}", 100, owner="w", seq=1)) == [f"m{k}" for k in range(n, 100, 2)]
