"""What was sent to a frozen server is carried out when it goes on, long after its sender gave up."""

import asyncio
import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.conftest import goes_by
from tests.processes import wait_for

from umbel.backend import Record
from umbel.broker import Item, Settlement, Verb
from umbel.drivers.memory import MemoryBroker
from umbel.drivers.redis import RedisBroker
from umbel.drivers.sqlite import SQLiteBackend
from umbel.exceptions import BrokerUnavailable
from umbel.execution.link import Link
from umbel.execution.settle import Settler
from umbel.ids import uuid


@pytest.mark.redis
def test_a_recovery_that_arrives_late_takes_nothing_from_an_owner_that_could_not_renew(private_redis):
    busy, looking = RedisBroker(private_redis.url), RedisBroker(private_redis.url)
    busy.publish([Item(raw=b"{}", queue="celery", id=uuid())])
    for broker, owner in ((busy, "busy"), (looking, "looking")):
        broker.join(owner, ["celery"], lease=1.0)
    assert len(busy.fetch("celery", 1, owner="busy", seq=1)) == 1
    assert not looking.recover("celery", owner="looking", limit=10).deliveries
    private_redis.send(signal.SIGSTOP)
    with pytest.raises(BrokerUnavailable):
        looking.recover("celery", owner="looking", limit=10)
    goes_by(1.0)  # both leases lapse
    private_redis.send(signal.SIGCONT)
    assert busy.renew("busy", ["celery"], lease=1.0), "an outage took the claim of an owner that lives"
    for broker in (busy, looking):
        broker.close()


@pytest.mark.redis
def test_a_recovery_caught_between_its_two_steps_takes_nothing_either(private_redis):
    """The clock is asked first, and what was asked with it is void half a second later."""
    busy, looking = RedisBroker(private_redis.url), RedisBroker(private_redis.url)
    for broker, owner in ((busy, "busy"), (looking, "looking")):
        broker.join(owner, ["celery"], lease=1.0)
    asked = looking._client.call("TIME")
    until = int(asked[0]) * 1000 + int(asked[1]) // 1000
    wait_for(lambda: int(looking._client.call("TIME")[0]) >= int(asked[0]) + 3, 5)
    looking.renew("looking", ["celery"], lease=1.0)
    looking._run("recover", looking.keys("celery").base, "looking", 10, until, 1)
    assert busy.renew("busy", ["celery"], lease=1.0)
    for broker in (busy, looking):
        broker.close()


class Slow(SQLiteBackend):
    """Stores, and takes so long that the lease's deadline has passed."""

    held = True
    stored = 0

    def store(self, records):
        flags = super().store(records)
        self.held, self.stored = False, self.stored + 1
        return flags


def test_an_acknowledgement_whose_turn_comes_past_the_deadline_is_kept(tmp_path):
    asyncio.run(kept_past_the_deadline(tmp_path))


async def kept_past_the_deadline(tmp_path):
    backend, broker = Slow(f"sqlite:///{tmp_path}/results"), MemoryBroker("memory://")
    broker.publish([Item(raw=b"{}", queue="celery", id="1")])
    broker.join("me", ["celery"], lease=60)
    [delivery] = broker.fetch("celery", 1, owner="me", seq=1)
    with ThreadPoolExecutor(1) as io:
        settler = Settler(broker, backend, io, may_write=lambda: backend.held, link=Link("broker"))
        running = asyncio.create_task(settler.run())
        settler.add(Settlement(delivery=delivery, verb=Verb.ACK), Record(id="1", state="SUCCESS", meta=b"{}", fence=1, expires=None))
        await until(lambda: backend.stored == 1)
        assert broker.depth(["celery"])["celery"].claimed == 1
        backend.held = True
        await until(lambda: broker.depth(["celery"])["celery"].claimed == 0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert backend.stored == 1
    backend.close()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it asks has no event
            await asyncio.sleep(0.01)
