# ruff: noqa: ARG002 - not every driver needs every argument
"""The broker in memory. Each method is one step under the store's lock."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal

import msgspec

from umbel.backend import ResultBackend
from umbel.broker import (
    TALLIES_KEPT,
    Broker,
    BrokerFeatures,
    DeadLetter,
    Delivery,
    Item,
    OwnerLost,
    QueueDepth,
    Recovered,
    Revocation,
    Revocations,
    Settlement,
    Tally,
    Verb,
)
from umbel.clock import Clock, SystemClock
from umbel.drivers.acceptance import refuse_odd_times, refuse_using
from umbel.drivers.memory.backend import MemoryBackend
from umbel.drivers.memory.store import Message, Owner, Queue, store_of

__all__ = ["MemoryBroker"]

SHORTEST_PAUSE = 0.01  # seconds between two looks at a clock that may stand still


class MemoryBroker(Broker):
    """Messages that live and die with this process. A child forked from it works on its own copy."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(atomic_settle=True, shared=False)

    def __init__(
        self, url: str = "memory://", *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None
    ) -> None:
        self.store = store_of(url)
        self._changed = self.store.changed
        self._clock = clock or SystemClock()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        refuse_using(using, "memory")
        refuse_odd_times(items)
        with self._changed:
            now = self._clock.now()
            self._add([item for item in items if not item.once or not self.store.is_known(item, now)])

    def _add(self, items: Sequence[Item]) -> None:
        now = self._clock.now()
        for item in items:
            self.store.add(item, now)
        self._changed.notify_all()

    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        with self._changed:
            expires = self._clock.monotonic() + lease
            for name in queues:
                entry = self.store.queues[name].owners.setdefault(owner, Owner(expires))
                if entry.reaped:
                    raise OwnerLost(owner)
                entry.expires = expires

    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        with self._changed:
            expires = self._clock.monotonic() + lease
            entries = [self.store.queues[name].holder(owner) for name in queues]
            for entry in entries:
                if entry is not None:
                    entry.expires = expires
            return None not in entries

    def leave(self, owner: str, queues: Sequence[str]) -> None:
        with self._changed:
            for name in queues:
                queue = self.store.queues[name]
                if queue.holder(owner) is not None:
                    for message in queue.owners.pop(owner).claims.values():
                        queue.put(message)
            self._changed.notify_all()

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        with self._changed:
            state = self.store.queues[queue]
            entry = state.holder(owner)
            if entry is None:
                raise OwnerLost(owner)
            if seq > entry.seq:
                entry.seq = seq
                for settlement in settle:
                    self._settle(settlement)
                self.store.promote(state, self._clock.now(), 1000)
                known = state.take_parked(parked, limit)
                self._claim(entry, known + state.take(limit - len(known)), seq=seq)
                if state.ready:  # promoted here, and more than this owner wanted
                    self._changed.notify_all()
            return self._deliveries(queue, owner, [m for m in entry.claims.values() if m.seq == seq])

    def _claim(self, entry: Owner, messages: Sequence[Message], *, seq: int) -> None:
        for message in messages:
            message.fence, message.seq, message.started = self.store.next_fence(), seq, False
            entry.claims[str(message.fence)] = message

    def _deliveries(self, queue: str, owner: str, messages: Sequence[Message]) -> list[Delivery]:
        return [
            Delivery(
                queue=queue, tag=str(m.fence), owner=owner, raw=m.item.raw, fence=m.fence, attempts=m.attempts, suspect=m.suspect,
                revocations=self.store.revocations,
            )
            for m in messages
        ]  # fmt: skip

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while (after := self._due_in(queues)) > 0 and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, max(after, SHORTEST_PAUSE)))

    def _due_in(self, queues: Sequence[str]) -> float:
        """Return in how many seconds there is something to claim, if nothing changes."""
        states = [self.store.queues[name] for name in queues]
        if any(state.ready for state in states):
            return 0.0
        return min((state.delayed[0][0] - self._clock.now() for state in states if state.delayed), default=math.inf)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        with self._changed:
            return [self._settle(settlement) for settlement in settlements]

    def _settle(self, settlement: Settlement) -> bool:
        delivery = settlement.delivery
        queue = self.store.queues[delivery.queue]
        entry = queue.holder(delivery.owner)
        message = entry.claims.pop(delivery.tag, None) if entry else None
        if message is None:
            return False
        now = self._clock.now()
        self._move(queue, message, settlement, now)
        for record in settlement.records:
            self.store.write(record, now)
        self._add(settlement.follow_ups)
        if settlement.tally:
            self.store.count(delivery.queue, settlement.tally, now)
        return True

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        with self._changed:
            first = max(since, self._clock.now() - TALLIES_KEPT)
            kept = {minute: counts for minute, counts in self.store.tallies.items() if minute >= first}
            found = [(minute, tally, n) for minute, counts in kept.items() for (name, tally), n in counts.items() if name == queue]
            return [Tally(*each) for each in sorted(found)]

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:
        with self._changed:
            for tally, times in tallies.items():
                self.store.count(queue, tally, self._clock.now(), times)

    def _move(self, queue: Queue, message: Message, settlement: Settlement, now: float) -> None:
        match settlement.verb:
            case Verb.ACK:
                pass
            case Verb.RETRY:
                assert settlement.replacement is not None, "a retry needs its replacement"
                self.store.add(settlement.replacement, now)
            case Verb.GIVE_BACK:
                message.attempts, message.suspect = settlement.attempts, settlement.suspect
                queue.put(message)
            case Verb.DELAY:
                message.item = msgspec.structs.replace(message.item, raw=settlement.raw or message.item.raw)
                self.store.delay(queue, message, settlement.due, now)
            case Verb.BURY | Verb.PARK:
                message.reason, message.evidence, message.at = settlement.reason, settlement.evidence, now
                place = queue.dead if settlement.verb is Verb.BURY else queue.parked
                place[self.store.next_position()] = message

    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        with self._changed:
            state = self.store.queues[queue]
            mine = state.holder(owner)
            if mine is None:
                raise OwnerLost(owner)
            now = self._clock.monotonic()
            lapsed = [name for name, entry in state.owners.items() if entry is not mine and (entry.reaped or entry.expires <= now)]
            if not lapsed:
                return Recovered(deliveries=(), more=False)
            lost = state.owners[lapsed[0]]
            lost.reaped = True
            taken = sorted(lost.claims.items(), key=lambda claim: claim[1].order)[:limit]
            for tag, message in taken:
                del lost.claims[tag]
                message.attempts += message.started
                message.suspect = not message.started
            self._claim(mine, [message for _, message in taken], seq=0)
            if not lost.claims:
                del state.owners[lapsed[0]]
            more = bool(lost.claims) or len(lapsed) > 1
            return Recovered(deliveries=self._deliveries(queue, owner, [message for _, message in taken]), more=more)

    def mark_started(self, delivery: Delivery) -> bool:
        with self._changed:
            entry = self.store.queues[delivery.queue].holder(delivery.owner)
            message = entry.claims.get(delivery.tag) if entry else None
            if message is not None:
                message.started = True
            return message is not None

    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        with self._changed:
            due = self.store.promote(self.store.queues[queue], self._clock.now(), limit)
            self._changed.notify_all()
            return due

    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        with self._changed:
            return {name: self._depth(self.store.queues[name]) for name in queues}

    @staticmethod
    def _depth(queue: Queue) -> QueueDepth:
        return QueueDepth(
            ready=len(queue.ready),
            delayed=len(queue.delayed),
            claimed=sum(len(owner.claims) for owner in queue.owners.values()),
            parked=len(queue.parked),
            dead=len(queue.dead),
        )

    def purge(self, queue: str) -> int:
        with self._changed:
            state = self.store.queues[queue]
            removed = len(state.ready) + len(state.delayed)
            state.ready.clear()
            state.delayed.clear()
            return removed

    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        with self._changed:
            found = reversed(self.store.queues[queue].dead.items())
            return page(queue, "dead", (each for each in found if not after or each[0] < int(after)), limit, id)

    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        with self._changed:
            found = self.store.queues[queue].parked.items()
            return page(queue, "parked", (each for each in found if not after or each[0] > int(after)), limit, id)

    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        with self._changed:
            there = {message.reason for message in self.store.queues[queue].parked.values()}
            return [task for task in tasks if task in there]

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        with self._changed:
            taken = self._take_away(letters)
            for queue, message in taken:
                message.position, message.attempts, message.suspect = self.store.next_position(), 0, False
                queue.put(message)
            self._changed.notify_all()
            return len(taken)

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        with self._changed:
            return len(self._take_away(letters))

    def _take_away(self, letters: Sequence[DeadLetter]) -> list[tuple[Queue, Message]]:
        """Remove those of *letters* that are still there."""
        taken = []
        for letter in letters:
            queue = self.store.queues[letter.queue]
            message = (queue.dead if letter.place == "dead" else queue.parked).pop(int(letter.key), None)
            if message is not None:
                taken.append((queue, message))
        return taken

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        with self._changed:
            now, revoked = self._clock.now(), self.store.revoked
            for expired in [task_id for task_id, (_, entry) in revoked.items() if entry.expires <= now]:
                del revoked[expired]
            for task_id in ids:
                self.store.revocations += 1
                _, old = revoked.pop(task_id, (0, Revocation(task_id, 0.0, "")))
                revoked[task_id] = self.store.revocations, Revocation(task_id, max(now + ttl, old.expires), signal or old.signal)

    def revoked_since(self, mark: int) -> Revocations:
        with self._changed:
            now, last = self._clock.now(), self.store.revocations
            since = mark if mark <= last else 0
            found = [entry for number, entry in self.store.revoked.values() if number > since and entry.expires > now]
            return Revocations(mark=last, entries=found)

    def settles_with(self, backend: ResultBackend) -> bool:
        return isinstance(backend, MemoryBackend) and backend.state is self.store


def page(queue: str, place: Literal["dead", "parked"], found: Iterable[tuple[int, Message]], limit: int, id: str) -> list[DeadLetter]:
    """Make letters of the first *limit* messages, of the task *id* if one is named."""
    return [
        DeadLetter(queue=queue, place=place, key=str(key), id=m.item.id, raw=m.item.raw, reason=m.reason, evidence=m.evidence, at=m.at)
        for key, m in islice((each for each in found if not id or each[1].item.id == id), limit)
    ]
