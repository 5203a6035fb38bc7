"""What a worker knows of revoked tasks: a copy of the broker's list, which is brought up to date before a claim is used."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from umbel.broker import Broker, Delivery, Revocation, Revocations
from umbel.exceptions import OperationalError
from umbel.execution.link import Link

__all__ = ["RevokedTasks"]

EVERY = 1.0  # seconds between looks, for the sake of tasks that run
PRUNE_EVERY = 60.0  # seconds


class RevokedTasks:
    """Ids that must not start, until they are forgotten. `in` answers whether one is known.

    Invariant: what was claimed is admitted only after all that its mark tells of was learned, so a message claimed after
    `Broker.revoke` returned never starts.
    """

    def __init__(self, broker: Broker, clock: Callable[[], float] = time.time) -> None:
        self._broker, self._clock = broker, clock
        self._until: dict[str, float] = {}
        self._mark = 0
        self.on_news: Callable[[Sequence[Revocation]], None] = lambda entries: None  # noqa: ARG005

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._until

    def __len__(self) -> int:
        return len(self._until)

    def news(self, deliveries: Sequence[Delivery]) -> Revocations | None:
        """Ask the broker, in the caller's thread, for what *deliveries* tell of and is not known here.

        Raises:
            BrokerUnavailable: the deliveries must not be used.
        """
        if not deliveries or deliveries[-1].revocations == self._mark:
            return None
        return self._broker.revoked_since(self._mark)

    def learn(self, news: Revocations | None) -> None:
        """Take *news* in, on the worker's loop, and tell of it; None: there is none."""
        if news is None:
            return
        self._mark = news.mark
        fresh = [entry for entry in news.entries if self._until.get(entry.id) != entry.expires or entry.signal]
        self._until.update((entry.id, entry.expires) for entry in news.entries)
        if fresh:
            self.on_news(fresh)

    def prune(self) -> None:
        """Forget what the broker has forgotten."""
        now = self._clock()
        self._until = {task_id: until for task_id, until in self._until.items() if until > now}

    async def watch(self, io: Executor, link: Link) -> None:
        """Look for news once a second, for ever: what runs may be among them."""
        pruned = time.monotonic()
        while True:
            with contextlib.suppress(OperationalError):
                self.learn(await link.call(io, "look for revoked tasks", self._broker.revoked_since, self._mark))
            if time.monotonic() - pruned > PRUNE_EVERY:
                self.prune()
                pruned = time.monotonic()
            await asyncio.sleep(EVERY)
