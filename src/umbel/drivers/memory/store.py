"""The state that memory brokers and backends of one name share."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import NamedTuple
from urllib.parse import urlsplit
from weakref import WeakSet

from umbel.backend import Record
from umbel.broker import TALLIES_KEPT, Evidence, Item, Revocation
from umbel.bus import Heard
from umbel.drivers.acceptance import may_replace
from umbel.drivers.memory.joins import Flow, Lasting
from umbel.schedule_store import State
from umbel.watch import Inbox

__all__ = ["Held", "Message", "Owner", "Queue", "Result", "Schedule", "Store", "store_of"]


# Of all stores. A process that forks holds it meanwhile: no other thread has it then, who is not there in the child to give it back.
LOCK = threading.RLock()
os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


@dataclass(slots=True, eq=False)
class Message:
    """One message, wherever it is."""

    item: Item
    position: int  # order in its queue; kept by a claim, so that what is given back returns to its place
    attempts: int = 0
    suspect: bool = False
    started: bool = False
    seq: int = 0  # the fetch that claimed it; 0: recovered
    fence: int = 0
    reason: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    at: float = 0.0

    @property
    def order(self) -> tuple[int, int]:
        """Its place among the ready ones of its queue: smaller is sooner."""
        return self.item.priority, self.position


@dataclass(slots=True)
class Owner:
    """One entry in a queue's table of owners."""

    expires: float
    seq: int = 0
    reaped: bool = False  # its claims are being taken: it is fenced already
    claims: dict[str, Message] = field(default_factory=dict)


@dataclass(slots=True)
class Queue:
    """The five places of one queue, and its owners, who hold the claimed."""

    ready: list[tuple[tuple[int, int], Message]] = field(default_factory=list)  # a heap
    delayed: list[tuple[float, int, Message]] = field(default_factory=list)  # a heap
    owners: dict[str, Owner] = field(default_factory=dict)
    parked: dict[int, Message] = field(default_factory=dict)  # by keys that grow
    dead: dict[int, Message] = field(default_factory=dict)

    def put(self, message: Message) -> None:
        """Add *message* to what is ready, at its position."""
        heappush(self.ready, (message.order, message))

    def take(self, limit: int) -> list[Message]:
        """Remove up to *limit* ready messages, the first first."""
        return [heappop(self.ready)[1] for _ in range(min(limit, len(self.ready)))]

    def take_parked(self, tasks: Sequence[str], limit: int) -> list[Message]:
        """Remove up to *limit* parked messages of *tasks*, the oldest of each first."""
        keys = [key for task in dict.fromkeys(tasks) for key, message in self.parked.items() if message.reason == task]
        return [self.parked.pop(key) for key in keys[:limit]]

    def holder(self, name: str) -> Owner | None:
        """Return the entry of an owner that was not reaped."""
        owner = self.owners.get(name)
        return None if owner is None or owner.reaped else owner


@dataclass(frozen=True, slots=True)
class Result:
    """One stored result."""

    state: str
    meta: bytes
    fence: int
    expires: float | None  # seconds since the epoch


class Held(NamedTuple):
    """One lease."""

    holder: str
    fence: int
    expires: float  # by `Clock.boottime`


@dataclass(slots=True)
class Schedule:
    """One schedule."""

    mark: int = 0  # of the last change
    floor: int = 0  # who knows less may have missed a removal that is forgotten
    fence: int = 0  # of the last who wrote states
    rows: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)  # name -> mark, text (None: removed); the last changed is last
    states: dict[str, State] = field(default_factory=dict)


