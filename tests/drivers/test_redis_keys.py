"""What Redis holds of a queue: which options its layout takes, and what a script may delete of it."""

import contextlib
import re
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis import Redis

from umbel.backend import Arrival, Record
from umbel.broker import TALLIES_KEPT, Verb
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.exceptions import ImproperlyConfigured
from umbel.testing.conformance.base import LEASE, ids_of, item, settlement

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


def test_what_a_killed_worker_had_without_messages_goes_with_the_next_worker(make_broker, client, redis_prefix):
    broker = make_broker()
    for name in ("killed", "next"):
        broker.join(name, ["q"], lease=60)
        assert broker.fetch("q", 1, owner=name, seq=1) == []
    client.zadd(broker.keys("q")["owners"], {"killed": 1})
    broker.recover("q", owner="next", limit=10)
    broker.leave("next", ["q"])
    lasting = [key for key in client.scan_iter(f"{redis_prefix}*") if client.ttl(key) == -1]
    assert lasting == []


def test_counts_are_forgotten_by_redis_itself_after_three_hours(make_broker, client):
    broker = make_broker()
    broker.publish([item("q", "a"), item("q", "b")])
    broker.join("w", ["q"], lease=60)
    held = broker.fetch("q", 2, owner="w", seq=1)
    broker.settle([replace(settlement(held[0]), tally="a")])
    broker.fetch("q", 0, owner="w", seq=2, settle=[replace(settlement(held[1]), tally="a")])
    keys = list(client.scan_iter(broker.keys("q")["tally:*"].replace("{", "[{]")))
    assert keys
    for key in keys:
        assert TALLIES_KEPT - 60 <= client.ttl(key) <= TALLIES_KEPT
        assert int(key.rpartition(b":")[2]) % 60 == 0


PAGE = Path(__file__).parents[2] / "docs/how-to/choose-a-broker.md"


def test_a_user_with_the_acl_of_the_docs_may_do_everything(client, redis_url, redis_prefix):
    line = re.search(r"^ACL SETUSER (.*)$", PAGE.read_text(), re.MULTILINE)
    rules = [rule.replace("~", "~" + redis_prefix).replace("&", "&" + redis_prefix) for rule in line[1].split()[3:]]
    user = redis_prefix.strip(":")
    url, options = re.sub("//(.*@)?", f"//{user}:secret@", redis_url), {"global_keyprefix": redis_prefix}
    with contextlib.ExitStack() as stack:
        client.execute_command("ACL", "SETUSER", user, "on", ">secret", *rules)
        stack.callback(client.acl_deluser, user)
        broker = stack.enter_context(contextlib.closing(RedisBroker(url, options=options)))
        backend = stack.enter_context(contextlib.closing(RedisBackend(url, options=options)))
        assert broker.settles_with(backend)
        broker.publish([item("celery", f"m{n}", priority=9 * (n % 2)) for n in range(6)])
        broker.publish([item("celery", "later", due=time.time() + 60)])
        broker.join("w", ["celery"], lease=60)
        held = broker.fetch("celery", 9, owner="w", seq=1)
        verbs = (Verb.BURY, Verb.PARK, Verb.DELAY, Verb.GIVE_BACK)
        what = [replace(settlement(each, verb, reason="t"), tally="a") for each, verb in zip(held, verbs, strict=False)]
        assert all(broker.settle(what))
        assert sum(each.count for each in broker.tallies("celery", since=0)) == len(what)
        assert broker.mark_started(held[-1])
        assert broker.requeue(broker.dead("celery")) == broker.discard(broker.parked("celery")) == 1
        assert not broker.recover("celery", owner="w", limit=1).deliveries
        broker.promote("celery")
        broker.revoke(["a"], ttl=60)
        assert broker.revoked_since(0).entries
        assert backend.store([Record(id="a", state="SUCCESS", meta=b"{}", expires=60)]) == [True]
        watch = backend.watch()
        watch.listen(["a"])
        assert watch.wait(5) == {"a": b"{}"}
        watch.drop(["a"])
        watch.close()
        backend.forget(["a"])
        broker.wait("w", ["celery"], 0.01)
        broker.leave("w", ["celery"])
        assert broker.purge("celery") == 6


def test_all_that_is_kept_of_workflows_has_a_time_to_live_which_no_write_shortens(redis_url, redis_prefix, client):
    with contextlib.closing(RedisBackend(redis_url, options={"global_keyprefix": redis_prefix})) as backend:
        backend.begin_flow("f", {0: b"node"}, {0: (2, b"join"), 1: (0, b"")}, expires=1000)
        backend.begin_flow("short", {}, {0: (0, b"")}, expires=1)
        parts = [Arrival(flow="f", join=0, position=n, id=f"t{n}", value=b"1") for n in range(2)]
        backend.arrive(parts[:1], expires=10)
        backend.arrive(parts[1:], expires=2000)
        backend.grow("f", 0, 1, key="a")
        backend.overs(older=0)
        backend.bind([("t", "copy")], expires=1000)
        backend.save_group("g", b"{}", expires=1000)
        left = {key.decode().removeprefix(redis_prefix): client.pttl(key) / 1000 for key in client.scan_iter(match=f"{redis_prefix}*")}
    assert left.pop("{umbel.flows:0}:short.nodes") <= 1
    assert left.pop("{umbel.flows:0}:short.joins") <= 1
    assert {name: round(seconds, -2) for name, seconds in left.items()} == {
        "{umbel.flows:0}:f.nodes": 2000, "{umbel.flows:0}:f.joins": 2000, "{umbel.flows:0}:f.values": 2000, "{umbel.flows:0}.over": 2000,
        "umbel.bound:t": 1000, "celery-taskset-meta-g": 1000,
    }  # fmt: skip
