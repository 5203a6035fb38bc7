"""Settling: the one place where a delivery ends. What happened is stored first, then the message is acknowledged.

Invariant: a delivery is acknowledged last, so a crash anywhere above repeats the task and never loses it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from umbel.backend import Over, Record, ResultBackend
from umbel.broker import Broker, Evidence, Item, Settlement, Verb
from umbel.exceptions import OperationalError
from umbel.execution.follower import Follower, Halted
from umbel.execution.followup import Ending
from umbel.execution.link import RETRY_AFTER, Link
from umbel.wire.saferepr import one_line

__all__ = ["UNWRITABLE", "Settler", "is_answer"]

T = TypeVar("T")


class Followed(NamedTuple):
    """A task of a workflow that has ended: its result, what follows it, and what is settled after that."""

    settlement: Settlement | None
    record: Record | None
    ending: Ending


W = TypeVar("W", Settlement, tuple[Settlement | None, Record], Item, Followed)
logger = logging.getLogger("celery.worker")
BATCH = 500  # settlements, records or messages in one call
HEAVIEST = 4_000_000  # bytes of results and retries in one call: its reply has a deadline
MOST_REFUSED = 3  # settlements in a row: then it is the server that refuses, whatever it is asked
# What a driver raises about a value that it cannot write: a text with half a surrogate pair, a number beyond 64 bits.
UNWRITABLE = (ValueError, TypeError, OverflowError)
LINGER = 0.005  # seconds: while the worker is busy, an acknowledgement waits this long for a claim to ride on


class Settler:
    """Takes settlements from the loop and carries them out in batches, in one thread, or on the next claim."""

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend,
        io: Executor,
        *,
        may_write: Callable[[], bool],
        link: Link,
        follower: Follower | None = None,
    ) -> None:
        self._broker, self._backend, self._io = broker, backend, io
        self.may_write = may_write  # Invariant: past its lease's deadline a node writes nothing
        self._atomic = broker.settles_with(backend)
        self.link = link  # to the broker
        self.store_link = link if self._atomic else Link("result backend")
        self._unstored: deque[tuple[Settlement | None, Record]] = deque()
        self._items: deque[Item] = deque()
        self._follower = follower
        self._followed: deque[Followed] = deque()
        self._ready: dict[str, deque[Settlement]] = defaultdict(deque)
        self._alone: deque[Settlement] = deque()  # of a batch that was refused: one of them holds up no other
        self._refused = 0  # settlements that were refused by themselves, too, and are tried again later
        self._busy = False
        self._away = False  # could the last batch not be carried out?
        self._hurried = False
        self._maybe_done = False  # the reply to a settlement was lost: repeated, it finds its claim gone
        self._epoch = 0  # grows when all is forgotten: what is under way then must not come back
        self._wake = asyncio.Event()
        self.claims_flow = False  # the fetcher says whether claims follow one another now

    def add(self, settlement: Settlement, record: Record | None = None) -> None:
        """Settle, and store *record* before."""
        if record is None:
            self._ready[settlement.delivery.queue].append(settlement)
        elif self._atomic:
            self._ready[settlement.delivery.queue].append(replace(settlement, records=(record,)))
        else:
            self._unstored.append((settlement, record))
        self._wake.set()

    def store(self, record: Record) -> None:
        """Store *record*, which belongs to no settlement (STARTED)."""
        self._unstored.append((None, record))
        self._wake.set()

    def follow(self, settlement: Settlement | None, record: Record | None, ending: Ending) -> None:
        """Store *record*, carry out what follows *ending* in its workflow, then settle."""
        self._followed.append(Followed(settlement, record, ending))
        self._wake.set()

    async def release(self, overs: Sequence[Over]) -> None:
        """Carry out what follows joins that are over; raises what the follower does."""
        if self._follower is not None:
            await self.store_link.call(self._io, "release joins", self._follower.release, overs)

    def publish(self, item: Item) -> None:
        """Publish *item*: the retry of a message that was acknowledged early."""
        self._items.append(item)
        self._wake.set()

    def ride(self, queue: str) -> list[Settlement]:
        """Take settlements of *queue* that may go with its next claim; the caller now answers for them."""
        if not self.may_write():
            return []
        return take(self._ready[queue])

    def one_by_one(self, settlements: Sequence[Settlement]) -> None:
        """Settle each by itself: a call with all of them was refused, after it had perhaps carried out some."""
        self._alone.extend(settlements)
        self._wake.set()

    def drop(self) -> None:
        """Forget everything: the claims were lost, and nothing of them may be written."""
        self._epoch += 1
        self._refused = 0
        self._alone.clear()
        self._unstored.clear()
        self._items.clear()
        self._followed.clear()
        self._ready.clear()

    @property
    def pending(self) -> int:
        """How many settlements and records wait."""
        return self._due + self._refused + self._busy

    @property
    def unwritten(self) -> int:
        """How many tasks they belong to."""
        settlements = [*self._alone, *(each for queue in self._ready.values() for each in queue)]
        ids = {record.id for _, record in self._unstored} | {item.id for item in self._items}
        ids |= {each.ending.id for each in self._followed}
        ids |= {each.records[0].id if each.records else f"{each.delivery.queue} {each.delivery.tag}" for each in settlements}
        return len(ids) + self._refused

    @property
    def _due(self) -> int:
        return len(self._unstored) + len(self._items) + len(self._followed) + sum(map(len, self._ready.values())) + len(self._alone)

    @property
    def held_up(self) -> bool:
        """Whether a server is away that must take what happened."""
        return self.link.away_since is not None or self.store_link.away_since is not None

    async def run(self) -> None:
        """Carry out what was added, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.claims_flow and not self._unstored and not self._items and not self._followed:
                await asyncio.sleep(LINGER)
            while self._due:
                if not self.may_write() or not await self._flush():
                    await self.link.pause()

    async def drained(self, patience: float) -> bool:
        """Return True when nothing waits any more; False if a server was away for *patience* seconds meanwhile."""
        deadline = time.monotonic() + patience
        while self.pending:
            if not (self._away or self._refused) and self.may_write():
                deadline = time.monotonic() + patience
            elif self._hurried or time.monotonic() > deadline:
                return False
            self._wake.set()
            await asyncio.sleep(0.005)
        return True

    def hurry(self) -> None:
        """Let `drained` wait for no server that is away."""
        self._hurried = True

    async def _flush(self) -> bool:
        """Carry out one batch of each kind; False if a server was away, and nothing is lost.

        Each kind goes by itself, so that a result backend that is away holds up no acknowledgement without a result.
        """
        self._busy = True
        try:
            done = [await self._send_items(), await self._store_records(), await self._follow_up(), await self._settle_ready()]
        finally:
            self._busy = False
        self._away = not all(done)
        return not self._away

    async def _send_items(self) -> bool:
        items = take(self._items)
        if await self._carried_out("publish", self._broker.publish, items):
            return True
        self._items.extendleft(reversed(items))
        return False

    async def _store_records(self) -> bool:
        """Store results; what was to be settled after them is ready then."""
        batch, epoch = take(self._unstored), self._epoch
        done = await self._carried_out("store results", self._backend.store, [record for _, record in batch], self.store_link)
        if epoch != self._epoch:
            return done
        if not done:
            self._unstored.extendleft(reversed(batch))
            return False
        for settlement, _ in batch:
            if settlement is not None:
                self._ready[settlement.delivery.queue].append(settlement)
        return True

    async def _follow_up(self) -> bool:
        """Store results in workflows and carry out what follows; what was to be settled after that is ready then."""
        batch, epoch, left = take(self._followed), self._epoch, list[Followed]()
        refused: list[Followed] = []
        try:
            if batch:
                refused, left = await self.store_link.call(self._io, "carry out what follows in workflows", self._carry_out, batch)
        except (OperationalError, Halted):
            left = batch
        if epoch != self._epoch:
            return not left
        self._followed.extendleft(reversed(left))
        again = {id(each) for each in (*refused, *left)}
        for each in refused:
            self._refused += 1
            asyncio.get_running_loop().call_later(RETRY_AFTER, self._follow_again, epoch, each)
        for settlement in (each.settlement for each in batch if id(each) not in again):
            if settlement is not None:
                self._ready[settlement.delivery.queue].append(settlement)
        return not left

    def _follow_again(self, epoch: int, one: Followed) -> None:
        if epoch == self._epoch:
            self._refused -= 1
            self._followed.append(one)
            self._wake.set()

    def _carry_out(self, batch: Sequence[Followed]) -> tuple[list[Followed], list[Followed]]:
        """Do so in the thread; return what is refused by itself, too, and what was not tried. It may be repeated as a whole."""
        try:
            self._carry_out_at_once(batch)
        except OperationalError as exc:
            if not is_answer(exc):
                raise
            logger.warning("What follows in workflows is refused, and tried again, one by one: %s", one_line(exc))
        else:
            return [], []
        refused: list[Followed] = []
        for place, each in enumerate(batch):
            if len(refused) == MOST_REFUSED or not self.may_write():
                return refused, list(batch[place:])
            try:
                self._carry_out_at_once([each])
            except OperationalError as exc:
                if not is_answer(exc):
                    return refused, list(batch[place:])
                refused.append(each)
        return refused, []

    def _carry_out_at_once(self, batch: Sequence[Followed]) -> None:
        if records := [each.record for each in batch if each.record is not None]:
            self._backend.store(records)
        if self._follower is not None:
            self._follower.follow([each.ending for each in batch])

    async def _settle_ready(self) -> bool:
        if not self.may_write():  # the deadline may have passed while results were stored
            return False
        batch, epoch, done = [each for queue in self._ready.values() for each in take(queue)], self._epoch, True
        try:
            if batch:
                await self.link.call(self._io, "settle", self._settle, batch)
                self._maybe_done = False
        except (OperationalError, *UNWRITABLE) as exc:
            if epoch == self._epoch:
                done = self._put_back(batch, exc)
        return done and await self._settle_one_by_one()

    def _put_back(self, batch: Sequence[Settlement], exc: Exception) -> bool:
        """Keep *batch* for another try; return whether that may be at once."""
        if is_answer(exc):
            self.one_by_one(batch)
            return True
        self._maybe_done = self._maybe_done or getattr(exc, "maybe_sent", False)
        for settlement in reversed(batch):
            self._ready[settlement.delivery.queue].appendleft(settlement)
        return False

    async def _settle_one_by_one(self) -> bool:
        """Settle what was in a batch that was refused. What is refused again waits, and holds up nothing else."""
        refused = 0
        while self._alone:
            if not self.may_write() or refused == MOST_REFUSED:
                return False
            one, epoch = self._alone.popleft(), self._epoch
            try:
                await self.link.call(self._io, "settle one by one", self._broker.settle, [one])  # perhaps it is done
            except OperationalError as exc:
                if epoch != self._epoch:
                    return False
                if not is_answer(exc):
                    self._alone.appendleft(one)
                    return False
                refused += 1
                self._refused += 1
                asyncio.get_running_loop().call_later(RETRY_AFTER, self._try_again, epoch, one)
            except UNWRITABLE as exc:
                self._alone.append(unwritable(one, exc))
        return True

    def _try_again(self, epoch: int, one: Settlement) -> None:
        if epoch == self._epoch:
            self._refused -= 1
            self._alone.append(one)
            self._wake.set()

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        for settlement, done in zip(settlements, self._broker.settle(settlements), strict=True):
            if not done and not self._maybe_done:
                logger.warning("The claim of %s on %r was lost; it runs elsewhere.", settlement.delivery.tag, settlement.delivery.queue)

    async def _carried_out(
        self, kind: str, function: Callable[[Sequence[T]], object], batch: Sequence[T], link: Link | None = None
    ) -> bool:
        """Call *function* with *batch* in the thread; False if the server is away."""
        if not batch:
            return True
        try:
            await (link or self.link).call(self._io, kind, function, batch)
        except OperationalError as exc:
            self._maybe_done = self._maybe_done or getattr(exc, "maybe_sent", False)
            return False
        return True


