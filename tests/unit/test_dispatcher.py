"""The dispatcher by itself."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from tests.unit.test_inflight import Long, Slots

from umbel.broker import BrokerFeatures, Delivery, Verb
from umbel.exceptions import BrokerUnavailable
from umbel.execution.link import Link
from umbel.execution.outcome import Job
from umbel.pools.base import Slot
from umbel.task import Task
from umbel.wire.message import Message, encode
from umbel.worker.dispatcher import Dispatcher
from umbel.worker.inflight import Measure
from umbel.worker.rate_limits import RateLimits

FEATURES = BrokerFeatures()


def test_an_unforeseen_error_before_a_suspect_starts_ends_the_worker_and_not_one_slot_in_silence():
    def mark_started(delivery: Delivery) -> bool:
        raise RuntimeError(delivery.tag)

    async def body(io: ThreadPoolExecutor) -> None:
        settler = SimpleNamespace(link=Link("broker"), may_write=lambda: True)
        dispatcher = Dispatcher(
            SimpleNamespace(features=FEATURES, mark_started=mark_started), Slots(1), settler, io, SimpleNamespace(),
            tasks={Long.name: Long()},
            most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        raw = encode(Message(headers={"task": Long.name, "id": "a"}, properties={}, body=b"[[], {}, {}]"))
        dispatcher.deliver([Delivery(queue="q", tag="1", owner="w", raw=raw, fence=1, suspect=True)])
        async with asyncio.timeout(10):
            await dispatcher.look_after()

    with ThreadPoolExecutor(1) as io, pytest.raises(RuntimeError, match="1"):
        asyncio.run(body(io))


class Early(Task):
    name = "early"
    acks_late = False


class Taking(Slots):
    """Its slots take what they are sent."""

    def send(self, slot: Slot, jobs: list[Job]) -> int:
        return len(jobs)


def test_what_was_acknowledged_early_is_not_forgotten_with_the_claims():
    """One runs, one is being acknowledged, when the lease is lost: the first has failed, the second is sent again."""
    asked, answered = threading.Event(), threading.Event()
    answered.set()
    stored, sent = [], []

    def settle(settlements: list) -> list[bool]:
        asked.set()
        answered.wait(10)
        return [True for _ in settlements]

    async def until(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what it waits for happens in a thread
                await asyncio.sleep(0.005)

    async def body(io: ThreadPoolExecutor) -> None:
        settler = SimpleNamespace(link=Link("broker"), may_write=lambda: True, store=stored.append, publish=sent.append)
        reporter = SimpleNamespace(
            started=lambda request, pid: None, evidence=lambda kind: SimpleNamespace(attempts=0), embeds=lambda request: False,
            lost=lambda request, exc, verdict: (request.delivery.tag, verdict.failed),
        )  # fmt: skip
        dispatcher = Dispatcher(
            SimpleNamespace(features=FEATURES, settle=settle), Taking(2), settler, io, reporter, tasks={Early.name: Early()},
            most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        raw = encode(Message(headers={"task": Early.name, "id": "a"}, properties={}, body=b"[[], {}, {}]"))
        dispatcher.deliver([Delivery(queue="q", tag="runs", owner="w", raw=raw, fence=1)])
        await until(lambda: asked.is_set() and not dispatcher._preparing)
        asked.clear()
        answered.clear()
        dispatcher.deliver([Delivery(queue="q", tag="does not run yet", owner="w", raw=raw, fence=1)])
        await until(asked.is_set)
        dispatcher.forget()
        answered.set()
        await until(lambda: sent)

    with ThreadPoolExecutor(1) as io:
        asyncio.run(body(io))
    assert stored == [("runs", True)]
    assert [item.id for item in sent] == ["a"]


def test_what_was_acknowledged_early_is_sent_again_if_its_neighbour_could_not_be_and_the_claims_are_lost_then():
    acked, refused, sent = [], threading.Event(), []

    def settle(settlements: list) -> list[bool]:
        if acked:
            refused.set()
            raise BrokerUnavailable("gone")
        acked.append(settlements[0].delivery.tag)
        return [True]

    async def body(io: ThreadPoolExecutor) -> None:
        settler = SimpleNamespace(link=Link("broker"), may_write=lambda: True, publish=sent.append)
        dispatcher = Dispatcher(
            SimpleNamespace(features=FEATURES, settle=settle), Taking(1), settler, io, SimpleNamespace(), tasks={Early.name: Early()},
            most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        short = Measure(1e-4, 1e-4)  # so that both go in one packet
        dispatcher._inflight._measures[Early.name] = dispatcher._inflight._overall = short
        raws = [encode(Message(headers={"task": Early.name, "id": each}, properties={}, body=b"[[], {}, {}]")) for each in "ab"]
        dispatcher.deliver([Delivery(queue="q", tag=str(n), owner="w", raw=raw, fence=1) for n, raw in enumerate(raws)])
        await asyncio.to_thread(refused.wait, 10)
        dispatcher.forget()
        await asyncio.wait(dispatcher._preparing)

    with ThreadPoolExecutor(1) as io:
        asyncio.run(body(io))
    assert acked == ["0"]
    assert [item.id for item in sent] == ["a"]


def test_a_suspect_whose_slot_took_it_not_goes_back_to_its_queue_without_the_mark_of_a_start():
    settled, marked = [], []

    class Refusing(Slots):
        def send(self, slot: Slot, jobs: list[Job]) -> int:
            return 0

    async def body(io: ThreadPoolExecutor) -> None:
        settler = SimpleNamespace(link=Link("broker"), may_write=lambda: True, add=settled.append)
        dispatcher = Dispatcher(
            SimpleNamespace(features=FEATURES, mark_started=lambda delivery: marked.append(delivery.tag) or True),
            Refusing(1), settler, io, SimpleNamespace(),
            tasks={Long.name: Long()}, most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        raw = encode(Message(headers={"task": Long.name, "id": "a"}, properties={}, body=b"[[], {}, {}]"))
        dispatcher.deliver([Delivery(queue="q", tag="1", owner="w", raw=raw, fence=1, suspect=True, attempts=1)])
        await asyncio.wait(dispatcher._preparing)
        assert dispatcher.running == []

    with ThreadPoolExecutor(1) as io:
        asyncio.run(body(io))
    assert marked == ["1"]
    assert [(s.verb, s.attempts, s.suspect) for s in settled] == [(Verb.GIVE_BACK, 1, True)]
