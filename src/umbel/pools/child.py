"""The life of a child: read packets of messages, run them, send outcomes. It holds no connection that claims or settles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, Protocol

from umbel import states
from umbel.exceptions import SoftTimeLimitExceeded
from umbel.execution.limits import Guard, HardLimit, Terminated
from umbel.execution.outcome import Action, Job, Outcome, decode_jobs, encode_outcomes
from umbel.pools import frames
from umbel.pools.copies import end_copy, mind_copies
from umbel.pools.evidence import RSS_UNIT
from umbel.pools.testimony import TERMINATE, Testimony
from umbel.wire.saferepr import one_line, saferepr

__all__ = ["CAUGHT", "FAREWELL", "INTERRUPT", "ChildSlot", "Runner", "live", "serve", "serve_loop"]

logger = logging.getLogger("celery.pool")

INTERRUPT = signal.SIGUSR1  # look at the testimony: somebody's time is up

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)  # what a terminal or a supervisor sends to all
KINDS = (SoftTimeLimitExceeded, HardLimit, Terminated)  # by why the testimony says

MOST_THREADS = 10_000
FAREWELL = 5.0  # seconds that a child has for its end, and at a stop for its start
LAST_WORDS = 0.1  # seconds for a line in the log after that
FLUSH_AFTER = 0.005  # seconds: an outcome does not wait longer than this for those behind it
ENOUGH = 32  # outcomes on a loop that are sent without waiting for the end of its turn: what takes their places is on its way sooner
SEND_AGAIN, SENDS_WITHIN = 0.1, 5.0  # seconds, where the system has no open files or memory left for a frame


class Runner(Protocol):
    """What runs one message; `umbel.execution.runner` in a worker."""

    left_behind: bool  # something goes on that was ended for the parent
    terminated: set[int]  # tags on the running loop that were cancelled for the parent

    def run(self, job: Job, guard: Guard | None = None) -> Outcome:
        """Run one message in this thread; *guard* lets others interrupt it."""

    async def arun(self, job: Job, executor: ThreadPoolExecutor) -> Outcome:
        """Run one message on the running loop."""

    def starts_child(self, name: str) -> None:
        """Prepare this process: drop inherited connections, send `worker_process_init`."""

    def ends_child(self, exitcode: int) -> None:
        """Send `worker_process_shutdown`."""


@dataclass(frozen=True, slots=True)
class ChildSlot:
    """A slot, as its child sees it."""

    socket: socket.socket
    testimony: Testimony
    most_memory: int | None = None  # KiB
    guard: Guard = field(default_factory=Guard)

    def interrupt(self) -> None:
        """Raise what the parent asks for, if that task still runs here."""
        tag, why = self.testimony.asked()
        if tag:
            self.guard.interrupt(tag, KINDS[why])

    def look_at(self, runner: Runner) -> None:
        """Ask to be replaced if this process has held too much memory, or something goes on in it that should have ended."""
        if runner.left_behind or (
            self.most_memory is not None and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT > self.most_memory * 1024
        ):
            self.testimony.tire()


def interrupt(slots: list[ChildSlot], *_: object) -> None:
    """Handle INTERRUPT. In the only slot's own thread, this raises."""
    for slot in slots:
        slot.interrupt()


def leave_if_meant(slots: list[ChildSlot], number: int, _: object) -> None:
    """End by this signal if it is sent to end what runs here, and not to the whole group."""
    if len(slots) == 1 and slots[0].testimony.doomed():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def live(runner: Runner, slots: list[ChildSlot], *, name: str, on_loop: int | None = None) -> None:
    """Serve *slots* until their sockets close: one thread for each, or the only one by a loop that runs *on_loop* at once."""
    # Ctrl-C and a supervisor's TERM reach the whole group; the parent decides. A handler, and not SIG_IGN, because programs
    # that tasks start inherit what is ignored.
    handlers: dict[int, Callable[..., object]] = {number: partial(leave_if_meant, slots) for number in CAUGHT}
    handlers[INTERRUPT] = partial(interrupt, slots)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    mind_copies(handlers, [slot.socket for slot in slots])
    exitcode, close = 1, None
    try:
        runner.starts_child(name)
        rise(slots[0])
        if on_loop is not None:
            loop = asyncio.Runner()
            loop.run(serve_loop(runner, slots[0], on_loop))
            close = loop.close
        elif len(slots) == 1:
            serve(runner, slots[0])
        else:
            serve_threads(runner, slots)
        exitcode = 0
    except SystemExit as exc:
        exitcode = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        logger.critical("Process pid:%d ends because of an unforeseen error.", os.getpid(), exc_info=True)
    finally:
        take_leave(runner, exitcode, close)


