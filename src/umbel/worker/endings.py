"""What becomes of requests of which no outcome tells: discarded, terminated, given back, or lost with their process."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel import states
from umbel.backend import Record
from umbel.broker import Delivery, Evidence, Item, Settlement, Verb
from umbel.exceptions import SerializationError, TaskRevokedError, WorkerLostError
from umbel.execution.embedded import EMBEDDED
from umbel.execution.followup import Ending
from umbel.execution.outcome import Action, Outcome
from umbel.execution.report import Reporter
from umbel.execution.settle import Settler
from umbel.execution.verdict import Refused, Request, admit, lost, place_in
from umbel.pools.base import Death
from umbel.tally import LOST
from umbel.task import Task
from umbel.wire.message import decode
from umbel.wire.message import glance as glance_at
from umbel.wire.saferepr import one_line
from umbel.worker.counting import Counting

__all__ = ["Endings"]

SOON = 60.0  # seconds until a retry, in which no record of a workflow expires
logger = logging.getLogger("celery.worker")


class Endings:
    """Settles them; runs on the worker's loop."""

    def __init__(
        self, settler: Settler, reporter: Reporter, counting: Counting, *,
        tasks: Mapping[str, Task[..., Any]], most: int, largest: int, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settler, self._reporter, self._counting = settler, reporter, counting
        self._tasks, self._most, self._largest, self._clock = tasks, most, largest, clock

    def close(
        self, request: Request, settlement: Settlement | None, record: Record | None, *,
        value: bytes | None = None, failure: bytes = b"", told: bool = True, embeds: bool = False,
    ) -> None:  # fmt: skip
        """Store *record* and settle what has ended; in a workflow, what follows it is carried out between both.

        *settlement* is None of what was acknowledged early. *failure* is the document of one that is not stored.
        """
        place = request.in_flow or (EMBEDDED if embeds else None)
        if place is not None:
            glance, failure = request.glance, failure or (record.meta if record is not None and value is None else b"")
            ending = Ending.at(
                place, id=glance.id, value=value, failure=failure, told=told, root=glance.root, raw=request.delivery.raw,
                priority=glance.priority,
            )  # fmt: skip
            self._settler.follow(settlement, record, ending)
        elif settlement is not None:
            self._settler.add(settlement, record)
        elif record is not None:
            self._settler.store(record)

    def told(self, request: Request, settlement: Settlement | None, record: Record | None, outcome: Outcome) -> None:
        """Write what *outcome* says. What runs again, or asked to be ignored, has not ended for its workflow."""
        if (
            (request.in_flow is None and not outcome.embeds)
            or outcome.action in {Action.RETRY, Action.REQUEUE}
            or outcome.state == states.IGNORED
        ):
            place, again = request.in_flow, outcome.replacement
            if place is not None and place.flow and again is not None and again.due and again.due > self._clock() + SOON:
                self._settler.follow(settlement, record, Ending.at(place, id=request.glance.id, until=again.due))
            elif settlement is not None:
                self._settler.add(settlement, record)
            elif record is not None:
                self._settler.store(record)
            return
        if outcome.value is None and record is None and not outcome.failure:
            record = self._reporter.broken(request, outcome.reason)
        self.close(request, settlement, record, value=outcome.value, failure=outcome.failure, embeds=outcome.embeds)

    def refused(self, refused: Refused, settlement: Settlement) -> None:
        """Settle what does not run here. One that nobody can read ends the step of its workflow, if it says which."""
        delivery = refused.delivery
        found = place_in(delivery.raw) if settlement.verb is Verb.BURY else None
        if found is None:
            self._settler.add(settlement)
            return
        place, task_id = found
        record = self._reporter.unreadable(delivery, task_id, refused.reason)
        self._settler.follow(settlement, record, Ending.at(place, id=task_id, failure=record.meta))

    def copy(self, request: Request) -> None:
        """Acknowledge the copy of a message of which another has started: after a failure, a step or a periodic run may be sent twice."""
        run = decode(request.delivery.raw).headers.get("umbel_slot") if request.glance.copy else None
        which = f" ({one_line(run)})" if run else ""
        logger.info("Another copy of %s[%s]%s has started: this one is acknowledged.", request.glance.task, request.glance.id, which)
        self._settler.add(Settlement(delivery=request.delivery, verb=Verb.ACK))

    def discard(self, request: Request, why: str, *, signum: int | None = None) -> None:
        """End a task as REVOKED: it has not begun, or was terminated by *signum*."""
        record = self._reporter.revoked(request, why, signum=signum)
        settlement = None
        if not request.acked:
            tally = self._counting.of(request.glance.task, states.REVOKED)
            settlement = Settlement(delivery=request.delivery, verb=Verb.ACK, tally=tally)
        embeds = request.in_flow is None and self._reporter.embeds(request)
        failure = b""
        if embeds or request.in_flow is not None:
            failure = self._reporter.untold(request, record, states.REVOKED, TaskRevokedError(why))
        self.close(request, settlement, record, failure=failure, told=False, embeds=embeds)

    def was_terminated(self, request: Request, *, says_so: bool = False) -> bool:
        """Settle *request*, which has ended, as REVOKED if it was told to end, or its process *says_so*."""
        if says_so and not request.terminated:
            logger.warning("%s[%s] has ended as if it had been told to.", request.glance.task, request.glance.id)
            request.terminated = signal.SIGTERM
        if request.terminated:
            self.discard(request, "terminated", signum=request.terminated)
        return bool(request.terminated)

    def crashed(self, request: Request, death: Death, *, blamed: bool) -> None:
        """Deal with a task that ran, or may have run, in a child that died. Of all who did, one at most is *blamed* and counted."""
        if self.was_terminated(request):
            return
        again = bool(request.task.reject_on_worker_lost)
        if again and not blamed and not request.acked:
            self.give_back([request], suspect=True, end=LOST)
            return
        exc = WorkerLostError(f"Worker exited prematurely: {death}")
        attempts = request.delivery.attempts + 1
        self._lost(request, exc, self._reporter.post_mortem(death, attempts), again=again)

    def failed(self, requests: Sequence[Request], why: str) -> None:
        """Say of tasks that were acknowledged early that the worker itself has ended them."""
        for request in requests:
            self._lost(request, WorkerLostError(why), self._reporter.evidence("crashed"), again=False)

    def recovered(self, delivery: Delivery) -> None:
        """Give back what a dead node had claimed; what has died too often is settled as failed and buried."""
        if delivery.attempts >= self._most:  # also of a suspect: who recovered it before us may have died, too
            request = admit(delivery, self._tasks, self._clock(), limit=self._largest)
            if isinstance(request, Request):
                exc = WorkerLostError("The worker was lost while the task ran.")
                self._lost(request, exc, self._reporter.evidence("crashed", attempts=delivery.attempts), again=True)
                return
        self._settler.add(
            Settlement(
                delivery=delivery, verb=Verb.GIVE_BACK, attempts=delivery.attempts, suspect=delivery.suspect,
                tally=self._counting.of(self._name_of(delivery), LOST),
            )
        )  # fmt: skip

    def _name_of(self, delivery: Delivery) -> str:
        """Return the name of its task, empty if it is not known here: what others send must not make ever more counters."""
        try:
            name = glance_at(delivery.raw, limit=self._largest).task
        except SerializationError:
            return ""
        return name if name in self._tasks else ""

    def _lost(self, request: Request, exc: WorkerLostError, evidence: Evidence, *, again: bool) -> None:
        """Decide about a task whose process died while it ran."""
        verdict = lost(attempts=evidence.attempts, most=self._most, acked=request.acked, again=again)
        record = self._reporter.lost(request, exc, verdict)
        embeds = verdict.failed and request.in_flow is None and self._reporter.embeds(request)
        failure = b""
        if embeds or (verdict.failed and request.in_flow is not None):
            failure = self._reporter.untold(request, record, states.FAILURE, exc)
        if request.acked:
            self.close(request, None, record, failure=failure, embeds=embeds)
            return
        reason = f"its process died {evidence.attempts} time(s), the last time: {exc}" if verdict.verb is Verb.BURY else ""
        tally = self._counting.of(request.glance.task, states.FAILURE if verdict.failed else LOST)
        settlement = Settlement(
            delivery=request.delivery, verb=verdict.verb, attempts=evidence.attempts, reason=reason, evidence=evidence, tally=tally
        )
        if verdict.failed:
            self.close(request, settlement, record, failure=failure, embeds=embeds)
        else:
            self._settler.add(settlement, record)

    def send_again(self, requests: Sequence[Request]) -> None:
        """Send again what was acknowledged early and has not begun; its claims were lost, but it is in no queue any more."""
        for request in requests:
            logger.warning("%s[%s] was acknowledged early and has not begun: it is sent again.", request.glance.task, request.glance.id)
        self.give_back(requests)

    def give_back(self, requests: Sequence[Request], *, suspect: bool = False, end: str = "") -> None:
        """Give *requests* back to the heads of their queues, counted as *end*; what was acknowledged early is sent again."""
        for request in requests:
            delivery, glance = request.delivery, request.glance
            if request.acked:
                self._settler.publish(Item(raw=delivery.raw, queue=delivery.queue, id=glance.id, priority=glance.priority))
                continue
            self._settler.add(
                Settlement(
                    delivery=delivery, verb=Verb.GIVE_BACK, attempts=delivery.attempts, suspect=suspect or delivery.suspect,
                    tally=self._counting.of(glance.task, end) if end else "",
                )
            )  # fmt: skip
