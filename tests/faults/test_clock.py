"""The clock of the Redis server is set back."""

import struct

import pytest
from tests import servers
from tests.chaos.world import compile_shim
from tests.faults.conftest import running_redis
from tests.processes import wait_for

from umbel.backend import Record
from umbel.broker import Item
from umbel.drivers.redis import RedisBackend, RedisBroker, RedisLeases
from umbel.ids import uuid

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]


@pytest.fixture
def stepping(tmp_path):
    """A server, and how to set its clock off by some seconds."""
    shim = compile_shim(tmp_path)
    if shim is None or servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs Linux, a C compiler and a redis-server")
    skew = tmp_path / "skew"
    skew.write_bytes(bytes(8))

    def step(seconds):
        with skew.open("r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e6)))

    with running_redis(tmp_path / "redis", LD_PRELOAD=str(shim), CHAOS_SKEW=str(skew)) as server:
        yield server.url, step


def test_a_clock_that_is_set_back_makes_no_later_claim_look_older(stepping):
    url, step = stepping
    broker, backend = RedisBroker(url), RedisBackend(url)
    broker.publish([Item(raw=b"%d" % n, queue="celery", id=uuid()) for n in range(3)])
    broker.join("first", ["celery"], lease=60)
    broker.join("second", ["celery"], lease=600)
    [before] = broker.fetch("celery", 1, owner="first", seq=1)
    retry, success = (b'{"status": "%s", "fence": %%d}' % state for state in (b"RETRY", b"SUCCESS"))
    assert backend.store([Record(id="1", state="RETRY", meta=retry % before.fence, fence=before.fence)]) == [True]
    step(-3600)
    [after] = broker.fetch("celery", 1, owner="first", seq=2)
    assert after.fence > before.fence
    assert backend.store([Record(id="1", state="SUCCESS", meta=success % after.fence, fence=after.fence)]) == [True]
    assert [d.fence for d in broker.fetch("celery", 1, owner="first", seq=2)] == [after.fence], "a repeated claim has another fence"
    step(120)
    taken = broker.recover("celery", owner="second", limit=10).deliveries
    assert len(taken) == 2
    assert all(d.fence > after.fence for d in taken)
    for each in (broker, backend):
        each.close()


def test_a_role_is_free_in_its_time_and_its_next_term_has_a_larger_fence(stepping):
    url, step = stepping
    leases = RedisLeases(url)
    first = leases.acquire("beat", "dead", ttl=0.5)
    step(-3600)
    second = wait_for(lambda: leases.acquire("beat", "other", ttl=0.5), 5)
    assert second.fence > first.fence
    leases.close()