def take_leave(runner: Runner, exitcode: int, close: Callable[[], None] | None) -> NoReturn:
    """End this process within `FAREWELL`, whatever tasks have left on its loop and receivers do at its end."""
    try:
        threading.Thread(target=leave_late, args=(exitcode,), name="farewell", daemon=True).start()
        if close is not None and not runner.left_behind:  # which would not let it close
            close()
        runner.ends_child(exitcode)
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        logger.exception("Process pid:%d could not end in order.", os.getpid())
    finally:
        os._exit(exitcode)


def leave_late(exitcode: int) -> None:
    """End this process when its time is over; what hangs may hold the log."""
    time.sleep(FAREWELL)
    text = "Process pid:%d has not ended in %g s and leaves now. What hangs was left by a task or is a receiver of worker_process_shutdown."
    threading.Thread(target=logger.error, args=(text, os.getpid(), FAREWELL), daemon=True).start()
    time.sleep(LAST_WORDS)
    os._exit(exitcode)


def rise(slot: ChildSlot) -> None:
    """Tell the parent that this child can work; the frame without outcomes makes it look."""
    slot.testimony.rise()
    with contextlib.suppress(frames.Closed):  # it is gone: who serves sees it, too
        frames.send(slot.socket, encode_outcomes([]))


def serve_threads(runner: Runner, slots: list[ChildSlot]) -> None:
    """Serve each slot in its own thread; a thread that ends with an error ends the child, as a process would."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work(slot: ChildSlot) -> None:
        try:
            serve(runner, slot)
        except BaseException as exc:  # noqa: BLE001 - handed to the main thread
            ended.put(exc)
        else:
            ended.put(None)

    threads = [threading.Thread(target=work, args=(slot,), name=f"slot-{number}", daemon=True) for number, slot in enumerate(slots, 1)]
    for thread in threads:
        thread.start()
    for _ in threads:
        if (failed := ended.get()) is not None:
            raise failed


def serve(runner: Runner, slot: ChildSlot) -> None:
    """Run packets one after the other, until the parent closes the socket or sends an empty one."""
    testimony, end = slot.testimony, slot.socket
    slot.guard.dismissed = lambda: testimony.let_go
    unsent: list[Outcome] = []
    since = 0.0
    while jobs := next_jobs(slot, unsent):
        since = since if unsent else time.monotonic()
        for job in jobs:
            testimony.start(job.tag)
            outcome = runner.run(job, slot.guard)
            if end.fileno() < 0:
                end_copy()
            if testimony.let_go:
                return
            if slot.most_memory is not None or runner.left_behind:
                slot.look_at(runner)
            unsent.append(outcome)
            if not testimony.record(encode_outcomes([outcome])) or time.monotonic() - since > FLUSH_AFTER:
                deliver(slot, unsent)
                since = time.monotonic()


def next_jobs(slot: ChildSlot, unsent: list[Outcome]) -> list[Job]:
    """Return the next packet; none: the end. If one is there already, what is unsent waits for more: each frame wakes the parent.

    But not for a task that travels alone: it is not known to be short.
    """
    try:
        jobs = decode_jobs(frames.receive(slot.socket, socket.MSG_DONTWAIT if unsent else 0))
    except BlockingIOError:
        deliver(slot, unsent)
        return next_jobs(slot, unsent)
    except frames.Closed:
        jobs = []
    if len(jobs) <= 1:
        deliver(slot, unsent)
    return jobs


def deliver(slot: ChildSlot, unsent: list[Outcome]) -> None:
    """Send what is not sent, from a thread that may wait a while for what that needs. If it waits in vain, the child ends."""
    told, latest = False, time.monotonic() + SENDS_WITHIN
    while True:
        try:
            flush(slot, unsent)
        except OSError as exc:
            if time.monotonic() > latest:
                raise
            told = told or tell(exc)
            time.sleep(SEND_AGAIN)
        else:
            return


def tell(exc: OSError) -> bool:
    """Log why outcomes cannot be sent."""
    logger.error("Process pid:%d cannot send what it has finished: %s. It tries again.", os.getpid(), exc)
    return True


def flush(slot: ChildSlot, unsent: list[Outcome]) -> None:
    """Send what is not sent. In the kernel's buffer it is as safe from this child's death as in the testimony."""
    if unsent:
        try:
            frames.send(slot.socket, encode_outcomes(unsent))
        except frames.Closed:
            raise SystemExit(0) from None  # the parent is gone: what ran here is not ours to tell any more
        unsent.clear()
        slot.testimony.rest()
        slot.testimony.clear()


async def serve_loop(runner: Runner, slot: ChildSlot, concurrency: int) -> None:
    """Run up to *concurrency* messages at once on one loop.

    Several run at the same time, so the testimony names none: after a crash of this child they are all suspects.
    """
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(concurrency)
    outbox = Outbox(slot)

    async def run(job: Job) -> None:
        finish(await surely(runner, job, executor))

    def finish(outcome: Outcome) -> None:
        del running[outcome.tag]
        slot.look_at(runner)
        free.release()
        outbox.add(outcome)

    def ended(tag: int, _: asyncio.Task[None]) -> None:
        if tag in running:  # it was cancelled before its first step
            finish(Outcome(tag, Action.ACK, states.REVOKED, 0.0))

    running: dict[int, asyncio.Task[None]] = {}
    loop.add_signal_handler(INTERRUPT, cancel, runner, slot, running)
    # A thread that does not end is left in it, and takes no other's place: how many run is what *free* says.
    executor = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="task")
    async for packet in packets(slot.socket):
        jobs = decode_jobs(packet)
        if not jobs:
            break
        for job in jobs:
            await free.acquire()
            slot.testimony.begin()
            task = running[job.tag] = loop.create_task(run(job))
            task.add_done_callback(partial(ended, job.tag))
    if running:
        await asyncio.wait(running.values())
    slot.socket.setblocking(True)
    deliver(slot, outbox.unsent)


class Outbox:
    """What has ended on a loop and is to be sent: all of one turn together."""

    def __init__(self, slot: ChildSlot) -> None:
        self._slot, self._planned, self._told = slot, False, False
        self.unsent: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """Send *outcome* soon."""
        self.unsent.append(outcome)
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._send)
        elif len(self.unsent) == ENOUGH:
            self._send()

    def _send(self) -> None:
        self._planned = False
        try:
            flush(self._slot, self.unsent)
        except BlockingIOError:
            self._send_in(FLUSH_AFTER)
        except OSError as exc:
            self._told = self._told or tell(exc)
            self._send_in(SEND_AGAIN)

    def _send_in(self, seconds: float) -> None:
        self._planned = True
        asyncio.get_running_loop().call_later(seconds, self._send)


async def surely(runner: Runner, job: Job, executor: ThreadPoolExecutor) -> Outcome:
    """Run one message. Whatever happens is an outcome: without one its place on the loop would be taken for good."""
    try:
        return await runner.arun(job, executor)
    except BaseException as exc:  # also what would end the loop, under everything else that runs there
        logger.critical("A message was not run to its end because of an unforeseen error.", exc_info=True)
        return Outcome(job.tag, Action.BURY, "", 0.0, reason=f"internal error: {one_line(saferepr(exc))}", kind="broken")


def cancel(runner: Runner, slot: ChildSlot, running: dict[int, asyncio.Task[None]]) -> None:
    """Cancel the coroutine that the parent wants to end; limits they keep to by themselves."""
    tag, why = slot.testimony.asked()
    if why == TERMINATE and tag in running:
        runner.terminated.add(tag)
        running[tag].cancel()


async def packets(end: socket.socket) -> AsyncIterator[bytes]:
    """Yield what comes in, until the other side closes."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    end.setblocking(False)
    loop.add_reader(end.fileno(), readable.set)
    try:
        while True:
            try:
                yield frames.receive(end)
            except BlockingIOError:
                readable.clear()
                await readable.wait()
    except frames.Closed:
        return
    finally:
        loop.remove_reader(end.fileno())
