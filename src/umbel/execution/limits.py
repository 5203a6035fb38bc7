"""Time limits: which ones a call has, and how they reach the user's code in a thread or on a loop.

The soft limit is raised in the task, which may catch it and clean up. The hard limit ends the task. What cannot be ended
from inside (a thread in a blocking call, a coroutine that swallows its cancellation) is left to the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from umbel.execution.loop_thread import ended

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["GRACE", "Guard", "HardLimit", "Interrupt", "Kind", "Limits", "Terminated", "acks_on", "bounded", "climb", "limits_of"]

GRACE = 0.5  # seconds that a task gets to end after it was told of its hard limit
LONGEST = 1e10  # seconds; what a message says beyond that is nonsense
Kind = type[SoftTimeLimitExceeded] | type["HardLimit"] | type["Terminated"]
Interrupt = Callable[[Kind], None]


class HardLimit(TimeLimitExceeded):
    """The hard limit of the very task in which it is raised, not one that a task it waited for had."""


class Terminated(HardLimit):
    """The task was revoked while it ran, and is to be ended."""


class Limits(NamedTuple):
    """Of one call, in seconds; None: no limit."""

    hard: float | None
    soft: float | None


def limits_of(header: Any, task: Task[..., Any]) -> Limits | None:
    """Return the limits of a call: what its message says (*header*: [hard, soft]), else its task, else the settings. None: it has none."""
    hard, soft = header if isinstance(header, (list, tuple)) and len(header) == 2 else (None, None)  # noqa: PLR2004 - as Celery writes it
    limits = Limits(seconds(hard) or seconds(task.time_limit), seconds(soft) or seconds(task.soft_time_limit))
    return limits if any(limits) else None


def acks_on(task: Task[..., Any], special: bool | None) -> bool:
    """Answer whether a failure acknowledges: as the *special* option says, or, if that is None, the one for all failures."""
    return bool(task.acks_on_failure_or_timeout if special is None else special)


def seconds(value: Any) -> float | None:
    """Return a limit that means something."""
    return float(value) if type(value) in {int, float} and 0 < value < LONGEST else None


class Guard:
    """The gate between one thread's user code and those who interrupt it: nothing is raised in the runner's own code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tag = self._thread = 0
        self._raised = False
        self._away: tuple[int, Callable[[], object]] = (0, lambda: None)  # what runs on a loop for this thread, and how to cancel it
        self.expired: type[HardLimit] | None = None
        self.dismissed: Callable[[], bool] = lambda: False  # has the parent told already how what runs here has ended?

    def enter(self, tag: int) -> None:
        """From here on *tag* may be interrupted; called in its thread."""
        self._thread = self._thread or threading.get_ident()  # a guard is one thread's for good
        self._raised, self.expired = False, None
        self._tag = tag

    def leave(self) -> None:
        """Nothing is raised any more. An interruption that arrives only here is too late and is dropped."""
        for _ in ("soft", "hard", "neither"):
            try:
                with self._lock:
                    self._tag = 0
                if self._raised:
                    take_back(self._thread)
            except (SoftTimeLimitExceeded, HardLimit):
                continue
            return

    @contextlib.contextmanager
    def waiting(self, tag: int, cancel: Callable[[], object]) -> Iterator[None]:
        """While this thread waits for the coroutine of *tag*, that can be terminated; to its limits it keeps by itself."""
        self._away = (tag, cancel)
        try:
            yield
        finally:
            self._away = (0, cancel)

    def interrupt(self, tag: int, kind: Kind) -> None:
        """Raise *kind* in the task if it is still inside: at once in this thread (a signal's handler), soon in another."""
        away, cancel = self._away
        if away == tag:
            if kind is Terminated:
                self.expired = Terminated
                cancel()
            return
        if self._thread == threading.get_ident():
            if self._tag == tag:
                self.expired = ending(kind)
                raise kind
            return
        with self._lock:
            if self._tag == tag:
                self._raised, self.expired = True, ending(kind)
                raise_in(self._thread, kind)


def ending(kind: Kind) -> type[HardLimit] | None:
    """Return *kind* if it ends a task, whatever the task makes of it."""
    return kind if issubclass(kind, HardLimit) else None


class TakenBack(BaseException):
    """Stands in for an interruption that has not arrived, and is caught where it is raised."""


def take_back(thread: int) -> None:
    """Let nothing arrive any more in *thread*, which is this one.

    CPython has a call for that, with NULL, after which it looks for an exception at every step, for ever: each loop is slower
    then, and under a profiler Python 3.11 stands still.
    """
    try:
        raise_in(thread, TakenBack)
        while True:  # until it is raised, at one of the next steps
            pass
    except TakenBack:
        pass


def raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise *kind* in *thread* when it next runs Python code, instead of what has not arrived there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


class Steps:
    """A coroutine into which an exception can be thrown where it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._thrown: BaseException | None = None
        self.expired = False
        self.task = asyncio.get_running_loop().create_task(ended(self))

    def interrupt(self, kind: Kind) -> None:
        """Wake it from what it waits for: with SoftTimeLimitExceeded, or at its hard limit with a cancellation, which few ignore."""
        if kind is SoftTimeLimitExceeded:
            self._thrown = kind()
        self.expired = kind is HardLimit
        self.task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        exc: BaseException | None = None
        while True:
            try:
                awaited = self._coroutine.send(None) if exc is None else self._coroutine.throw(exc)
            except StopIteration as end:
                return end.value
            exc = None
            try:
                yield awaited
            except BaseException as raised:  # noqa: BLE001 - it is for the coroutine
                exc = self._meant(raised)

    def _meant(self, raised: BaseException) -> BaseException:
        """Return what is thrown into the coroutine for a cancellation of ours."""
        if not isinstance(raised, asyncio.CancelledError) or self._thrown is None:
            return raised
        meant, self._thrown = self._thrown, None
        self.task.uncancel()
        return meant


async def climb(running: asyncio.Future[Any], limits: Limits, interrupt: Interrupt, on_soft: Callable[[], None]) -> bool:
    """Wait for *running*, and interrupt it at its limits. False: it did not end even so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for kind, limit in ((SoftTimeLimitExceeded, limits.soft), (HardLimit, limits.hard)):
        if limit is None or (kind is SoftTimeLimitExceeded and limit >= (limits.hard or limit + 1)):
            continue
        await asyncio.wait({running}, timeout=max(0.0, began + limit - loop.time()))
        if running.done():
            return True
        if kind is SoftTimeLimitExceeded:
            on_soft()
        interrupt(kind)
    await asyncio.wait({running}, timeout=None if limits.hard is None else GRACE)
    return running.done()


async def bounded(coroutine: Coroutine[Any, Any, Any], limits: Limits, on_soft: Callable[[], None], on_left: Callable[[], None]) -> Any:
    """Await *coroutine* within its limits. *on_left* is called if it swallows its cancellation: then it is left running.

    Raises:
        HardLimit: it took longer than its hard limit.
    """
    steps = Steps(coroutine)
    try:
        ended = await climb(steps.task, limits, steps.interrupt, on_soft)
    except asyncio.CancelledError:
        steps.task.cancel()
        if not (await asyncio.wait({steps.task}, timeout=GRACE))[0]:
            on_left()
        raise
    if not ended:
        on_left()
        raise HardLimit
    value, exc = steps.task.result()
    if steps.expired:
        raise HardLimit from exc
    if exc is not None:
        raise exc
    return value
