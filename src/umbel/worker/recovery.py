"""Services that look after the consumed queues: claims of dead nodes, delayed messages, parked messages."""

from __future__ import annotations

import asyncio
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
            try:
                while (recovered := await call(io, broker.recover, queue, owner=lease.owner, limit=STEP)).deliveries or recovered.more:
                    logger.warning("Recovered %d message(s) of a dead worker from %r.", len(recovered.deliveries), queue)
                    for delivery in recovered.deliveries:
                        settle(delivery)
                    if not recovered.deliveries:
                        break
                lease.link.answered(f"recover claims on {queue!r}")
            except OwnerLost:
                break  # the lease is joining again
            except OperationalError as exc:
                lease.link.failed(f"recover claims on {queue!r}", exc)


async def promote_delayed(broker: Broker, io: Executor, lease: Lease) -> None:
    """Move delayed messages that are due to ready, for ever. Claims do so, too; this is for when all workers are busy."""
    while True:
        wait = EVERY
        for queue in lease.queues:
            try:
                due = await call(io, broker.promote, queue, limit=1000)
            except OperationalError as exc:
                lease.link.failed(f"promote on {queue!r}", exc)
                continue
            lease.link.answered(f"promote on {queue!r}")
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
                known = await call(io, broker.parked_for, queue, list(tasks))  # which may change at any time
            except OperationalError as exc:
                lease.link.failed(f"find parked messages on {queue!r}", exc)
                continue
            lease.link.answered(f"find parked messages on {queue!r}")
            if known and not fetcher.parked.get(queue):
                logger.info("Messages that were parked on %r are run here: %s.", queue, ", ".join(known))
            fetcher.parked[queue] = known
            if known:
                fetcher.wake.set()
        await asyncio.sleep(EVERY)


async def call(io: Executor, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a driver in its thread."""
    return await asyncio.get_running_loop().run_in_executor(io, lambda: method(*args, **kwargs))