class Store:
    """All queues and results under the lock. Its methods expect the caller to hold `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition(LOCK)
        self.queues: defaultdict[str, Queue] = defaultdict(Queue)
        self.results: dict[str, Result] = {}
        self.flows: dict[str, Flow] = {}
        self.overs: dict[tuple[str, int], float] = {}  # joins that are over and not sent -> since when somebody answers for them
        self.bound: dict[str, Lasting[str]] = {}  # task id -> the copy of its message that has started
        self.groups: dict[str, Lasting[bytes]] = {}
        self.leases: dict[str, Held] = {}
        self.schedules: defaultdict[str, Schedule] = defaultdict(Schedule)
        self.once: dict[tuple[str, str], float] = {}  # (queue, key) -> until when it is remembered
        self.forgets: list[tuple[float, str, str]] = []  # the same as a heap: until, queue, key
        self.revoked: dict[str, tuple[int, Revocation]] = {}  # by id, with its mark; the last entered is last
        self.revocations = 0  # the mark of the last
        self.tallies: dict[int, Counter[tuple[str, str]]] = {}  # by minute: how often a queue had a tally
        self.watches: WeakSet[Inbox] = WeakSet()  # of those who wait for results
        self.listeners: list[tuple[tuple[str, ...], SimpleQueue[Heard]]] = []
        # One counter of fences for all queues: a task that is retried on another queue must not look older there.
        self.next_fence = partial(next, count(1))
        self.next_position = partial(next, count(1))

    def add(self, item: Item, now: float) -> None:
        """Publish *item*."""
        self.delay(self.queues[item.queue], Message(item, 0), item.due, now)

    def is_known(self, item: Item, now: float) -> bool:
        """Answer whether the key of *item* is remembered; if not, it is from now on."""
        while self.forgets and self.forgets[0][0] <= now:
            _, queue, key = heappop(self.forgets)
            del self.once[queue, key]
        if not item.once or (item.queue, item.once) in self.once:
            return bool(item.once)
        until = self.once[item.queue, item.once] = now + item.once_for
        heappush(self.forgets, (until, item.queue, item.once))
        return False

    def delay(self, queue: Queue, message: Message, due: float | None, now: float) -> None:
        """Put *message* at the tail of ready, or, if *due* is still to come, among the delayed."""
        message.position = self.next_position()
        if due is not None and due > now:
            heappush(queue.delayed, (due, message.position, message))
        else:
            queue.put(message)

    def promote(self, queue: Queue, now: float, limit: int) -> float | None:
        """Move up to *limit* due messages to the tail of ready; return when the next one is due."""
        while queue.delayed and queue.delayed[0][0] <= now and limit > 0:
            message = heappop(queue.delayed)[2]
            message.position = self.next_position()
            queue.put(message)
            limit -= 1
        return queue.delayed[0][0] if queue.delayed else None

    def count(self, queue: str, tally: str, now: float, times: int = 1) -> None:
        """Count *tally* in the minute of *now*, and forget old minutes at the begin of a new one."""
        minute = int(now) // 60 * 60
        if minute not in self.tallies:
            self.tallies = {begin: counts for begin, counts in self.tallies.items() if begin > now - TALLIES_KEPT}
            self.tallies[minute] = Counter()
        self.tallies[minute][queue, tally] += times

    def write(self, record: Record, now: float) -> bool:
        """Store one result, unless what is there forbids it."""
        old = self.result(record.id, now)
        if old is not None and not may_replace(record, old.state, old.fence):
            return False
        expires = None if record.expires is None else now + record.expires
        fence = max(record.fence, old.fence if old else 0)
        self.results[record.id] = Result(record.state, record.meta, fence, expires)
        for watch in list(self.watches):
            watch.put(record.id, record.meta)
        return True

    def result(self, id: str, now: float) -> Result | None:
        """Return the result of *id* if it has not expired."""
        found = self.results.get(id)
        if found is not None and found.expires is not None and found.expires <= now:
            del self.results[id]
            return None
        return found


STORES: defaultdict[str, Store] = defaultdict(Store)


def store_of(url: str) -> Store:
    """Return the store that *url* names: `memory://name`, or the nameless one."""
    return STORES[urlsplit(url).netloc]
