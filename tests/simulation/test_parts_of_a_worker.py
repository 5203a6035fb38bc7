"""Parts of a worker, put into situations that the model has found; the broker is one with faults."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
from msgspec.structs import replace

from umbel import Umbel
from umbel.backend import Record
from umbel.broker import Item, OwnerLost, Settlement, Verb
from umbel.drivers.memory import MemoryBackend, MemoryBroker
from umbel.exceptions import BrokerUnavailable
from umbel.execution.link import RETRY_AFTER, Link, boottime
from umbel.execution.report import Reporter
from umbel.execution.runner import TaskRunner
from umbel.execution.settle import Settler
from umbel.ids import uuid
from umbel.pools.solo import SoloPool
from umbel.testing import Act, FakeClock, Fault, FaultyBroker
from umbel.worker import lease as lease_module
from umbel.worker.dispatcher import Dispatcher
from umbel.worker.fetcher import Fetcher
from umbel.worker.lease import Lease
from umbel.worker.rate_limits import RateLimits
from umbel.worker.revoked import RevokedTasks

LEASE = 10.0


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(lease_module, "boottime", clock.boottime)
    return clock


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it asks has no event
            await asyncio.sleep(0.005)


def lease_on(broker, io, lost=lambda: None):
    return Lease(broker, io, node="celery@here", queues=["q"], lease=LEASE, renewal=2.5, on_lost=lost)


def test_a_claim_that_is_under_way_when_its_owner_is_lost_ends_nothing_else():
    asyncio.run(claim_under_way())


async def claim_under_way():
    broker = FaultyBroker(MemoryBroker(f"memory://{uuid()}"), [Fault("fetch", Act.HANG)])
    broker.publish([Item(raw=b"{}", queue="q", id="1")])
    came = []
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(broker, io, settler, lease, RevokedTasks(broker), room=lambda coming: 1 - coming, deliver=came.extend)
        await lease.join()
        fetching = asyncio.create_task(fetcher.run())
        await until(lambda: broker.hangs(0))
        broker.leave(lease.owner, ["q"])  # as if another had taken over
        fetcher.forget()
        broker.release()
        await until(lambda: broker.calls["fetch"] == 1 and not lease.held())
        await lease.join()
        await until(lambda: came)
        fetcher.stopped = True
        fetcher.wake.set()
        await fetching
    assert [delivery.owner for delivery in came] == [lease.owner]


def test_a_claim_is_repeated_until_what_was_revoked_before_it_is_known():
    asyncio.run(news_come_late())


async def news_come_late():
    broker = FaultyBroker(MemoryBroker(f"memory://{uuid()}"), [Fault("revoked_since", Act.REFUSE, times=2)])
    broker.revoke(["1"], ttl=60)
    broker.publish([Item(raw=b"{}", queue="q", id="1")])
    revoked, came = RevokedTasks(broker), []
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(
            broker, io, settler, lease, revoked, room=lambda coming: 1 - coming, deliver=lambda got: came.append((len(got), "1" in revoked))
        )
        await lease.join()
        fetching = asyncio.create_task(fetcher.run())
        await until(lambda: came)
        fetcher.stopped = True
        fetcher.wake.set()
        await fetching
    assert came == [(1, True)]
    assert broker.calls["revoked_since"] == 3


def test_an_idle_worker_claims_in_the_call_in_which_it_waited_and_nothing_once_it_is_told_to_stop():
    """Each change of threads makes the next task late by a tenth of a millisecond."""
    asyncio.run(waits_and_claims())


class Noted(MemoryBroker):
    """Says which calls of the thread reach it, and does something before a wait returns."""

    def __init__(self, url):
        super().__init__(url)
        self.asked, self.meanwhile = [], []

    def wait(self, owner, queues, timeout):
        self.asked.append("wait")
        if self.meanwhile:
            self.meanwhile.pop(0)()

    def fetch(self, queue, limit, **how):
        found = super().fetch(queue, limit, **how)
        self.asked.append(f"claimed {len(found)}")
        return found


class Counted(ThreadPoolExecutor):
    calls = 0

    def submit(self, *what, **how):
        self.calls += 1
        return super().submit(*what, **how)


async def waits_and_claims():
    broker, came = Noted(f"memory://{uuid()}"), []

    def send():
        broker.publish([Item(raw=b"{}", queue="q", id="1")])

    def stop():
        fetcher.stopped = True
        send()

    broker.meanwhile = [send, stop]
    with Counted(2) as io:
        lease = lease_on(broker, io)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(broker, io, settler, lease, RevokedTasks(broker), room=lambda coming: 1 - coming, deliver=came.extend)
        await lease.join()
        before = io.calls
        async with asyncio.timeout(10):
            await fetcher.run()
        assert broker.asked == ["claimed 0", "wait", "claimed 1", "claimed 0", "wait"]
        assert io.calls - before == 4
    assert len(came) == 1
    assert broker.depth(["q"])["q"].ready == 1, "what came after the stop is for another worker"


def test_while_a_claim_is_under_way_what_the_last_one_brought_is_handed_over():
    asyncio.run(handed_over_meanwhile())


async def handed_over_meanwhile():
    came, handed = [], threading.Event()
    asked = []

    class Slow(MemoryBroker):
        """Its second answer does not come before the first one was used."""

        def fetch(self, queue, limit, **how):
            asked.append(limit)
            assert len(asked) != 2 or handed.wait(10)
            return super().fetch(queue, min(limit, 10), **how)

    def deliver(deliveries):
        came.append(len(deliveries))
        handed.set()
        fetcher.stopped = len(came) == 2

    broker = Slow(f"memory://{uuid()}")
    broker.publish([Item(raw=b"{}", queue="q", id=str(n)) for n in range(20)])
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(broker, io, settler, lease, RevokedTasks(broker), room=lambda coming: 30 - coming, deliver=deliver)
        await lease.join()
        async with asyncio.timeout(20):
            await fetcher.run()
    assert came == [10, 10]
    assert asked[:3] == [30, 20, 20], "of the second claim there is room for what the first one has left"


def test_who_stood_still_past_its_lease_waits_a_full_one_before_it_takes_over_from_others(clock):
    asyncio.run(stood_still(clock))


async def stood_still(clock):
    broker = MemoryBroker(f"memory://{uuid()}")
    with ThreadPoolExecutor(1) as io:
        lease = lease_on(broker, io)
        await lease.join()
        clock.advance(5)
        await lease._renew()
        assert clock.boottime() - lease.unbroken_since == 5
        clock.advance(3600)  # the machine was suspended, and with it all others: no renewal failed
        assert not lease.held()
        await lease._renew()
        assert lease.held()
        assert clock.boottime() == lease.unbroken_since


def test_who_is_lost_again_as_soon_as_it_has_joined_joins_twice_a_second_and_not_all_the_time():
    asyncio.run(lost_again_and_again())


class Forgetful(MemoryBroker):
    """Lets everybody join, and knows nobody a moment later."""

    def __init__(self, url):
        super().__init__(url)
        self.joined = []

    def join(self, owner, queues, *, lease):
        self.joined.append(boottime())

    def fetch(self, queue, limit, *, owner, **how):
        raise OwnerLost(owner)


async def lost_again_and_again():
    broker, lost = Forgetful(f"memory://{uuid()}"), []
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io, lambda: lost.append(boottime()))
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(broker, io, settler, lease, RevokedTasks(broker), room=lambda coming: 1 - coming, deliver=lambda _: None)
        await lease.join()
        services = [asyncio.create_task(lease.run()), asyncio.create_task(fetcher.run())]
        await until(lambda: len(broker.joined) == 3)
        for service in services:
            service.cancel()
        await asyncio.wait(services)
    first, second, third = broker.joined
    assert min(second - first, third - second) > 0.8 * RETRY_AFTER
    assert lost[0] - first < 0.5 * RETRY_AFTER, "what runs is stopped at once, and not after the pause"


def test_settlements_whose_reply_is_lost_again_and_again_are_carried_out_once():
    asyncio.run(settled_once())


async def settled_once():
    plan = [Fault("settle", Act.LOSE_REPLY, times=2), Fault("settle", Act.REFUSE, call=3)]
    broker = FaultyBroker(MemoryBroker(f"memory://{uuid()}"), plan)
    broker.publish([Item(raw=b"{}", queue="q", id=str(n)) for n in range(3)])
    broker.join("me", ["q"], lease=60)
    held = broker.fetch("q", 3, owner="me", seq=1)
    again = [Item(raw=b"{}", queue="q", id=f"again-{n}") for n in range(3)]
    with ThreadPoolExecutor(1) as io:
        settler = Settler(broker, MemoryBackend(), io, may_write=lambda: True, link=Link("broker"))
        for delivery, item in zip(held, again, strict=True):
            settler.add(Settlement(delivery=delivery, verb=Verb.RETRY, replacement=item))
        running = asyncio.create_task(settler.run())
        await until(lambda: not settler.pending)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert broker.calls["settle"] == 4
    assert broker.depth(["q"])["q"].ready == 3


class Particular(MemoryBroker):
    """Settles no call in which a tag of *refused* is, and cannot write what is to become of those in *unwritable*."""

    refused: ClassVar[set[str]] = set()
    unwritable: ClassVar[set[str]] = set()

    def settle(self, settlements):
        tags = {each.delivery.tag for each in settlements if each.verb is not Verb.BURY}
        if tags & self.refused:
            raise BrokerUnavailable("no", refused=True)
        if tags & self.unwritable:
            raise OverflowError("a number that is too large")
        return super().settle(settlements)


@pytest.mark.parametrize("riding", [False, True])
def test_one_settlement_that_is_refused_or_cannot_be_written_holds_up_no_other(riding):
    asyncio.run(settled_one_by_one(riding))


async def settled_one_by_one(riding):
    broker = Particular(f"memory://{uuid()}")
    broker.publish([Item(raw=b"{}", queue="q", id=str(n)) for n in range(20)])
    came = []
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        fetcher = Fetcher(broker, io, settler, lease, RevokedTasks(broker), room=lambda coming: 10 - coming, deliver=came.extend)
        await lease.join()
        services = [asyncio.create_task(fetcher.run()), asyncio.create_task(settler.run())][: 1 if riding else None]
        await until(lambda: len(came) == 20)
        Particular.refused, Particular.unwritable = {came[3].tag}, {came[7].tag}
        for delivery in came[:20]:
            settler.add(Settlement(delivery=delivery, verb=Verb.ACK))
        if riding:  # only then is there somebody else who settles
            broker.publish([Item(raw=b"{}", queue="q", id="21")])
            await until(lambda: len(came) == 21)
            services.append(asyncio.create_task(settler.run()))
        await until(lambda: (broker.depth(["q"])["q"].claimed, broker.depth(["q"])["q"].dead) == (1 + riding, 1))
        await until(lambda: settler.pending == 1)  # and not in the middle of another try
        Particular.refused = set()
        await until(lambda: not settler.pending)
        for service in services:
            service.cancel()
        await asyncio.wait(services)
    assert broker.depth(["q"])["q"].claimed == riding
    (letter,) = broker.dead("q")
    assert letter.reason == "what was to become of it cannot be written: OverflowError: a number that is too large"


def test_what_was_started_often_enough_is_buried_though_who_recovered_it_died_too():
    asyncio.run(buried_after_two_recoveries())


async def buried_after_two_recoveries():
    app = Umbel("poison", broker=f"memory://{uuid()}", backend="memory://", set_as_current=False)
    app.task(lambda: None, name="dies").delay()
    app.broker.join("me", ["celery"], lease=60)
    [delivery] = app.broker.fetch("celery", 1, owner="me", seq=1)
    with ThreadPoolExecutor(1) as io:
        settler = Settler(app.broker, app.backend, io, may_write=lambda: True, link=Link("broker"))
        dispatcher = Dispatcher(
            app.broker, SoloPool(TaskRunner(app, node="n")), settler, io, Reporter(app, app.conf.snapshot(), node="n"),
            tasks=app.tasks, most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        dispatcher.recovered(replace(delivery, attempts=3, suspect=True))
        running = asyncio.create_task(settler.run())
        await until(lambda: app.broker.depth(["celery"])["celery"].dead == 1)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    app.close()


def test_of_what_cannot_be_written_tasks_are_counted_and_not_their_records_and_settlements():
    asyncio.run(counted())


async def counted():
    broker = MemoryBroker(f"memory://{uuid()}")
    broker.publish([Item(raw=b"{}", queue="q", id=str(n)) for n in range(3)])
    with ThreadPoolExecutor(2) as io:
        lease = lease_on(broker, io)
        await lease.join()
        first, second, third = broker.fetch("q", 3, owner=lease.owner, seq=1)
        settler = Settler(broker, MemoryBackend(), io, may_write=lease.held, link=lease.link)
        settler.store(Record(id="0", state="STARTED", meta=b"{}"))
        settler.add(Settlement(delivery=first, verb=Verb.ACK), Record(id="0", state="SUCCESS", meta=b"{}"))
        settler.add(Settlement(delivery=second, verb=Verb.ACK))
        settler.store(Record(id="2", state="RETRY", meta=b"{}"))
        settler.publish(Item(raw=third.raw, queue="q", id="2"))
        assert settler.unwritten == 3
