"""What Redis holds of a queue: which options its layout takes, and what a script may delete of it."""

import contextlib

import pytest
from redis import Redis

from umbel.drivers.redis import RedisBroker
from umbel.exceptions import ImproperlyConfigured
from umbel.testing.conformance.base import LEASE, ids_of, item

pytestmark = pytest.mark.redis


@pytest.fixture
def make_broker(redis_url, redis_prefix):
    with contextlib.ExitStack() as stack:

        def make(**options):
            broker = RedisBroker(redis_url, options={"global_keyprefix": redis_prefix, **options})
            stack.callback(broker.close)
            return broker

        yield make


@pytest.fixture
def client(redis_url):
    with contextlib.closing(Redis.from_url(redis_url)) as client:
        yield client


@pytest.mark.parametrize("steps", [range(11), ()])
def test_more_priority_steps_than_priorities_are_refused_and_none_too(redis_url, steps):
    with pytest.raises(ImproperlyConfigured, match=f"priority_steps has {len(steps)} entries"):
        RedisBroker(redis_url, options={"priority_steps": steps})


def test_ten_priority_steps_are_kept_apart_and_come_back(make_broker):
    broker = make_broker(priority_steps=range(10))
    broker.publish([item("q", f"p{n}", priority=n) for n in (9, 0, 5)])
    broker.join("w", ["q"], lease=60)
    assert ids_of(broker.fetch("q", 10, owner="w", seq=1)) == ["p0", "p5", "p9"]
    broker.leave("w", ["q"])
    broker.join("next", ["q"], lease=60)
    assert ids_of(broker.fetch("q", 10, owner="next", seq=1)) == ["p0", "p5", "p9"]


@pytest.mark.parametrize("how", ["leave", "recover"])
def test_a_claim_with_the_step_of_an_older_umbel_comes_back(make_broker, client, how):
    broker = make_broker()
    broker.publish([item("q", "a")])
    broker.join("w", ["q"], lease=LEASE)
    (held,) = broker.fetch("q", 1, owner="w", seq=1)
    claims = broker.keys("q").claims("w")
    client.hset(claims, "1:1:11", client.hget(claims, held.tag))
    client.hset(claims, "unheard of", "kept")
    client.hdel(claims, held.tag)
    if how == "leave":
        broker.leave("w", ["q"])
        assert broker.depth(["q"])["q"].ready == 1
    else:
        client.zadd(broker.keys("q")["owners"], {"w": 1})
        broker.join("heir", ["q"], lease=60)
        assert ids_of(broker.recover("q", owner="heir", limit=10).deliveries) == ["a"]
    assert client.hgetall(claims) == {b"unheard of": b"kept"}
