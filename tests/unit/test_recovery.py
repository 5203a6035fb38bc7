"""How a worker takes over the claims of dead ones, step by step."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from umbel.broker import Delivery, Recovered
from umbel.execution.link import Link
from umbel.worker.recovery import recover_queue


def test_as_many_steps_are_made_as_the_broker_asks_for_and_no_more():
    taken = Delivery(queue="q", tag="1", owner="w", raw=b"", fence=1)
    steps, settled = [Recovered(deliveries=(), more=True), Recovered(deliveries=(taken,), more=False)], []

    async def body(io: ThreadPoolExecutor) -> None:
        broker = SimpleNamespace(recover=lambda queue, *, owner, limit: steps.pop(0))
        await recover_queue(broker, io, SimpleNamespace(link=Link("broker"), owner="w"), "q", settled.append)

    with ThreadPoolExecutor(1) as io:
        asyncio.run(body(io))
    assert (steps, settled) == ([], [taken])
