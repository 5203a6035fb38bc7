"""Services that look after the consumed queues: claims of dead nodes, delayed messages, parked messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from umbel.broker import Broker, Delivery, OwnerLost
from umbel.exceptions import OperationalError
from umbel.execution.link import boottime
from umbel.worker.fetcher import Fetcher
from umbel.worker.lease import Lease

__all__ = ["find_parked", "promote_delayed", "recover_dead"]

logger = logging.getLogger("celery.worker")
EVERY = 1.0  # seconds between looks
STEP = 200  # claims in one step: a step holds up the broker


async def recover_dead(broker: Broker, io: Executor, lease: Lease, settle: Callable[[Delivery], None]) -> None:
    """Take over what dead nodes had claimed, for ever.

    Invariant: nothing is taken before this node has had one full lease of unbroken connection, so that after an outage
    of the broker, which no owner could renew through, every owner has had the time to come back.
    """
    while True:
        await asyncio.sleep(EVERY)
        since = lease.unbroken_since
        if since is None or boottime() - since < lease.lease or not lease.held():
            continue
        for queue in lease.queues:
            with contextlib.suppress(OperationalError, OwnerLost):  # the link says so; the lease joins again
                await recover_queue(broker, io, lease, queue, settle)


async def recover_queue(broker: Broker, io: Executor, lease: Lease, queue: str, settle: Callable[[Delivery], None]) -> None:
    """Take over all that dead nodes had claimed from *queue*, step by step."""
    more = True
    while more:
        recovered = await lease.link.call(io, f"recover claims on {queue!r}", broker.recover, queue, owner=lease.owner, limit=STEP)
        more = recovered.more
        if recovered.deliveries:
            logger.warning("Recovered %d message(s) of a dead worker from %r.", len(recovered.deliveries), queue)
        for delivery in recovered.deliveries:
            settle(delivery)


async def promote_delayed(broker: Broker, io: Executor, lease: Lease) -> None:
    """Move delayed messages that are due to ready, for ever. Claims do so, too; this is for when all workers are busy."""
    while True:
        wait = EVERY
        for queue in lease.queues:
            try:
                due = await lease.link.call(io, f"promote on {queue!r}", broker.promote, queue, limit=1000)
            except OperationalError:
                continue
            if due is not None:
                wait = min(wait, max(0.05, due - time.time()))
        await asyncio.sleep(wait)


async def find_parked(broker: Broker, io: Executor, lease: Lease, tasks: Mapping[str, Any], fetcher: Fetcher) -> None:
    """Tell the fetcher which of the parked messages are of tasks that this worker knows, for ever.

    It claims them from where they are. Put back to ready, they might be claimed by a worker that does not know them either.
    """
    while True:
        for queue in lease.queues:
            try:
                names = list(tasks)  # which may change at any time
                known = await lease.link.call(io, f"find parked messages on {queue!r}", broker.parked_for, queue, names)
            except OperationalError:
                continue
            if known and not fetcher.parked.get(queue):
                logger.info("Messages that were parked on %r are run here: %s.", queue, ", ".join(known))
            fetcher.parked[queue] = known
            if known:
                fetcher.wake.set()
        await asyncio.sleep(EVERY)
