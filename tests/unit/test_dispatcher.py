"""The dispatcher by itself."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from tests.unit.test_inflight import Long, Slots

from umbel.broker import Delivery
from umbel.execution.link import Link
from umbel.wire.message import Message, encode
from umbel.worker.dispatcher import Dispatcher
from umbel.worker.rate_limits import RateLimits


def test_an_unforeseen_error_before_a_suspect_starts_ends_the_worker_and_not_one_slot_in_silence():
    def mark_started(delivery: Delivery) -> bool:
        raise RuntimeError(delivery.tag)

    async def body(io: ThreadPoolExecutor) -> None:
        settler = SimpleNamespace(link=Link("broker"), may_write=lambda: True)
        dispatcher = Dispatcher(
            SimpleNamespace(mark_started=mark_started), Slots(1), settler, io, SimpleNamespace(), tasks={Long.name: Long()},
            most_deliveries=3, prefetch=None, rates=RateLimits({}),
        )  # fmt: skip
        raw = encode(Message(headers={"task": Long.name, "id": "a"}, properties={}, body=b"[[], {}, {}]"))
        dispatcher.deliver([Delivery(queue="q", tag="1", owner="w", raw=raw, fence=1, suspect=True)])
        async with asyncio.timeout(10):
            await dispatcher.look_after()

    with ThreadPoolExecutor(1) as io, pytest.raises(RuntimeError, match="1"):
        asyncio.run(body(io))
