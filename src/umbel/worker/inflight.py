"""What the worker holds: requests that wait for a slot, and those that were sent to one.

How much is claimed adapts to how long tasks run. A task whose run time is known to be short travels in packets, as much
as fits into the next 50 ms; any other goes by itself, to a slot that has nothing to do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from umbel.execution.outcome import Job, Outcome
from umbel.execution.verdict import Request
from umbel.pools.base import Pool, Slot

__all__ = ["Inflight", "Packet"]

HORIZON = 0.05  # seconds of work that a slot may hold
SHORT = 0.01  # seconds: what runs longer travels alone
PACKET_JOBS, PACKET_SECONDS = 64, 0.005
MOST = 500  # messages in one claim
LONG = 1e9
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
    """Requests by their tag. Invariant: a request is in exactly one of `waiting` and the jobs of one slot."""

    def __init__(self, pool: Pool, *, cap: int | None) -> None:
        self._pool = pool
        self._cap = cap  # messages per slot that the user allows; None: as the run times say
        self._next_tag = 1
        self._measures: dict[str, Measure] = {}
        self._overall: Measure | None = None
        self._load: dict[Slot, float] = dict.fromkeys(pool.slots, 0.0)
        self.waiting: deque[tuple[int, Request, float]] = deque()
        self.sent: dict[int, tuple[Request, Slot]] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self.sent)

    def room(self) -> int:
        """Return how many messages could start within the horizon. Less than a quarter of it is not worth a claim."""
        slots = [slot for slot in self._pool.slots if slot.pid and not slot.stalled]
        free = sum(max(0, slot.capacity - len(slot.jobs)) for slot in slots)
        if self._cap is not None:
            return max(0, min(MOST, self._cap * sum(s.capacity for s in self._pool.slots) - len(self)))
        if self._overall is None or self._overall.mean >= SHORT or (slots and slots[0].capacity > 1):
            return max(0, min(MOST, free - len(self.waiting)))
        seconds = sum(max(0.0, HORIZON - self._load[slot]) for slot in slots)
        whole = HORIZON * len(slots)
        if not free and seconds < whole / 4:
            return 0
        return max(0, min(MOST, max(free, int(seconds / max(self._overall.mean, QUICKEST))) - len(self.waiting)))

    def add(self, requests: Iterable[Request]) -> None:
        """Let *requests* wait for a slot."""
        now = time.monotonic()
        for request in requests:
            self.waiting.append((self._next_tag, request, now))
            self._next_tag += 1

    def expected(self, request: Request) -> float:
        """Return how long *request* is expected to run, LONG if it is not known to be short."""
        measure = self._measures.get(request.task.name)
        return LONG if measure is None or measure.peak >= SHORT or request.alone else max(measure.mean, QUICKEST)

    def assign(self) -> list[Packet]:
        """Give waiting requests to slots, as far as they can start soon, and return what to send."""
        packets: dict[Slot, list[tuple[int, Request]]] = {}
        left: deque[tuple[int, Request, float]] = deque()
        full = False
        for tag, request, since in self.waiting:
            expected = self.expected(request)
            slot = None if full else self._slot(expected, request)
            if slot is None:
                left.append((tag, request, since))
                full = full or expected < LONG  # what is longer may still find no slot, but a short one finds none either
                continue
            if not slot.jobs:
                slot.heard = time.monotonic()
            slot.jobs[tag] = expected
            self._load[slot] += expected
            self.sent[tag] = (request, slot)
            packets.setdefault(slot, []).append((tag, request))
        self.waiting = left
        return [packet for slot, requests in packets.items() for packet in self._cut(slot, requests)]

    def _slot(self, expected: float, request: Request) -> Slot | None:
        """Return the slot that has the least to do, if *expected* seconds more may be given to it."""
        counted = request.delivery.attempts > 0
        best, least = None, HORIZON
        for slot in self._pool.slots:
            if not slot.pid or slot.stalled or (counted and slot.capacity > 1 and self._has_counted(slot)):
                continue
            if len(slot.jobs) < slot.capacity and (slot.capacity > 1 or not slot.jobs):
                return slot
            load = self._load[slot]
            if slot.capacity == 1 and load < least:
                best, least = slot, load
        return best if expected < LONG else None

    def _has_counted(self, slot: Slot) -> bool:
        """Answer whether a task runs there that has died before: its next death must not be counted for another such task."""
        return any(self.sent[tag][0].delivery.attempts for tag in slot.jobs)

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

    def finished(self, slot: Slot, outcome: Outcome) -> Request | None:
        """Take a request out, and learn from its run time. None: it is not ours any more."""
        found = self.sent.pop(outcome.tag, None)
        if found is None:
            return None
        self._release(slot, outcome.tag)
        slot.heard, slot.stalled = time.monotonic(), False
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

    def _release(self, slot: Slot, tag: int) -> None:
        expected = slot.jobs.pop(tag, 0.0)
        self._load[slot] = max(0.0, self._load[slot] - expected) if slot.jobs else 0.0

    def back(self, tags: Iterable[int]) -> None:
        """Let requests that were sent, but not begun, wait again, before all others."""
        now = time.monotonic()
        for tag in sorted(tags, reverse=True):
            found = self.sent.pop(tag, None)
            if found is not None:
                self._release(found[1], tag)
                self.waiting.appendleft((tag, found[0], now))

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
        """Take out the requests that have waited longer than *seconds*: another worker may have a free slot."""
        limit = time.monotonic() - seconds
        old = [request for _, request, since in self.waiting if since < limit]
        self.waiting = deque(entry for entry in self.waiting if entry[2] >= limit)
        return old

    def clear(self) -> list[Request]:
        """Forget everything and return what waited."""
        waited = [request for _, request, _ in self.waiting]
        self.waiting.clear()
        self.sent.clear()
        for slot in self._pool.slots:
            slot.jobs.clear()
            slot.stalled = False
            self._load[slot] = 0.0
        return waited
