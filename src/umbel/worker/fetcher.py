"""The fetcher claims messages when there is room for them, and lets settlements ride on its claims."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from umbel.broker import Broker, Delivery, OwnerLost, Revocations, Settlement
from umbel.exceptions import BrokerUnavailable
from umbel.execution.link import RETRY_AFTER
from umbel.execution.settle import UNWRITABLE, Settler, is_answer
from umbel.worker.lease import Lease
from umbel.worker.revoked import RevokedTasks

__all__ = ["Fetcher"]

WAIT = 0.5  # seconds that an idle worker waits in the broker before it claims again
PAUSE = 0.1  # seconds until it looks again whether there is room
FLOW = 8  # messages in one turn that promise another claim soon
MOST_UNSETTLED = 5000  # settlements that may wait; then no more is claimed until some are written


Claimed = tuple[list[Delivery], Revocations | None] | None  # None: nothing was asked


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
        room: Callable[[int], int], deliver: Callable[[Sequence[Delivery]], None], wait: float = WAIT,
    ) -> None:  # fmt: skip
        self._broker, self._io, self._settler, self._lease, self._revoked = broker, io, settler, lease, revoked
        self._room, self._deliver, self._wait = room, deliver, wait
        self._queues = list(lease.queues)
        self._seqs: dict[tuple[str, str], int] = {}
        self._unanswered: dict[str, Call] = {}
        self._again: dict[str, float] = {}  # queue -> when to try again, if its last claim failed
        self.parked: dict[str, Sequence[str]] = {}  # queue -> tasks known here of which messages are parked there
        self._empty: list[str] = []  # queues that had nothing in the last turn, if none had
        self._came: list[Delivery] = []  # claimed, to be handed over while the next claim is under way
        self.stopped = False
        self.claimed = 0  # messages since the start
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Claim until told to stop."""
        try:
            await self._run()
        finally:
            self._give_up_unanswered()

    async def _run(self) -> None:
        while not self.stopped:
            full = self._room(len(self._came)) <= 0
            if full or not self._lease.held() or self._settler.pending > MOST_UNSETTLED:
                self._settler.claims_flow = full and self._lease.held()  # what makes room is settled by the claim that follows at once
                self._hand_over()
                await self._pause(PAUSE)
            elif not (queues := self._turn()):
                self._settler.claims_flow = False
                self._hand_over()
                await self._lease.link.pause()
                self._again.clear()
            else:
                found = sum([await self._claim(queue) for queue in queues])
                # After a handful of messages the next claim may be long in coming: what they acknowledge is not kept waiting.
                self._settler.claims_flow = found >= FLOW
                self._empty = [queue for queue in queues if queue not in self._again] if not found else []
                if found < FLOW:
                    self._hand_over()
        self._settler.claims_flow = False
        self._hand_over()

    def _hand_over(self) -> None:
        """Let what was claimed be run; what an owner had that was lost meanwhile is others'."""
        came, self._came = self._came, []
        if came and came[0].owner == self._lease.owner:
            self._deliver(came)

    async def _pause(self, seconds: float) -> None:
        self.wake.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self.wake.set)  # wait_for() would make a task each time
        try:
            await self.wake.wait()
        finally:
            timer.cancel()

    def _turn(self) -> list[str]:
        """Return the queues, each time beginning with the next one, without those whose last claim has just failed."""
        self._queues.append(self._queues.pop(0))
        now = time.monotonic()
        self._again = {queue: until for queue, until in self._again.items() if until > now}
        return [queue for queue in self._queues if queue not in self._again]

    async def _claim(self, queue: str) -> int:
        """Claim once from *queue*; return how many came."""
        call = self._unanswered.get(queue)
        if call is None or call.owner != self._lease.owner:
            room = self._room(len(self._came))
            if room <= 0:
                return 0
            seq = self._seqs.get((queue, self._lease.owner), 0) + 1
            settle = [] if self._empty else self._settler.ride(queue)  # what is settled does not wait for a message
            call = Call(self._lease.owner, seq, room, settle, self.parked.get(queue, ()))
        self._unanswered[queue] = call
        empty, self._empty = self._empty, []
        try:
            claimed = await self._asked(self._lease.link.call(self._io, f"claim from {queue!r}", self._fetch, queue, call, empty))
        except OwnerLost:
            self._unanswered.pop(queue, None)  # all may have been forgotten meanwhile
            if call.owner == self._lease.owner:
                self._lease.lost()
            return 0
        except (BrokerUnavailable, *UNWRITABLE) as exc:
            self._failed(queue, call, exc)
            return 0
        self._unanswered.pop(queue, None)
        if claimed is None:
            return 0
        deliveries, news = claimed
        self._revoked.learn(news)
        if call.owner != self._lease.owner:
            return 0  # claimed under an epoch that was lost meanwhile
        self._seqs = {key: seq for key, seq in self._seqs.items() if key[1] == call.owner}
        self._seqs[queue, call.owner] = call.seq
        if deliveries:
            self.claimed += len(deliveries)
            self._came += deliveries
        return len(deliveries)

    async def _asked(self, claim: Coroutine[Any, Any, Claimed]) -> Claimed:
        """Return what a claim brings; while it is under way, what the last one brought is handed over."""
        if not self._came:
            return await claim
        under_way = asyncio.ensure_future(claim)
        await asyncio.sleep(0)
        self._hand_over()
        return await under_way

    def _failed(self, queue: str, call: Call, exc: Exception) -> None:
        """Try again later; at once, if it was refused and settlements rode on it, which must not hold up its queue for ever."""
        if not (is_answer(exc) and call.settle):
            if not isinstance(exc, BrokerUnavailable):
                raise exc
            self._again[queue] = time.monotonic() + RETRY_AFTER
        elif self._unanswered.get(queue) is call:  # else all was forgotten meanwhile
            self._unanswered[queue] = replace(call, settle=[])
            self._settler.one_by_one(call.settle)

    def _fetch(self, queue: str, call: Call, empty: Sequence[str]) -> Claimed:
        """Claim, and learn what was revoked before. If that fails, the claim is repeated, and gives the same messages.

        If all queues were *empty*, wait in the broker until there may be something: here, as each change of threads makes a task late.
        None: nothing was claimed, as meanwhile nothing must be.
        """
        if empty:
            self._broker.wait(call.owner, empty, self._wait)
            if self.stopped or not self._lease.held():
                return None
        deliveries = self._broker.fetch(queue, call.limit, owner=call.owner, seq=call.seq, settle=call.settle, parked=call.parked)
        return deliveries, self._revoked.news(deliveries)

    def _give_up_unanswered(self) -> None:
        """Let the settler carry out what rode on a claim whose reply never came: settling twice changes nothing."""
        for call in self._unanswered.values():
            if call.owner == self._lease.owner:
                for settlement in call.settle:
                    self._settler.add(settlement)
        self._unanswered.clear()

    def forget(self) -> None:
        """Drop what was under way: the owner was lost."""
        self._unanswered.clear()
