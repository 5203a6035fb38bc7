"""The worker's lease: it owns what it claimed for as long as it renews, by the broker's clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from umbel.broker import Broker, OwnerLost
from umbel.exceptions import OperationalError
from umbel.execution.link import RETRY_AFTER, Link, boottime
from umbel.ids import uuid

__all__ = ["Lease", "boottime"]

logger = logging.getLogger("celery.worker")


class Lease:
    """An owner in the tables of all consumed queues: the node's name and an epoch of its own.

    Invariant: `held` is counted from before the renewal was sent, so it ends before the broker's own deadline does.
    """

    def __init__(
        self, broker: Broker, io: Executor, *, node: str, queues: Sequence[str], lease: float, renewal: float, on_lost: Callable[[], None]
    ) -> None:
        self._broker, self._io, self._node = broker, io, node
        # Invariant: no node trusts its claims for longer than the broker grants, whatever was asked for.
        self.queues, self.lease = tuple(queues), min(lease, broker.longest_lease)
        self._renewal = min(renewal, self.lease / 2)
        self._on_lost = on_lost
        self._until = 0.0
        self._early = False  # did the broker not know us before our deadline?
        self.owner = ""
        self._joining = ""
        self._joined_at = 0.0
        self.link = Link("broker", connected=False)
        self.unbroken_since: float | None = None  # since when every renewal has succeeded in time
        self.kept = False  # does a keeper renew beside us?
        self._renew_now = asyncio.Event()
        self.on_joined: Callable[[], None] = lambda: None

    def held(self) -> bool:
        """Answer whether this node may still write: its deadline has not passed."""
        return boottime() < self._until

    async def join(self) -> None:
        """Enter the tables under a new epoch.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        self._joining = self._joining or f"{self._node}:{uuid()}"  # kept until we know: a lost reply leaves no second owner behind
        asked = boottime()
        try:
            await self._in_thread(self._join, self._joining)
        except OwnerLost:
            self._joining = ""
            raise
        self.owner, self._joining, self._joined_at = self._joining, "", asked
        self._granted(asked)
        self.on_joined()

    def _granted(self, asked: float) -> None:
        """Count the lease from when it was asked for.

        A lease that had lapsed before was broken, though no renewal failed: the machine, or this process, stood still. The
        others may have stood still, too, and come back after us. With a keeper, our own silence says nothing.
        """
        if self.unbroken_since is None or (asked >= self._until and not self.kept):
            self.unbroken_since = asked
        self._until, self._early = asked + self.lease, False

    def _join(self, owner: str) -> None:
        self._broker.join(owner, self.queues, lease=self.lease)

    async def run(self) -> None:
        """Renew for ever; after an outage, revive the owner or join anew."""
        wait = self._renewal
        while True:
            try:
                await asyncio.wait_for(self._renew_now.wait(), wait)
                self._renew_now.clear()
            except TimeoutError:
                pass
            wait = self._renewal if await self._renew() else RETRY_AFTER

    async def _renew(self) -> bool:
        asked = boottime()
        try:
            if not self._joining:
                if await self._in_thread(self._ask):
                    self._granted(asked)
                    return True
                self._say_lost()
                self._until = 0.0
                self._on_lost()
                await asyncio.sleep(self._joined_at + RETRY_AFTER - boottime())  # one who is lost as soon as it has joined
            await self.join()
        except OwnerLost:
            return False
        except OperationalError:
            self.unbroken_since = None
            return False
        return True

    def _say_lost(self) -> None:
        if not self._broker.features.leases:
            logger.error(
                "The lease of %s ended with its connection to the broker, which gave its messages to others. What runs here is stopped; "
                "joining again.", self._node,
            )  # fmt: skip
            return
        if self._early or self.held():  # only a reply that came before the deadline says so: we may have stood still
            logger.error(
                "The broker does not know %s any more, though its lease had not ended: the broker's data was lost (or its clock was set "
                "forward). If so, messages that waited there are gone, too. What runs here is stopped; joining again.", self._node,
            )  # fmt: skip
            return
        logger.error(
            "The lease of %s lapsed and its tasks were given to others (it was stopped or cut off for more than %g s). "
            "What runs here is stopped; joining again.", self._node, self.lease,
        )  # fmt: skip

    def lost(self) -> None:
        """Renew now: a claim was refused because the owner is not in the table."""
        self._early = self._early or self.held()
        self._until = 0.0
        self._renew_now.set()

    def _ask(self) -> bool:
        return self._broker.renew(self.owner, self.queues, lease=self.lease)

    async def leave(self) -> None:
        """Leave the tables, giving back what is still claimed."""
        await self._in_thread(self._leave)

    def _leave(self) -> None:
        self._broker.leave(self.owner, self.queues)

    async def _in_thread(self, function: Callable[..., bool | None], *args: str) -> bool | None:
        return await self.link.call(self._io, "renew the lease", function, *args)
