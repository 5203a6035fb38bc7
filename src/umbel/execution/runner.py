"""The runner runs one message and says what happened. It holds the only broad `except` of the project."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from umbel import signals, states
from umbel.app import Umbel
from umbel.current import pop_frame, push_frame
from umbel.exceptions import ContentDisallowed, Ignore, Reject, Retry, TimeLimitExceeded
from umbel.execution.call import Call, own
from umbel.execution.documents import Documents
from umbel.execution.errbacks import arguments_of
from umbel.execution.failure import ErrorInfo
from umbel.execution.limits import GRACE, Guard, HardLimit, Limits, Terminated, acks_on, bounded, climb, limits_of
from umbel.execution.loop_thread import LoopThread
from umbel.execution.outcome import Action, Job, Outcome, Replacement
from umbel.execution.request import open_request
from umbel.forks import process
from umbel.logs import flush_redirected, task_in_log
from umbel.wire.saferepr import one_line, saferepr
from umbel.wire.size import limit_of

__all__ = ["TaskRunner"]

logger = logging.getLogger("celery.app.trace")
request_log = logging.getLogger("celery.worker.request")
LONGEST_REPR = 10_000  # characters of an exception in a line of the log


class TaskRunner:
    """Runs messages of one app, in any pool and in eager mode."""

    def __init__(self, app: Umbel, *, node: str, eager: bool = False) -> None:
        self._app, self._node, self._eager = app, node, eager
        self._loop = LoopThread()
        self.left_behind = False  # something goes on here after its hard limit: this process should end soon
        self.terminated: set[int] = set()  # tags that the parent has ended on the running loop
        conf = app.conf
        self._accept = app.accepted_content()
        self._documents, self._limit = Documents(app, conf), limit_of(conf.task_message_max_size)
        self._keeps = eager or (conf.result_backend or "disabled").partition(":")[0] != "disabled"  # is anybody to read a result?

    # In this thread

    def run(self, job: Job, guard: Guard | None = None) -> Outcome:
        """Run one message in this thread; a coroutine runs on this process's long-lived loop.

        Through *guard* its parent can interrupt it; a coroutine keeps to its limits by itself.
        """
        call = self._open(job)
        if isinstance(call, Outcome):
            return call
        try:
            value = self._start(call) if guard is None else self._start_guarded(call, guard)
            if inspect.iscoroutine(value):
                value = self._wait_for(call, value, guard)
            self._end_copy(call)
            outcome = self._succeeded(call, value)
        except BaseException as exc:  # noqa: BLE001 - whatever a task raises becomes an outcome
            self._end_copy(call)
            gone = guard is not None and guard.dismissed()
            outcome = call.outcome(Action.ACK, states.IGNORED) if gone else self._ended(call, exc)
        return self._close(call, outcome)

    def _wait_for(self, call: Call, coroutine: Coroutine[Any, Any, Any], guard: Guard | None) -> Any:
        """Wait for a coroutine on the loop of this process, until its parent terminates it."""
        if guard is None:
            return self._loop.wait_for(coroutine if self._eager else self._awaited(call, coroutine))
        try:
            return self._loop.wait_for(self._awaited(call, coroutine), partial(guard.waiting, call.tag))
        except asyncio.CancelledError:
            if guard.expired is not None:
                raise guard.expired from None
            raise

    # On the running loop

    async def arun(self, job: Job, executor: ThreadPoolExecutor) -> Outcome:
        """Run one message on this loop, or, if its task is no coroutine function, in a thread of *executor*."""
        call = self._open(job)
        if isinstance(call, Outcome):
            return call
        if not inspect.iscoroutinefunction(call.task.run):
            return await self._run_in(executor, job, call)
        try:
            value = await self._awaited(call, self._start(call))
            self._end_copy(call)
            outcome = self._succeeded(call, value)
        except BaseException as exc:  # noqa: BLE001 - whatever a task raises becomes an outcome
            self._end_copy(call)
            outcome = self._ended(call, Terminated() if job.tag in self.terminated else exc)
        finally:
            self.terminated.discard(job.tag)
        return self._close(call, outcome)

    async def _run_in(self, executor: ThreadPoolExecutor, job: Job, call: Call) -> Outcome:
        """Run a function in a thread, within its limits. One that does not end is left there, and its outcome is dropped."""
        self._unframe(call)
        limits, guard = self._limits(call), Guard()
        running = asyncio.get_running_loop().run_in_executor(executor, copy_context().run, self.run, job, guard)
        try:
            if limits is None or await climb(running, limits, partial(guard.interrupt, job.tag), partial(self._say_soft, call, limits)):
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            guard.interrupt(job.tag, Terminated)
            if (await asyncio.wait({running}, timeout=GRACE))[0]:
                return await running
        finally:
            terminated = job.tag in self.terminated
            self.terminated.discard(job.tag)
        self.left_behind = True
        guard.dismissed = lambda: True  # what its thread says later is old news
        return self._ended(call, Terminated() if terminated else HardLimit())

    # The steps

    def _limits(self, call: Call) -> Limits | None:
        return limits_of(call.request.timelimit, call.task)

    def _awaited(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Return what to await for *coroutine*: itself, if it has no limits."""
        limits = self._limits(call)
        if limits is None or not inspect.iscoroutine(coroutine):
            return coroutine
        return bounded(coroutine, limits, partial(self._say_soft, call, limits), partial(setattr, self, "left_behind", True))

    def _start_guarded(self, call: Call, guard: Guard) -> Any:
        try:
            guard.enter(call.tag)
            return self._start(call)
        finally:
            guard.leave()
            if guard.expired is not None:  # whatever the task made of it
                raise guard.expired

    @staticmethod
    def _say_soft(call: Call, limits: Limits) -> None:
        request_log.warning("Soft time limit (%ss) exceeded for %s[%s]", limits.soft, call.task.name, call.request.id)

    def _open(self, job: Job) -> Call | Outcome:
        """Make the call of a message. One that cannot be read or is not trusted never runs: it is kept as a dead letter."""
        began = time.perf_counter()
        try:
            task, request = open_request(self._app, job, node=self._node, accept=self._accept, eager=self._eager, limit=self._limit)
            args = [*arguments_of(request), *request.args] if request.umbel_errback else request.args
        except Exception as exc:  # noqa: BLE001 - whatever a message holds, it ends no child
            reason = f"{type(exc).__name__}: {one_line(exc)}"
            logger.error("Received invalid task message: %s", reason)  # noqa: TRY400 - the traceback is ours
            kind = "refused" if isinstance(exc, ContentDisallowed) else "unreadable"
            return Outcome(job.tag, Action.BURY, "", time.perf_counter() - began, reason=reason, kind=kind)
        call = Call(job.tag, task, request, args, request.kwargs, process.pid, began)
        call.frame = push_frame(task, request)
        task_in_log.set((request.shadow or task.name, request.id or ""))
        return call

    def _start(self, call: Call) -> Any:
        if signals.task_prerun.receivers:
            signals.task_prerun.send(sender=call.task, task_id=call.request.id, task=call.task, args=call.args, kwargs=call.kwargs)
        call.began = time.perf_counter()
        task = call.task
        kind: Any = type(task)
        has = own(kind)
        if has.before_start:
            task.before_start(call.request.id or "", call.args, call.kwargs)
        if has.call:
            call.request.update(entering=True)  # its __call__ runs this request, and makes none of its own
            return task(*call.args, **call.kwargs)
        return task.run(*call.args, **call.kwargs)

    def _end_copy(self, call: Call) -> None:
        """End the copy of this process that a task has forked and not ended: it would run messages beside us."""
        if process.pid != call.pid and not self._eager:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)

    def _ignores(self, call: Call) -> bool:
        return bool(call.request.ignore_result) or not self._keeps

    def _succeeded(self, call: Call, value: Any) -> Outcome:
        meta = None if self._ignores(call) else self._documents.write(call.request, states.SUCCESS, value)
        following = self._documents.value(call.request, value) if call.followed else None
        outcome = call.outcome(Action.ACK, states.SUCCESS, meta, value=following)
        kind: Any = type(call.task)
        if own(kind).on_success:
            self._hook(call, call.task.on_success, value, call.request.id, call.args, call.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=call.task, result=value, runtime=outcome.runtime)
        if logger.isEnabledFor(logging.INFO):
            self._log(logging.INFO, "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s", call,
                      runtime=outcome.runtime, return_value=saferepr(value, call.task.resultrepr_maxsize))  # fmt: skip
        self._after(call, states.SUCCESS, value, None)
        return outcome

    def _ended(self, call: Call, exc: BaseException) -> Outcome:
        """Turn what a task raised into an outcome."""
        try:
            if isinstance(exc, HardLimit):
                return self._timed_out(call, exc)
            if isinstance(exc, Exception) and not isinstance(exc, (Ignore, Reject, Retry)):
                exc = retry_for(call, exc)
            if isinstance(exc, Retry):
                return self._retried(call, exc)
            if isinstance(exc, Ignore):
                self._log(logging.INFO, "Task %(name)s[%(id)s] ignored", call)
                return call.outcome(Action.ACK, states.IGNORED)
            if isinstance(exc, Reject):
                return self._rejected(call, exc)
            return self._failed(call, exc)
        except BaseException as error:
            if signals.task_internal_error.receivers:
                signals.task_internal_error.send(
                    sender=call.task, task_id=call.request.id, args=call.args, kwargs=call.kwargs, request=call.request,
                    exception=error, traceback=error.__traceback__, einfo=ErrorInfo.of(error),
                )  # fmt: skip
            logger.critical("Task %s[%s] INTERNAL ERROR: %s", call.task.name, call.request.id, saferepr(error), exc_info=True)
            return call.outcome(Action.BURY, "", reason=f"internal error after {saferepr(exc)}: {saferepr(error)}", kind="broken")

    def _retried(self, call: Call, exc: Retry) -> Outcome:
        info = ErrorInfo.of(exc)
        item = exc.sig
        if item is None:  # raised by hand: nothing was asked to be sent
            return self._failed(call, exc)
        meta = None
        if not self._ignores(call):
            meta = self._documents.write_surely(call.request, states.RETRY, exc.exc or exc, info.text)
        call.task.on_retry(exc, call.request.id or "", call.args, call.kwargs, info)
        if signals.task_retry.receivers:
            signals.task_retry.send(sender=call.task, request=call.request, reason=exc, einfo=info)
        self._log(logging.INFO, "Task %(name)s[%(id)s] retry: %(exc)s", call, exc=exc)
        replacement = Replacement(item.raw, item.queue, item.id, item.priority, item.due)
        return call.outcome(Action.RETRY, states.RETRY, meta, replacement=replacement)

    def _rejected(self, call: Call, exc: Reject) -> Outcome:
        self._log(
            logging.WARNING, "Task %(name)s[%(id)s] reject requeue=%(requeue)s: %(reason)s", call, requeue=exc.requeue, reason=exc.reason
        )
        if exc.requeue:
            return call.outcome(Action.REQUEUE, "")
        meta = None if self._ignores(call) else self._documents.write_surely(call.request, states.FAILURE, exc)
        failure = self._for_flow(call, meta, exc)
        return call.outcome(Action.BURY, states.FAILURE, meta, reason=f"rejected: {exc.reason}", kind="rejected", failure=failure)

    def _timed_out(self, call: Call, exc: HardLimit) -> Outcome:
        """Say that the hard limit has ended the task, or that it was terminated; it is not tried again."""
        if isinstance(exc, Terminated):
            return call.outcome(Action.ACK, states.REVOKED)  # the parent tells of it
        hard = (self._limits(call) or Limits(None, None)).hard
        request_log.error("Hard time limit (%ss) exceeded for %s[%s]", hard, call.task.name, call.request.id)
        told = TimeLimitExceeded(hard).with_traceback(exc.__traceback__)
        told.__cause__ = exc.__cause__
        return self._failed(call, told, acks=acks_on(call.task, call.task.acks_on_timeout))

    def _failed(self, call: Call, exc: BaseException, *, acks: bool | None = None) -> Outcome:
        info = ErrorInfo.of(exc)
        task, request = call.task, call.request
        meta = None
        if self._keeps and (not request.ignore_result or task.store_errors_even_if_ignored):
            meta = self._documents.write_surely(request, states.FAILURE, exc, info.text)
        self._hook(call, task.on_failure, exc, request.id, call.args, call.kwargs, info)
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task, task_id=request.id, exception=exc, args=call.args, kwargs=call.kwargs, traceback=exc.__traceback__, einfo=info
            )
        if isinstance(exc, tuple(task.throws)):
            self._log(logging.INFO, "Task %(name)s[%(id)s] raised expected: %(exc)s", call, exc=saferepr(exc, LONGEST_REPR))
        else:
            self._log(logging.ERROR, "Task %(name)s[%(id)s] raised unexpected: %(exc)s", call, info=info, exc=saferepr(exc, LONGEST_REPR))
        self._after(call, states.FAILURE, exc, info)
        acks = acks_on(task, task.acks_on_failure) if acks is None else acks
        failure = self._for_flow(call, meta, exc, info.text)
        if acks or not task.acks_late:
            return call.outcome(Action.ACK, states.FAILURE, meta, failure=failure)
        reason = f"failed: {saferepr(exc)}"
        return call.outcome(Action.BURY, states.FAILURE, meta, reason=reason, kind="failed", traceback=info.text, failure=failure)

    def _for_flow(self, call: Call, meta: bytes | None, exc: BaseException, text: str | None = None) -> bytes:
        """Return the document of a failure for what follows it, if there may be something, and the result is not stored."""
        if meta is not None or not call.followed:
            return b""
        return self._documents.write_surely(call.request, states.FAILURE, exc, text)

    def _after(self, call: Call, state: str, value: Any, info: ErrorInfo | None) -> None:
        kind: Any = type(call.task)
        if own(kind).after_return:
            self._hook(call, call.task.after_return, state, value, call.request.id, call.args, call.kwargs, info)
        call.said = state, value

    def _hook(self, call: Call, hook: Any, *args: Any) -> None:
        """Call a handler of the task's class; whatever it raises is logged and changes nothing."""
        try:
            hook(*args)
        except BaseException:
            logger.exception("Task %s[%s]: %s raised", call.task.name, call.request.id, getattr(hook, "__name__", hook))

    def _close(self, call: Call, outcome: Outcome) -> Outcome:
        try:
            self._say_over(call, outcome)
        except BaseException:
            logger.exception("Task %s[%s]: a receiver of task_postrun raised", call.task.name, call.request.id)
        self._end_copy(call)  # of one that a handler has forked
        self._unframe(call)
        return outcome

    @staticmethod
    def _say_over(call: Call, outcome: Outcome) -> None:
        if signals.task_postrun.receivers:
            state, value = call.said or (outcome.state or None, None)
            signals.task_postrun.send(
                sender=call.task, task_id=call.request.id, task=call.task, args=call.args, kwargs=call.kwargs, retval=value, state=state
            )

    def _unframe(self, call: Call) -> None:
        flush_redirected()
        task_in_log.set(None)
        if call.frame is not None:
            pop_frame(call.frame)
            call.frame = None

    def _log(self, level: int, text: str, call: Call, *, info: ErrorInfo | None = None, **fields: Any) -> None:
        if logger.isEnabledFor(level):
            context = {"name": call.request.shadow or call.task.name, "id": call.request.id, **fields}
            if info is not None:
                text, context["traceback"] = text + "\n%(traceback)s", info.text.rstrip("\n")
            logger.log(
                level,
                text,
                context,
                extra={"data": {**context, "args": call.request.get("argsrepr"), "kwargs": call.request.get("kwargsrepr")}},
            )

    # The life of a child

    def starts_child(self, name: str) -> None:
        """Prepare this process: name it for the log, and let `worker_process_init` open what tasks need."""
        multiprocessing.current_process().name = name
        if name != "MainProcess" or threading.current_thread() is threading.main_thread():
            signals.worker_process_init.send(sender=self._node)

    def ends_child(self, exitcode: int) -> None:
        """Let `worker_process_shutdown` close it again."""
        signals.worker_process_shutdown.send(sender=self._node, pid=multiprocessing.current_process().pid, exitcode=exitcode)
        self._loop.close()


def retry_for(call: Call, exc: Exception) -> BaseException:
    """Return the Retry that `autoretry_for` asks for, or *exc* itself when it does not, or no retries are left."""
    task = call.task
    policy = task.retry_policy
    if not policy.autoretry_for or not policy.covers(exc):
        return exc
    options = dict(task.retry_kwargs)
    if policy.backoff or not {"countdown", "eta"} & options.keys():
        options["countdown"] = policy.delay(call.request.retries, random.Random())  # noqa: S311 - it spreads retries
    try:
        task.retry(exc=exc, **options)
    except BaseException as outcome:  # noqa: BLE001 - it always raises: a Retry, or *exc*
        return outcome
    return exc
