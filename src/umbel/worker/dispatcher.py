"""The dispatcher stands between the broker and the pool: it admits deliveries, sends them, and settles what comes back."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from umbel import signals, states
from umbel.broker import Broker, Delivery, Evidence, Item, Revocation, Settlement, Verb
from umbel.exceptions import OperationalError
from umbel.execution.outcome import Action, Outcome
from umbel.execution.report import Reporter, named
from umbel.execution.settle import Settler
from umbel.execution.verdict import Postponed, Refused, Request, Void, admit, void
from umbel.pools.base import Death, Pool, Slot, ended
from umbel.task import Task
from umbel.wire.message import Glance
from umbel.wire.saferepr import one_line
from umbel.wire.size import DEFAULT_LIMIT
from umbel.worker.copies import Copies, is_copy
from umbel.worker.counting import Counting
from umbel.worker.endings import Endings
from umbel.worker.inflight import MOST, Inflight, Packet
from umbel.worker.limits import TimeLimits
from umbel.worker.rate_limits import RateLimits
from umbel.worker.terminate import Terminations

__all__ = ["Dispatcher"]

received = logging.getLogger("celery.worker.strategy")
consumer = logging.getLogger("celery.worker.consumer")
pool_log = logging.getLogger("celery.pool")
logger = logging.getLogger("celery.worker")

NONE = Evidence()  # of what is not put away, as most
STUCK_AFTER = 0.1  # seconds that a claimed message may wait here for a slot
LOOK_EVERY = 0.05
MOST_SHOWN = 20  # ids in one line of the log


class Dispatcher:
    """Runs on the worker's loop; everything that waits for a server is done in threads."""

    def __init__(
        self, broker: Broker, pool: Pool, settler: Settler, io: Executor, reporter: Reporter, *,
        tasks: Mapping[str, Task[..., Any]], most_deliveries: int, prefetch: int | None, rates: RateLimits,
        revoked: Container[str] = (), largest: int = DEFAULT_LIMIT, clock: Callable[[], float] = time.time, counters: bool = True,
    ) -> None:  # fmt: skip
        self._broker, self._pool, self._settler, self._io, self._reporter = broker, pool, settler, io, reporter
        self._tasks, self._revoked, self._largest, self._clock = tasks, revoked, largest, clock
        self._counting = Counting(on=counters)
        self._endings = Endings(settler, reporter, self._counting, tasks=tasks, most=most_deliveries, largest=largest, clock=clock)
        self.recovered = self._endings.recovered
        # An engine that gives back what a dead node had claimed does not ask whether it has died too often.
        self._most_returned = math.inf if broker.features.leases else most_deliveries
        self._inflight = Inflight(pool, cap=prefetch, most=most_deliveries)
        self._limits, self._terminations = TimeLimits(pool, self._inflight.sent), Terminations(pool, self._inflight.sent)
        self._rates = rates
        self._put_off = 0  # messages of the last claim that must wait longer for their rate limits
        self._timer: asyncio.TimerHandle | None = None
        self._busy = asyncio.Event()
        self._preparing: dict[asyncio.Task[None], Packet] = {}
        self.on_room: Callable[[], None] = lambda: None
        self.copies: Copies | None = None

    # Deliveries come in.

    def room(self, coming: int = 0) -> int:
        """Return how many more to claim than those *coming*: what can start soon, and more while rate limits keep what is in front."""
        room = self._inflight.room(coming + (len(self.copies) if self.copies is not None else 0))
        return min(MOST, room + 2 * self._put_off) if room else 0

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Admit what was claimed and send what can start."""
        now = self._clock()
        requests: list[Request] = []
        copies: list[Request] = []
        self._put_off = 0
        for delivery in deliveries:
            if delivery.attempts >= self._most_returned:
                self.recovered(delivery)
                continue
            match admit(delivery, self._tasks, now, self._revoked, limit=self._largest):
                case Request(in_flow=None, glance=Glance(copy=None)) as request:
                    self._take_in(request, requests)
                case (Request() as request) | Void(Request() as request, _) if is_copy(request):
                    copies.append(request)
                case Request() as request:
                    self._take_in(request, requests)
                case Refused() as refused:
                    self._refuse(refused)
                case Void() as discarded:
                    self._endings.discard(discarded.request, discarded.why)
                case Postponed() as postponed:
                    self._postpone(postponed)
        if copies and self.copies is not None:
            self.copies.add(copies)
        self._let_in(requests)

    def _let_in(self, requests: Sequence[Request]) -> None:
        self._say_received(requests)
        self._inflight.add(requests)
        self._busy.set()
        self._pump()

    def on_bound(self, bound: Sequence[Request], others: Sequence[Request]) -> None:
        """Let in those of the messages with copies that are the first of them to start; acknowledge *others*."""
        requests: list[Request] = []
        for request in bound:
            if why := void(request, self._clock(), self._revoked):
                self._endings.discard(request, why)
            else:
                self._take_in(request, requests)
        for request in others:
            self._endings.copy(request)
        self._let_in(requests)

    def _take_in(self, request: Request, requests: list[Request]) -> None:
        """Add *request* to *requests*, or let it wait for its rate limit, here or in the broker."""
        if not self._rates.covers(request):
            requests.append(request)
        elif (put_off := self._rates.admit(request, time.monotonic(), self._clock())) is None:
            self._say_received((request,))
        else:
            self._put_off += 1
            self._settler.add(put_off)

    def _say_received(self, requests: Sequence[Request]) -> None:
        if received.isEnabledFor(logging.INFO):
            for request in requests:
                received.info("Task %s[%s] received", request.glance.task, request.glance.id)
        if signals.task_received.receivers:
            for request in requests:
                signals.task_received.send(sender=self, request=request)

    def _refuse(self, refused: Refused) -> None:
        self._reporter.refused(refused)
        evidence = self._reporter.evidence("unknown" if refused.verb is Verb.PARK else "unreadable")
        settlement = Settlement(delivery=refused.delivery, verb=refused.verb, reason=refused.reason, evidence=evidence)
        self._endings.refused(refused, settlement)

    def _postpone(self, postponed: Postponed) -> None:
        delivery, glance = postponed.delivery, postponed.glance
        item = Item(raw=postponed.raw, queue=delivery.queue, id=glance.id, priority=glance.priority, due=postponed.due)
        self._settler.add(Settlement(delivery=delivery, verb=Verb.RETRY, replacement=item))

    # Requests go to slots.

    def _pump(self) -> None:
        self._start_limited()
        if not self._settler.may_write():  # past the lease's deadline these may run elsewhere, and even have ended there
            return
        for packet in self._inflight.assign():
            if any(request.alone or not (request.acked or request.task.acks_late) for _, request in packet.requests):
                task = asyncio.get_running_loop().create_task(self._prepare(packet))
                self._preparing[task] = packet
                task.add_done_callback(self._prepared)
            else:
                self._send(packet)

    def _start_limited(self) -> None:
        """Let go first to the free slots who has waited for a token, and come back when there is the next."""
        if not len(self._rates):
            return
        now = time.monotonic()
        if self._settler.may_write() and (turn := self._rates.take(now, self._inflight.free(), self._inflight.may_start)):
            self._inflight.add(turn, first=True)
            self._busy.set()
        if self._timer is not None:
            self._timer.cancel()
        if (at := self._rates.next_at()) is not None:
            self._timer = asyncio.get_running_loop().call_later(at - now if at > now else LOOK_EVERY, self._pump)

    async def _prepare(self, packet: Packet) -> None:
        """Write what must stand in the broker before these start: the mark of a suspect, or an early acknowledgement."""
        self._drop_void(packet)
        try:
            kept = await self._settler.link.call(self._io, "mark the start of tasks", self._write_before, packet)
        except OperationalError:
            await self._settler.link.pause(LOOK_EVERY)
            # The mark may stand there all the same: if this node dies before the next try, that counts an attempt without a start. To
            # take the mark back needs the same broker. It buries only what has lost all its other attempts before.
            self._send_forgotten(packet)
            self._inflight.back([tag for tag, _ in packet.requests])
            return
        self._send_forgotten(packet)
        kept &= self._inflight.sent.keys()
        for tag, _ in packet.requests:
            if tag not in kept:
                self._inflight.take(tag)
        self._send(Packet(packet.slot, [(tag, request) for tag, request in packet.requests if tag in kept]))

    def _send_forgotten(self, packet: Packet) -> None:
        """Send again what was acknowledged early of *packet*, if all was forgotten meanwhile: the claims were lost."""
        self._endings.send_again([request for tag, request in packet.requests if request.acked and tag not in self._inflight.sent])

    def _prepared(self, task: asyncio.Task[None]) -> None:
        """Forget a preparation that is over. One with an error is kept for `look_after`: it holds a slot."""
        if task.cancelled() or task.exception() is None:
            self._preparing.pop(task, None)

    def _write_before(self, packet: Packet) -> set[int]:
        kept = set()
        for tag, request in packet.requests:
            if not request.task.acks_late:
                held = request.acked = request.acked or self._acknowledge(request)
            else:
                held = not request.alone or self._broker.mark_started(request.delivery)
            if held:
                kept.add(tag)
        return kept

    def _acknowledge(self, request: Request) -> bool:
        """Acknowledge early. A claim that is gone is still ours if we took it away ourselves, and the reply was lost."""
        repeated, request.asked = request.asked, True
        tally = self._counting.began(request, self._clock())
        if self._broker.settle([Settlement(delivery=request.delivery, verb=Verb.ACK, tally=tally)])[0]:
            return True
        return repeated and self._settler.may_write()

    def _send(self, packet: Packet) -> None:
        self._drop_void(packet)
        if not packet.requests:
            return
        pid = packet.slot.pid  # of the child that gets them; it may be its last
        taken = self._pool.send(packet.slot, packet.jobs())
        self._back([tag for tag, _ in packet.requests[taken:]])
        for _, request in packet.requests[:taken]:
            record = self._reporter.started(request, pid)
            if record is not None:
                self._settler.store(record)

    def _drop_void(self, packet: Packet) -> None:
        """Take out of *packet* what has expired or was revoked while it waited here."""
        now = self._clock()
        found = [(tag, request, why) for tag, request in packet.requests if (why := void(request, now, self._revoked))]
        for tag, request, why in found:
            packet.requests.remove((tag, request))
            self._inflight.take(tag)
            self._endings.discard(request, why)

    def on_revoked(self, entries: Sequence[Revocation]) -> None:
        """Discard what has not begun of the tasks that were revoked just now, and end what runs, if that is wanted."""
        ids = {entry.id for entry in entries}
        shown = ", ".join(entry.id for entry in entries[:MOST_SHOWN])
        consumer.info("Tasks flagged as revoked: %s%s", one_line(shown), ", ..." if len(ids) > MOST_SHOWN else "")
        for slot in {slot for request, slot in self._inflight.sent.values() if request.glance.id in ids}:
            self._back([job.tag for job in self._pool.take_back(slot)])
        self._terminations.want({entry.id: entry.signal for entry in entries if entry.signal})
        self._pump()

    # Outcomes come back.

    def on_outcomes(self, slot: Slot, outcomes: list[Outcome]) -> None:
        """Settle what a slot has finished, and send more."""
        self._take_outcomes(slot, outcomes)
        self.on_ready()

    def _take_outcomes(self, slot: Slot, outcomes: Sequence[Outcome], *, heard: bool = True) -> None:
        now = self._clock()
        for outcome in outcomes:
            request = self._inflight.finished(slot, outcome, heard=heard)
            if request is None:
                continue
            if outcome.state == states.SUCCESS or not self._endings.was_terminated(request, says_so=outcome.state == states.REVOKED):
                self._settle(request, outcome, now)

    def _settle(self, request: Request, outcome: Outcome, now: float) -> None:
        delivery, glance = request.delivery, request.glance
        record = self._reporter.record(request, outcome.state, outcome.meta) if outcome.meta is not None else None
        item = None
        if outcome.action is Action.RETRY and outcome.replacement is not None:
            r = outcome.replacement
            item = Item(raw=r.raw, queue=r.queue, id=r.id, priority=r.priority, due=r.due)
        elif outcome.action is Action.REQUEUE:
            item = Item(raw=delivery.raw, queue=delivery.queue, id=glance.id, priority=glance.priority)
        if request.acked:
            if item is not None:
                self._settler.publish(item)
            self._endings.told(request, None, record, outcome)
            return
        verb = Verb.BURY if outcome.action is Action.BURY else Verb.ACK if item is None else Verb.RETRY
        evidence = self._reporter.buried(request, outcome) if verb is Verb.BURY else NONE
        tally = self._counting.ended(request, outcome, now)
        settlement = Settlement(delivery=delivery, verb=verb, replacement=item, reason=outcome.reason, evidence=evidence, tally=tally)
        self._endings.told(request, settlement, record, outcome)

    # Children die.

    def on_death(self, death: Death) -> None:
        """Deal with the jobs of a child that died: what had started is counted, what had not goes to another slot."""
        pool_log.error("Process %r pid:%d exited with '%s'", death.name, death.pid, ended(death.status))
        # Invariant: what is being prepared keeps its slot, or it would be sent twice. The pool has not seen it.
        started = death.started | (death.held - death.unread if death.vague else frozenset())
        if death.ended_by_us:  # what had begun begins again, but for what must not be repeated
            started = frozenset(tag for tag in started if (found := self._inflight.sent.get(tag)) and found[0].acked)
        blamed = self._inflight.newest(started)
        if blamed is None and len(started) == 1 and not death.vague:
            [blamed] = started
        for tag in started:
            if (request := self._inflight.take(tag)) is not None:
                self._endings.crashed(request, death, blamed=tag == blamed)
        self.on_returned(death.held - started)

    def on_returned(self, tags: Iterable[int]) -> None:
        """Let jobs that were not begun wait again."""
        self._back(tags)
        self.on_ready()

    def _back(self, tags: Iterable[int]) -> None:
        """Let what was sent and has not begun wait again. A suspect goes back to its queue, as the mark of its start stands there."""
        left = set(tags)
        marked = {tag for tag in left if (found := self._inflight.sent.get(tag)) and found[0].alone and not found[0].acked}
        self._endings.give_back([request for tag in marked if (request := self._inflight.take(tag)) is not None])
        self._inflight.back(left - marked)

    def on_ready(self) -> None:
        """Send what can start now, and claim more if there is room."""
        self._pump()
        if self.room() > 0:
            self.on_room()

    def on_ended(self, tag: int, traceback: str) -> None:
        """Settle a task that had to be ended at its hard limit. That is no crash: it costs no attempt."""
        request = self._inflight.take(tag)
        if request is not None and not self._endings.was_terminated(request):
            self._settle(request, self._reporter.timed_out(tag, request, traceback), self._clock())

    # Things that wait too long go back.

    async def look_after(self) -> None:
        """Take back what waits behind something slow, and give back what cannot start soon, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not len(self._inflight):
                self._busy.clear()
                await self._busy.wait()
                continue
            for task in self._preparing:
                if task.done():
                    task.result()  # raises: a fault of ours ends the worker, and does not take its slots one by one in silence
            self._limits.look()
            self._terminations.look()
            for slot in self._inflight.overdue():
                self._back([job.tag for job in self._pool.take_back(slot)])
                self._take_outcomes(slot, self._pool.overheard(slot), heard=False)
            self._pump()
            self._endings.give_back(self._inflight.stuck(STUCK_AFTER))
            if not self._inflight.free():  # else it waits only for a suspect that runs, and would be claimed again at once
                self._endings.give_back(self._rates.stuck(time.monotonic()))

    async def drain(self) -> None:
        """Give back what has not begun, wait for what has, and give back what was ended meanwhile."""
        self._endings.give_back([*self._rates.clear(), *(self.copies.clear() if self.copies is not None else ())])
        for slot in self._pool.slots:
            self._back([job.tag for job in self._pool.take_back(slot)])
        if self._preparing:
            await asyncio.wait(self._preparing)
        self._endings.give_back(self._inflight.take_waiting())
        if self.running:
            logger.info("The stop waits for %d task(s): %s.", len(self.running), named(self.running))
        await self._pool.finish()
        ran = self.running
        self._endings.failed([request for request in ran if request.acked], "The worker was told to stop and ended the task.")
        self._endings.give_back([request for request in ran if not request.acked])
        self._endings.give_back(self._inflight.clear())

    def end(self) -> None:
        """End what runs, for good: `drain` gives it back."""
        if ran := self.running:
            logger.warning("%d task(s) still ran. They are ended and given back; no attempt is lost: %s.", len(ran), named(ran))
        self._pool.end()

    @property
    def running(self) -> list[Request]:
        """The requests that are with the pool."""
        return [request for request, _ in self._inflight.sent.values()]

    @property
    def free(self) -> bool:
        """Whether a task could start now."""
        return self.room() > 0 or (not len(self._inflight) and any(slot.pid for slot in self._pool.slots))

    def forget(self) -> None:
        """Drop everything and end what runs: the claims were lost. What was acknowledged early is in no queue: nobody else has it."""
        prepared = {tag for packet in self._preparing.values() for tag, _ in packet.requests}  # `_prepare` looks after these
        ran = [request for tag, (request, _) in self._inflight.sent.items() if request.acked and tag not in prepared]
        waited = self._rates.clear() + self._inflight.clear()
        if self.copies is not None:
            self.copies.clear()
        self._pool.kill()
        self._endings.send_again([request for request in waited if request.acked])
        self._endings.failed(ran, "The worker lost its lease and ended the task.")