def is_answer(exc: Exception) -> bool:
    """Answer whether *exc* is about what was to be written, and no sign of an outage."""
    return getattr(exc, "refused", not isinstance(exc, OperationalError))


def unwritable(settlement: Settlement, exc: Exception) -> Settlement:
    """Return what keeps a message of which the driver cannot write what was to become of it. That would end one worker after the other."""
    if settlement.verb is Verb.BURY:
        raise exc
    delivery = settlement.delivery
    logger.critical("The message %s of %r cannot be settled. It is kept as a dead letter.", delivery.tag, delivery.queue, exc_info=exc)
    reason = f"what was to become of it cannot be written: {type(exc).__name__}: {one_line(exc)}"
    return Settlement(delivery=delivery, verb=Verb.BURY, reason=reason, evidence=Evidence(kind="broken"))


def weight(what: Settlement | tuple[Settlement | None, Record] | Item | Followed) -> int:
    """Return about how many bytes *what* sends."""
    if isinstance(what, Followed):
        return len(what.ending.value or what.ending.failure) + (len(what.record.meta) if what.record else 0)
    if isinstance(what, tuple):
        return len(what[1].meta)
    if isinstance(what, Item):
        return len(what.raw)
    again = len(what.replacement.raw) if what.replacement is not None else 0
    return again + sum(len(record.meta) for record in what.records) if what.records else again


def take(queue: deque[W]) -> list[W]:
    """Take a batch from the left of *queue*: so many, and not too heavy."""
    batch: list[W] = []
    heavy = 0
    while queue and len(batch) < BATCH and heavy < HEAVIEST:
        heavy += weight(queue[0])
        batch.append(queue.popleft())
    return batch
