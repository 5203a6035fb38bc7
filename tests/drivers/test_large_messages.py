"""Large messages and results: no step moves more of them than a reply in time allows, as its repeat would be as large."""

import contextlib
import time

import pytest
from tests.process.conftest import POSTGRES, REDIS
from tests.processes import wait_for

from umbel.backend import Record
from umbel.broker import Verb
from umbel.drivers.postgres import PostgresBroker
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.drivers.redis.chunks import chunks
from umbel.drivers.sqlite import SQLiteBroker
from umbel.testing.conformance.base import LEASE, item, settlement

PATIENCE = 20.0  # seconds: what is looked at is how much a step moves, on a busy machine, too
SIZE = 3_000_000  # four million bytes in the message: two of them are enough for a step


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def broker(request, tmp_path):
    if request.param == "sqlite":
        broker = SQLiteBroker(f"sqlite:///{tmp_path}/umbel.sqlite3", timeout=PATIENCE)
    elif request.param == "postgresql":
        broker = PostgresBroker(request.getfixturevalue("postgres_database"), timeout=PATIENCE)
    else:
        broker = request.getfixturevalue("redis_broker")
    yield broker
    broker.close()


@pytest.fixture
def redis_broker(redis_url, redis_prefix):
    with contextlib.closing(RedisBroker(redis_url, options={"global_keyprefix": redis_prefix}, timeout=PATIENCE)) as broker:
        yield broker


def test_a_claim_and_a_recovery_end_after_some_megabytes(broker):
    broker.publish([item("q", f"m{n}", size=SIZE) for n in range(5)])
    broker.join("lost", ["q"], lease=LEASE)
    assert [len(broker.fetch("q", 5, owner="lost", seq=seq)) for seq in (1, 2, 3)] == [2, 2, 1]
    broker.join("heir", ["q"], lease=60)
    steps = []
    wait_for(lambda: steps.append(broker.recover("q", owner="heir", limit=10)) or steps[-1].deliveries, 5)
    while steps[-1].more:
        steps.append(broker.recover("q", owner="heir", limit=10))
    assert [len(step.deliveries) for step in steps if step.deliveries] == [2, 2, 1]


def test_parked_messages_count_too(broker):
    broker.publish([item("q", f"m{n}", size=SIZE) for n in range(4)])
    broker.join("w", ["q"], lease=60)
    for seq in (1, 2):
        broker.settle([settlement(each, Verb.PARK, reason="t") for each in broker.fetch("q", 5, owner="w", seq=seq)])
    assert [len(broker.fetch("q", 5, owner="w", seq=seq, parked=["t"])) for seq in (3, 4, 5)] == [2, 2, 0]


@pytest.mark.redis
def test_a_promotion_ends_after_some_megabytes(redis_broker):
    due = time.time() + 6
    redis_broker.publish([item("q", f"m{n}", size=SIZE, due=due) for n in range(6)])
    assert redis_broker.depth(["q"])["q"].delayed == 6
    redis_broker.wait("w", ["q"], 10)
    assert redis_broker.promote("q") is not None
    assert redis_broker.depth(["q"])["q"].ready == 3
    assert redis_broker.promote("q") is None


def test_what_goes_to_the_server_is_cut_by_bytes_and_by_number():
    assert list(chunks([5_000_000, 2_000_000, 2_000_000, 9_000_000, 1], int)) == [[5_000_000, 2_000_000], [2_000_000], [9_000_000], [1]]
    assert [len(chunk) for chunk in chunks([1] * 450, int)] == [200, 200, 50]
    assert [len(chunk) for chunk in chunks([1] * 450, int, 300)] == [300, 150]
    assert list(chunks([], int)) == []


@pytest.mark.redis
def test_settlements_and_results_are_sent_in_parts_and_each_has_its_answer(redis_broker, redis_url, redis_prefix, monkeypatch):
    with contextlib.closing(RedisBackend(redis_url, options={"global_keyprefix": redis_prefix}, timeout=PATIENCE)) as backend:
        assert redis_broker.settles_with(backend)
        redis_broker.publish([item("q", f"m{n}") for n in range(6)])
        redis_broker.join("w", ["q"], lease=60)
        held = redis_broker.fetch("q", 6, owner="w", seq=1)
        redis_broker.settle([settlement(held[4])])
        sent = []
        monkeypatch.setattr(redis_broker, "_run", lambda *args, run=redis_broker._run: sent.append(args[0]) or run(*args))
        meta = b'{"status": "SUCCESS", "result": "%b"}' % (b"x" * 3_000_000)
        records = [Record(id=f"{redis_prefix}{n}", state="SUCCESS", meta=meta, expires=60) for n in range(6)]
        riding = [settlement(each, records=[one]) for each, one in zip(held, records, strict=True)]
        assert redis_broker.settle(riding) == [True, True, True, True, False, True]
        assert sent == ["settle"] * 3
        assert backend.store(records) == [False] * 4 + [True, False]
        assert redis_broker.depth(["q"])["q"].claimed == 0
