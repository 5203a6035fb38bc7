"""Services that look after the consumed queues: claims of dead nodes, delayed messages, parked messages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from umbel.broker import Broker, Delivery, OwnerLost
from umbel.exceptions import OperationalError
from umbel.worker.lease import Lease, boottime

__all__ = ["promote_delayed", "recover_dead", "unpark_known"]

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
            except (OperationalError, OwnerLost) as exc:
                logger.warning("Cannot recover the claims of dead workers on %r now: %s", queue, exc)


async def promote_delayed(broker: Broker, io: Executor, lease: Lease) -> None:
    """Move delayed messages that are due to ready, for ever. Claims do so, too; this is for when all workers are busy."""
    while True:
        wait = EVERY
        for queue in lease.queues:
            try:
                due = await call(io, broker.promote, queue, limit=1000)
            except OperationalError:
                continue  # the lease says that the broker is away
            if due is not None:
                wait = min(wait, max(0.05, due - time.time()))
        await asyncio.sleep(wait)


async def unpark_known(broker: Broker, io: Executor, lease: Lease, tasks: Mapping[str, Any], *, every: float = 10.0) -> None:
    """Put messages that were parked as unknown back, when this worker knows their tasks, for ever."""
    while True:
        for queue in lease.queues:
            try:
                moved = await call(io, broker.unpark, queue, names(tasks))
            except OperationalError:
                continue
            if moved:
                logger.info("Took %d parked message(s) from %r: their tasks are known here.", moved, queue)
        await asyncio.sleep(every)


def names(tasks: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of *tasks*, which may change at any time."""
    return list(tasks)


async def call(io: Executor, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a driver in its thread."""
    return await asyncio.get_running_loop().run_in_executor(io, lambda: method(*args, **kwargs))
