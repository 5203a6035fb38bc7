"""What the worker holds: requests that wait for a slot, and those that were sent to one.

How much is claimed adapts to how long tasks run. A task whose run time is known to be short travels in packets, as much
as fits into the next 50 ms. Of those of 5 to 25 ms a slot holds the next one, so that it need not wait for it; any other goes by
itself, to a slot that has nothing to do.

What may have killed its process waits apart, and starts while no other such task has just started: when the process or the
node dies, mostly one is counted and no other. After half a second the next may start beside it, so that long ones do not
queue up. Invariant: whom the next death would bury runs while no other of them does, however long that takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from operator import itemgetter

from umbel.execution.outcome import Job, Outcome
from umbel.execution.verdict import Request
from umbel.pools.base import Pool, Slot

__all__ = ["Inflight", "Packet"]

HORIZON = 0.05  # seconds of work that a slot may hold
SHORT = 0.025  # seconds: what runs longer travels alone
COARSE = 0.005  # seconds: what runs longer waits for no more than one other, as another worker may have a free slot
WORTH = 0.25  # of what the slots may hold: with less room no claim is made
PACKET_JOBS, PACKET_SECONDS = 64, 0.005
MOST = 500  # messages in one claim
LONG = 1e9
APART = 0.5  # seconds of a suspect's run in which no other suspect starts: what kills its process mostly does so at once
QUICKEST = 2e-5  # seconds: no task is taken to be quicker


@dataclass(slots=True)
class Measure:
    """How long a task runs, in seconds; the peak fades slowly, so that one slow run is remembered for a while."""

    mean: float
    peak: float

    def add(self, runtime: float) -> None:
        """Take one run into account."""
        self.mean += 0.2 * (runtime - self.mean)
        self.peak = max(runtime, self.peak * 0.98)


@dataclass(slots=True)
class Packet:
    """Requests for one slot."""

    slot: Slot
    requests: list[tuple[int, Request]]

    def jobs(self) -> list[Job]:
        """Return what the slot gets."""
        return [
            Job(tag, (held := request.delivery).fence, held.raw, held.queue, held.suspect or held.attempts > 0)
            for tag, request in self.requests
        ]


class Inflight:
    """Requests that wait, by their place, and those that were sent, by their tag.

    Invariants: a request is in exactly one of `waiting`, `suspects` and the jobs of one slot. A tag is that of one sending, so
    what is left of an earlier one, a packet or an outcome, is nobody's.
    """

    def __init__(self, pool: Pool, *, cap: int | None, most: int) -> None:
        """*most* is `task_max_deliveries`."""
        self._pool, self._most = pool, most
        self._cap = cap  # messages per slot that the user allows; None: as the run times say
        self._places, self._tags = count(1), count(1)
        self._measures: dict[str, Measure] = {}
        self._overall: Measure | None = None
        self._load: dict[Slot, float] = dict.fromkeys(pool.slots, 0.0)
        self.waiting: deque[tuple[int, Request, float]] = deque()
        self.suspects: deque[tuple[int, Request, float]] = deque()
        self._began: dict[int, float] = {}  # when the suspects that run were sent
        self.sent: dict[int, tuple[Request, Slot]] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self.suspects) + len(self.sent)

    def room(self, coming: int = 0) -> int:
        """Return how many messages to claim: as many as could start within the horizon, and no more than the user allows.

        *coming* are claimed already, and not here yet.
        """
        if len(self.suspects) >= MOST:  # these do not count below, or a few of them would stop a worker that has free slots
            return 0
        most = MOST
        if self._cap is not None:
            most = min(MOST, self._cap * sum(slot.capacity for slot in self._pool.slots) - len(self.waiting) - len(self.sent) - coming)
        return max(0, min(most, self._soon() - len(self.waiting) - coming))

    def _soon(self) -> int:
        """Return how many more the slots may hold. Less than a quarter of that is not worth a claim."""
        slots = [slot for slot in self._pool.slots if slot.pid and not slot.stalled]
        free = self.free()
        if self._overall is None or self._overall.mean >= SHORT or (slots and slots[0].capacity > 1):
            return free
        if self._overall.mean >= COARSE:
            each, share = 2.0, sum(max(0, 2 - len(slot.jobs)) for slot in slots if self._load[slot] < HORIZON) / 2
        else:
            each = HORIZON / max(self._overall.mean, QUICKEST)
            share = sum(max(0.0, HORIZON - self._load[slot]) for slot in slots) / HORIZON
        return max(free, int(share * each)) if free or share >= len(slots) * WORTH else 0

    def free(self) -> int:
        """Return how many requests could start at once."""
        return sum(max(0, slot.capacity - len(slot.jobs)) for slot in self._pool.slots if slot.pid and not slot.stalled)

    def add(self, requests: Iterable[Request], *, first: bool = False) -> None:
        """Let *requests* wait for a slot, behind the others or before them."""
        now = time.monotonic()
        for request in requests:
            request.place = next(self._places)
            line, entry = self.suspects if request.alone else self.waiting, (request.place, request, now)
            if first:
                line.appendleft(entry)
            else:
                line.append(entry)

    def expected(self, request: Request) -> float:
        """Return how long *request* is expected to run, LONG if it is not known to be short."""
        measure = self._measures.get(request.task.name)
        return LONG if measure is None or measure.peak >= SHORT or request.alone else max(measure.mean, QUICKEST)

    def assign(self) -> list[Packet]:
        """Give waiting requests to slots, as far as they can start soon, and return what to send."""
        packets: dict[Slot, list[tuple[int, Request]]] = {}
        kept = self._assign_suspect(packets)
        left: deque[tuple[int, Request, float]] = deque()
        full = False
        for place, request, since in self.waiting:
            expected = self.expected(request)
            slot = None if full else self._slot(expected, kept)
            if slot is None:
                left.append((place, request, since))
                full = full or expected < LONG  # what is longer may still find no slot, but a short one finds none either
                continue
            self._put(packets, slot, request, expected)
        self.waiting = left
        return [packet for slot, requests in packets.items() for packet in self._cut(slot, requests)]

    def _assign_suspect(self, packets: dict[Slot, list[tuple[int, Request]]]) -> Slot | None:
        """Let the first suspect start if it may; return the slot that must get nothing more, so that it can soon."""
        if not self.suspects or self._held_up(self.suspects[0][1]):
            return None
        slot = self._slot(LONG, None)
        if slot is None:
            return min((s for s in self._pool.slots if s.pid and s.capacity == 1), key=self._load.__getitem__, default=None)
        _, request, _ = self.suspects.popleft()
        self._began[self._put(packets, slot, request, LONG)] = time.monotonic()
        return None

    def may_start(self, request: Request) -> bool:
        """Answer whether *request* could start at once in a free slot, and would not wait for suspects."""
        return not (request.alone and (self.suspects or self._held_up(request)))

    def _held_up(self, suspect: Request) -> bool:
        """Answer whether *suspect* must wait for one that runs.

        Most suspects did nothing, and long tasks that wait for one another would be late by minutes after the death of a node.
        """
        now, last = time.monotonic(), self._has_one_chance(suspect)
        return any(last or now - at < APART or self._has_one_chance(self.sent[tag][0]) for tag, at in self._began.items())

    def _has_one_chance(self, request: Request) -> bool:
        """Answer whether the next death that is counted buries *request*."""
        return request.delivery.attempts + 1 >= self._most

    def newest(self, tags: Iterable[int]) -> int | None:
        """Return which suspect of *tags* was sent last, if there is one: what kills its process mostly does so at once."""
        return max((tag for tag in tags if tag in self._began), key=self._began.__getitem__, default=None)

    def _put(self, packets: dict[Slot, list[tuple[int, Request]]], slot: Slot, request: Request, expected: float) -> int:
        tag = next(self._tags)
        if not slot.jobs:
            slot.heard = time.monotonic()
        slot.jobs[tag] = expected
        self._load[slot] += expected
        self.sent[tag] = (request, slot)
        packets.setdefault(slot, []).append((tag, request))
        return tag

    def _slot(self, expected: float, kept: Slot | None) -> Slot | None:
        """Return the slot that has the least to do, but not *kept*, if *expected* seconds more may be given to it."""
        best, least = None, HORIZON
        for slot in self._pool.slots:
            if not slot.pid or slot.stalled or slot is kept:
                continue
            if len(slot.jobs) < slot.capacity and (slot.capacity > 1 or not slot.jobs):
                return slot
            load = self._load[slot]
            if slot.capacity == 1 and load < least and (expected < COARSE or len(slot.jobs) < 2):  # noqa: PLR2004 - one runs, one waits
                best, least = slot, load
        return best if expected < LONG else None

    def _cut(self, slot: Slot, requests: list[tuple[int, Request]]) -> list[Packet]:
        """Cut what a slot gets into packets: what it has not begun to read can be taken back."""
        packets: list[Packet] = []
        seconds = 0.0
        for tag, request in requests:
            expected = slot.jobs[tag]
            if not packets or request.alone or len(packets[-1].requests) >= PACKET_JOBS or seconds + expected > PACKET_SECONDS:
                packets.append(Packet(slot, []))
                seconds = 0.0
            packets[-1].requests.append((tag, request))
            seconds += expected
        return packets

    def finished(self, slot: Slot, outcome: Outcome, *, heard: bool = True) -> Request | None:
        """Take a request out, and learn from its run time. None: it is not ours any more. *heard*: the slot has said so."""
        found = self.sent.pop(outcome.tag, None)
        if found is None:
            return None
        self._release(slot, outcome.tag, heard=heard)
        request = found[0]
        measure = self._measures.get(request.task.name)
        if measure is None:
            self._measures[request.task.name] = Measure(outcome.runtime, outcome.runtime)
        else:
            measure.add(outcome.runtime)
        if self._overall is None:
            self._overall = Measure(outcome.runtime, outcome.runtime)
        else:
            self._overall.add(outcome.runtime)
        return request

    def _release(self, slot: Slot, tag: int, *, heard: bool = False) -> None:
        """Take *tag* from *slot*. The only place that ends a stall: when the slot was *heard*, or nothing is left in it."""
        self._began.pop(tag, None)
        expected = slot.jobs.pop(tag, 0.0)
        self._load[slot] = max(0.0, self._load[slot] - expected) if slot.jobs else 0.0
        if heard or not slot.jobs:
            slot.heard, slot.stalled = time.monotonic(), False

    def back(self, tags: Iterable[int]) -> None:
        """Let requests that were sent, but not begun, wait again, before all others."""
        now = time.monotonic()
        for tag in sorted(tags, reverse=True):
            found = self.sent.pop(tag, None)
            if found is not None:
                self._release(found[1], tag)
                (self.suspects if found[0].alone else self.waiting).appendleft((found[0].place, found[0], now))

    def take(self, tag: int) -> Request | None:
        """Take a request out without learning anything."""
        found = self.sent.pop(tag, None)
        if found is None:
            return None
        self._release(found[1], tag)
        return found[0]

    def overdue(self) -> list[Slot]:
        """Return the slots that hold more than one job and have been silent for twice the horizon; they count as stalled."""
        limit = time.monotonic() - 2 * HORIZON
        found = [s for s in self._pool.slots if s.capacity == 1 and len(s.jobs) > 1 and s.heard < limit and not s.stalled]
        for slot in found:
            slot.stalled = True
        return found

    def stuck(self, seconds: float) -> list[Request]:
        """Take out the requests that have waited longer than *seconds*: another worker may have a free slot.

        A suspect that waits for another one is kept: given back, it would be claimed again as soon as a slot is free.
        """
        limit = time.monotonic() - seconds
        old = [entry for entry in self.waiting if entry[2] < limit]
        self.waiting = deque(entry for entry in self.waiting if entry[2] >= limit)
        if self.suspects and not self._held_up(self.suspects[0][1]) and not self.free():
            old += [entry for entry in self.suspects if entry[2] < limit]
            self.suspects = deque(entry for entry in self.suspects if entry[2] >= limit)
        return [request for _, request, _ in sorted(old, key=itemgetter(0))]

    def take_waiting(self) -> list[Request]:
        """Take out all requests that were not sent, in their order."""
        waited = sorted([*self.suspects, *self.waiting], key=itemgetter(0))
        self.waiting.clear()
        self.suspects.clear()
        return [request for _, request, _ in waited]

    def clear(self) -> list[Request]:
        """Forget everything and return what waited."""
        waited = self.take_waiting()
        for tag in list(self.sent):
            self.take(tag)
        return waited
