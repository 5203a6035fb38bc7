"""Joins that are over and whose worker has died before it sent what follows: another one does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from umbel.app import Umbel
from umbel.backend import ResultBackend
from umbel.exceptions import OperationalError
from umbel.execution.documents import Documents
from umbel.execution.follower import Follower, Halted
from umbel.execution.settle import Settler
from umbel.moments import seconds
from umbel.worker.lease import Lease

__all__ = ["flow_expires", "follower_of", "release_joins"]

EVERY = 1.0  # seconds between looks
OLDER = 1.0  # seconds that a worker has for what follows a join before others do it, too


def flow_expires(conf: Mapping[str, Any]) -> float | None:
    """Return how long the records of workflows are kept after the last write to them."""
    return seconds(conf["umbel_flow_expires"])


def follower_of(app: Umbel, conf: Mapping[str, Any], *, may_write: Callable[[], bool], clock: Callable[[], float] = time.time) -> Follower:
    """Return what carries out what follows in workflows."""
    failures = conf["result_failure_expires"]
    expires = seconds(conf["result_expires"] if failures is None else failures)
    return Follower(
        app, app.broker, app.backend, Documents(app, conf), expires=flow_expires(conf), result_expires=expires,
        may_write=may_write, clock=clock,
    )  # fmt: skip


async def release_joins(backend: ResultBackend, io: Executor, lease: Lease, settler: Settler) -> None:
    """Look for joins that nobody answers for any more, for ever."""
    while backend.keeps_flows:
        await asyncio.sleep(EVERY)
        if not lease.held():
            continue
        with contextlib.suppress(OperationalError, Halted):  # the link says so
            overs = await settler.store_link.call(io, "look for joins that are over", backend.overs, older=OLDER)
            if overs:
                await settler.release(overs)
