"""The fetcher claims messages when there is room for them, and lets settlements ride on its claims."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from umbel.broker import Broker, Delivery, OwnerLost, Revocations, Settlement
from umbel.exceptions import BrokerUnavailable
from umbel.execution.settle import Settler
from umbel.worker.lease import Lease
from umbel.worker.revoked import RevokedTasks

__all__ = ["Fetcher"]

logger = logging.getLogger("celery.worker.consumer")
WAIT = 0.5  # seconds that an idle worker waits in the broker before it claims again
PAUSE = 0.1  # seconds until it looks again whether there is room
FLOW = 8  # messages in one turn that promise another claim soon
MOST_UNSETTLED = 5000  # settlements that may wait; then no more is claimed until some are written


@dataclass(frozen=True, slots=True)
class Call:
    """One claim, kept until it returned: repeated with the same number it returns the same messages."""

    owner: str
    seq: int
    limit: int
    settle: list[Settlement]
    parked: Sequence[str]


class Fetcher:
    """Claims from all queues in turn."""

    def __init__(
        self, broker: Broker, io: Executor, settler: Settler, lease: Lease, revoked: RevokedTasks, *,
        room: Callable[[], int], deliver: Callable[[Sequence[Delivery]], None],
    ) -> None:  # fmt: skip
        self._broker, self._io, self._settler, self._lease, self._revoked = broker, io, settler, lease, revoked
        self._room, self._deliver = room, deliver
        self._queues = list(lease.queues)
        self._seqs: dict[tuple[str, str], int] = {}
        self._unanswered: dict[str, Call] = {}
        self._away = 0
        self.parked: dict[str, Sequence[str]] = {}  # queue -> tasks known here of which messages are parked there
        self.stopped = False
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Claim until told to stop."""
        try:
            await self._run()
        finally:
            self._give_up_unanswered()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopped:
            if not self._lease.held() or self._room() <= 0 or self._settler.pending > MOST_UNSETTLED:
                self._settler.claims_flow = False
                await self._pause(PAUSE)
                continue
            found = [await self._claim(queue) for queue in self._turn()]
            if None in found:
                self._away += 1
                await self._pause(min(5.0, 0.2 * 2 ** min(self._away, 5)))
            elif not any(found):
                self._settler.claims_flow = False
                try:
                    await loop.run_in_executor(self._io, self._broker.wait, self._lease.owner, self._queues, WAIT)
                except BrokerUnavailable:
                    await self._pause(PAUSE)
            else:
                # After a handful of messages the next claim may be long in coming: what they acknowledge is not kept waiting.
                self._settler.claims_flow = sum(filter(None, found)) >= FLOW

    async def _pause(self, seconds: float) -> None:
        self.wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), seconds)

    def _turn(self) -> list[str]:
        """Return the queues, each time beginning with the next one."""
        self._queues.append(self._queues.pop(0))
        return list(self._queues)

    async def _claim(self, queue: str) -> int | None:
        """Claim once from *queue*; return how many came, None if the broker is away."""
        call = self._unanswered.get(queue)
        if call is None or call.owner != self._lease.owner:
            room = self._room()
            if room <= 0:
                return 0
            seq = self._seqs.get((queue, self._lease.owner), 0) + 1
            call = Call(self._lease.owner, seq, room, self._settler.ride(queue), self.parked.get(queue, ()))
        self._unanswered[queue] = call
        try:
            deliveries, news = await asyncio.get_running_loop().run_in_executor(self._io, self._fetch, queue, call)
        except OwnerLost:
            self._unanswered.pop(queue, None)  # all may have been forgotten meanwhile
            if call.owner == self._lease.owner:
                self._lease.lost()
            return None
        except BrokerUnavailable as exc:
            if not self._away:
                logger.warning("consumer: Connection to broker lost. Trying to re-establish the connection... (%s)", exc)
            return None
        if self._away:
            logger.info("Connected to the broker again.")
            self._away = 0
        self._unanswered.pop(queue, None)
        self._revoked.learn(news)
        if call.owner != self._lease.owner:
            return 0  # claimed under an epoch that was lost meanwhile
        self._seqs = {key: seq for key, seq in self._seqs.items() if key[1] == call.owner}
        self._seqs[queue, call.owner] = call.seq
        if deliveries:
            self._deliver(deliveries)
        return len(deliveries)

    def _fetch(self, queue: str, call: Call) -> tuple[list[Delivery], Revocations | None]:
        """Claim, and learn what was revoked before. If that fails, the claim is repeated, and gives the same messages."""
        deliveries = self._broker.fetch(queue, call.limit, owner=call.owner, seq=call.seq, settle=call.settle, parked=call.parked)
        return deliveries, self._revoked.news(deliveries)

    def _give_up_unanswered(self) -> None:
        """Let the settler carry out what rode on a claim whose reply never came: settling twice changes nothing."""
        for call in self._unanswered.values():
            if call.owner == self._lease.owner:
                for settlement in call.settle:
                    self._settler.add(settlement)
        self._unanswered.clear()

    @property
    def owner(self) -> str:
        """Under which name it claims."""
        return self._lease.owner

    def forget(self) -> None:
        """Drop what was under way: the owner was lost."""
        self._unanswered.clear()
