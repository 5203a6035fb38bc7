"""What the parent of a worker says of requests: the documents of states that no task writes itself, signals, log lines."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

from msgspec import structs

from umbel import signals, states
from umbel.app import Umbel
from umbel.backend import Record
from umbel.broker import Delivery, Evidence, Verb
from umbel.context import Context
from umbel.exceptions import DecodeError, InvalidTaskError, NotRegistered, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from umbel.execution.documents import Documents
from umbel.execution.embedded import embedded_in
from umbel.execution.failure import ErrorInfo
from umbel.execution.limits import acks_on
from umbel.execution.outcome import Action, Outcome
from umbel.execution.request import context_of
from umbel.execution.verdict import Lost, Refused, Request
from umbel.moments import seconds
from umbel.pools.base import Death, signal_name
from umbel.wire import message as wire
from umbel.wire.saferepr import one_line
from umbel.wire.size import limit_of

__all__ = ["Reporter", "named"]

consumer = logging.getLogger("celery.worker.consumer")
logger = logging.getLogger("celery.worker.request")

BURIED = "It is kept as a dead letter: `{show}` shows it."
MOST_NAMED = 20  # tasks in one line
LONGEST_TRACEBACK = 20_000  # characters of it that a letter keeps, the last ones


class Reporter:
    """Makes records for the result backend, by a worker's settings; *program* is how a shell calls umbel with this app."""

    def __init__(self, app: Umbel, conf: Mapping[str, Any], *, node: str, program: str = "umbel") -> None:
        self._app, self._node, self._program = app, node, program
        self._most = conf["task_max_deliveries"]
        self._documents, self._limit = Documents(app, conf), limit_of(conf["task_message_max_size"])
        self._expires = seconds(conf["result_expires"])
        failures = conf["result_failure_expires"]
        self._failure_expires = self._expires if failures is None else seconds(failures)
        self._accept = app.accepted_content()
        self._replies = app.replies is not None  # do results go to their callers, and are kept nowhere?

    def record(self, request: Request, state: str, meta: bytes) -> Record:
        """Return what to store of an outcome."""
        expires = self._failure_expires if state == states.FAILURE else self._expires
        reply_to = replies_to(request.delivery.raw) if self._replies else ""
        return Record(
            id=request.glance.id, state=state, meta=meta, fence=request.delivery.fence, expires=expires, reply_to=reply_to
        )  # fmt: skip

    def started(self, request: Request, pid: int) -> Record | None:
        """Return STARTED, if the task is to be tracked."""
        if not request.task.track_started or self._ignored(request):
            return None
        return self._of_state(request, states.STARTED, {"pid": pid, "hostname": self._node})

    def revoked(self, request: Request, why: str, *, signum: int | None = None) -> Record | None:
        """Tell of a task that was 'revoked', 'expired' or 'terminated' (*why*; by *signum*), and return REVOKED."""
        if why != "terminated":
            logger.info("Discarding revoked task: %s[%s]", request.glance.task, request.glance.id)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=request.task, request=self._context(request),
                terminated=why == "terminated", signum=signum, expired=why == "expired",
            )  # fmt: skip
        return None if self._ignored(request) else self._of_state(request, states.REVOKED, TaskRevokedError(why))

    def untold(self, request: Request, record: Record | None, state: str, exc: Exception) -> bytes:
        """Return the document of a failure that no *record* tells, for those who wait for this one in a workflow."""
        return b"" if record is not None else self._of_state(request, state, exc).meta

    def embeds(self, request: Request) -> bool:
        """Answer whether what follows *request* travels in its message. That reads all of it, so it is asked of what has failed."""
        return bool(embedded_in(request.delivery.raw, self._accept, self._limit)[0])

    def broken(self, request: Request, reason: str) -> Record:
        """Return FAILURE of a task in a workflow that never came to its end: it cannot be read, or something is wrong with the worker."""
        return self._of_state(request, states.FAILURE, InvalidTaskError(reason))

    def unreadable(self, delivery: Delivery, task_id: str, reason: str) -> Record:
        """Return FAILURE of a task in a workflow of whose message nothing but its place can be read."""
        context = Context(id=task_id, fence=delivery.fence)
        meta = self._documents.write_surely(context, states.FAILURE, InvalidTaskError(reason))
        return Record(id=task_id, state=states.FAILURE, meta=meta, fence=delivery.fence, expires=self._failure_expires)

    def evidence(self, kind: str, *, attempts: int = 0, traceback: str = "") -> Evidence:
        """Say why a message is put away, and by whom."""
        return Evidence(kind=kind, node=self._node, attempts=attempts, traceback=traceback[-LONGEST_TRACEBACK:])

    def _command(self, words: str, queue: str, task_id: str = "") -> str:
        """Return a command for a person to copy: ids and queues come from outside, and must not become more than words to a shell."""
        ids = ["--", task_id] if task_id.startswith("-") else [task_id] if task_id else []
        return f"{self._program} {words} {shlex.join(['-Q', queue, *ids])}"

    def post_mortem(self, death: Death, attempts: int) -> Evidence:
        """Say how the process died in which a task had started for the *attempts*-th time."""
        code = os.waitstatus_to_exitcode(death.status) if death.status >= 0 else death.status
        return structs.replace(
            self.evidence("crashed", attempts=attempts, traceback=death.traceback),
            signal=signal_name(-code) if code < 0 else "",
            exitcode=code if code >= 0 else None,
            peak_memory=death.peak_memory or None,
        )

    def lost(self, request: Request, exc: WorkerLostError, verdict: Lost) -> Record | None:
        """Tell of a task whose process died; if it does not run again, return FAILURE."""
        name, task_id = request.glance.task, request.glance.id
        attempt = f"this was attempt {request.delivery.attempts + 1} of {self._most}"
        what = "It does not run again." if verdict.failed else f"It runs again: {attempt}."
        if verdict.verb is Verb.BURY and not request.acked:
            show, again = (self._command(f"dead {verb}", request.delivery.queue, task_id) for verb in ("show", "retry"))
            what = f"{BURIED.format(show=show)} When the cause is mended, `{again}` sends it again."
        logger.error("Task handler raised error: %r. Task %s[%s]: %s", exc, name, task_id, what)
        if not verdict.failed:
            return None
        self._tell_failure(request, exc)
        if self._ignored(request) and not request.task.store_errors_even_if_ignored:
            return None
        return self._of_state(request, states.FAILURE, exc)

    def timed_out(self, tag: int, request: Request, traceback: str) -> Outcome:
        """Tell of a task that had to be ended at its hard limit."""
        task, limits = request.task, request.limits()
        exc = TimeLimitExceeded(limits.hard if limits else None)
        where = f"\nIt was here:\n{traceback}" if traceback else ""
        logger.error("Task handler raised error: %r", exc)
        logger.error("Hard time limit (%ss) exceeded for %s[%s]%s", *exc.args, task.name, request.glance.id, where)
        self._tell_failure(request, exc)
        meta, ran = None, (limits and limits.hard) or 0.0
        if not self._ignored(request) or task.store_errors_even_if_ignored:
            meta = self._of_state(request, states.FAILURE, exc, traceback=traceback or None).meta
        embeds = self.embeds(request)
        followed = embeds or request.in_flow is not None
        failure = self.untold(request, None, states.FAILURE, exc) if meta is None and followed else b""
        if not task.acks_late or acks_on(task, task.acks_on_timeout):
            return Outcome(tag, Action.ACK, states.FAILURE, ran, meta, failure=failure, embeds=embeds)
        reason = f"failed: {exc!r}"
        return Outcome(tag, Action.BURY, states.FAILURE, ran, meta, None, reason, "failed", traceback, failure=failure, embeds=embeds)

    def buried(self, request: Request, outcome: Outcome) -> Evidence:
        """Tell of a message that is kept as *outcome* says, and return the evidence."""
        queue, task_id = request.delivery.queue, request.glance.id
        show = BURIED.format(show=self._command("dead show", queue, task_id))
        logger.warning("Task %s[%s] from the queue %r (%s): %s", request.glance.task, task_id, queue, outcome.kind, show)
        return self.evidence(outcome.kind, traceback=outcome.traceback)

    def _tell_failure(self, request: Request, exc: Exception) -> None:
        if signals.task_failure.receivers:
            context = self._context(request)
            signals.task_failure.send(
                sender=request.task, task_id=request.glance.id, exception=exc, args=context.args, kwargs=context.kwargs,
                traceback=None, einfo=ErrorInfo.of(exc),
            )  # fmt: skip

    def refused(self, refused: Refused) -> None:
        """Say why a message does not run here."""
        seen, queue = refused.glance, refused.delivery.queue
        if refused.verb is Verb.PARK and seen is not None:
            exc = NotRegistered(seen.task)
            consumer.error(
                "Received unregistered task of type %r.\nIt is parked until a worker comes that knows it: `%s` shows it.\n"
                "Did you remember to import the module containing this task?\nTask %s on queue %r.",
                seen.task, self._command("parked list", queue), seen.id, queue,
            )  # fmt: skip
            if signals.task_unknown.receivers:
                signals.task_unknown.send(sender=self, message=refused.delivery.raw, exc=exc, name=seen.task, id=seen.id)
        elif refused.verb is Verb.BURY:
            consumer.critical(
                "Can't decode message body on queue %r: %s. %s",
                queue, refused.reason, BURIED.format(show=self._command("dead list", queue)),
            )  # fmt: skip
            if signals.task_rejected.receivers:
                signals.task_rejected.send(sender=self, message=refused.delivery.raw, exc=None)

    @staticmethod
    def _ignored(request: Request) -> bool:
        header = request.glance.ignore_result
        return bool(request.task.ignore_result if header is None else header)

    def _context(self, request: Request) -> Context:
        try:
            message = wire.decode(request.delivery.raw, limit=self._limit)
            context = context_of(message, *wire.payload(message, self._accept, limit=self._limit))
        except Exception:  # noqa: BLE001 - the state must be stored whatever the message holds
            context = Context(id=request.glance.id, task=request.glance.task, group=request.glance.group, args=[], kwargs={})
        context.hostname, context.fence = self._node, request.delivery.fence
        return context

    def _of_state(self, request: Request, state: str, result: Any, traceback: str | None = None) -> Record:
        meta = self._documents.write_surely(self._context(request), state, result, traceback)
        return self.record(request, state, meta)


def replies_to(raw: bytes) -> str:
    """Return where the sender of a message waits for its result; empty, if it does not say."""
    try:
        found = wire.unwrap(raw).properties.get("reply_to")
    except DecodeError:
        return ""
    return found if isinstance(found, str) else ""


def named(requests: Collection[Request]) -> str:
    """Name tasks in one line of the log: all of a few, the first of many."""
    shown = [f"{request.glance.task}[{request.glance.id}]" for request in islice(requests, MOST_NAMED)]
    more = len(requests) - len(shown)
    return one_line(", ".join(shown)) + (f" and {more} more" if more else "")
