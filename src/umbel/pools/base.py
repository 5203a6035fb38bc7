"""What the worker's parent knows of a pool: slots that take jobs and say what became of them."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from umbel.execution.outcome import Job, Outcome

__all__ = ["Death", "Listener", "Pool", "Running", "Slot", "ended", "signal_name"]


@dataclass(slots=True, eq=False)
class Slot:
    """A place that runs one job after the other, or `capacity` of them at once."""

    number: int
    capacity: int
    pid: int = 0  # 0: its process is not up, or gets no more
    jobs: dict[int, float] = field(default_factory=dict)  # tag -> expected seconds, of what was sent and has no outcome
    heard: float = 0.0  # when it last got or finished something (time.monotonic)
    stalled: bool = False  # what runs takes longer than was expected: it gets nothing more until it says something


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a child that should have lived."""

    name: str
    slots: Sequence[Slot]
    pid: int
    status: int  # as os.waitpid gives it
    held: frozenset[int]  # tags of all that it had and has no outcome
    started: frozenset[int]  # those of them that had certainly started
    unread: frozenset[int]  # those that it had certainly not begun to read
    vague: bool  # several ran at once: any of the others may have started too
    peak_memory: int = 0  # bytes that it held at most, it or a program that it ran; 0: not known
    traceback: str = ""  # the stacks of its threads at a fatal signal; '' if it left none
    ended_by_us: bool = False  # because of a task that is told of by `on_ended`: what ran beside it is not to blame

    def __str__(self) -> str:
        """Say how it ended, with everything that is known of it."""
        said = [ended(self.status)]
        if self.peak_memory:
            said.append(f"peak memory {self.peak_memory / 1e6:.0f} MB")
        if self.traceback:
            said.append(f"last traceback:\n{self.traceback}")
        elif self.status == signal.SIGKILL:
            said.append("no traceback, as SIGKILL leaves none")  # by the kernel for want of memory, by somebody, or by the task itself
        return ", ".join(said)


def signal_name(number: int) -> str:
    """Return what a signal is called; real-time signals have no names of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def ended(status: int) -> str:
    """Return in words how a process ended, from what os.waitpid says."""
    code = os.waitstatus_to_exitcode(status) if status >= 0 else status
    if code < 0:
        return f"signal {-code} ({signal_name(-code)})"
    return f"exitcode {code}"


class Listener(Protocol):
    """Who is told what becomes of jobs: the dispatcher in a worker. Everything is said on the parent's loop."""

    def on_outcomes(self, slot: Slot, outcomes: list[Outcome]) -> None:
        """These were finished in *slot*."""

    def on_death(self, death: Death) -> None:
        """A child died that should have lived."""

    def on_ended(self, tag: int, traceback: str) -> None:
        """What `Pool.end_task` was asked for is done; *traceback* says where the task was, if that is known."""

    def on_returned(self, tags: Iterable[int]) -> None:
        """These were sent and will not be begun where they are."""

    def on_ready(self) -> None:
        """A slot may get jobs that could get none before."""


class Running(NamedTuple):
    """A job that has started."""

    slot: Slot
    tag: int
    since: float  # time.monotonic


class Pool(ABC):
    """Slots. All methods but `fork` are called on the parent's loop."""

    name: str
    slots: list[Slot]
    sees_to_limits: bool = False  # its child interrupts tasks by itself
    grace: float = 0.0  # seconds between the interruption for a hard limit and the end by force
    on_broken: Callable[[str], None] = staticmethod(lambda why: None)  # noqa: ARG005 - told why no more children can come

    @abstractmethod
    def fork(self) -> None:
        """Make the processes from which children come; called once, before the parent starts any thread."""

    @abstractmethod
    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        """Bring the slots up; from now on *listener* is told, on *loop*."""

    @abstractmethod
    def send(self, slot: Slot, jobs: list[Job]) -> int:
        """Hand a packet of jobs to a slot; return how many of them, from the first on, it has taken."""

    @abstractmethod
    def runs(self) -> list[Running]:
        """Return what has started."""

    @abstractmethod
    def interrupt(self, slot: Slot, tag: int, *, hard: bool) -> None:
        """Raise in the task what its soft or *hard* limit raises, where that is possible from outside."""

    @abstractmethod
    def terminate(self, slot: Slot, tag: int, number: int) -> bool:
        """Ask a task that runs to end: with signal *number* if it has a process to itself, else by an exception. False: not yet."""

    @abstractmethod
    def end_task(self, slot: Slot, tag: int) -> None:
        """End a task by force; `on_ended` follows, unless that was told before."""

    @abstractmethod
    def take_back(self, slot: Slot) -> list[Job]:
        """Return the jobs of the packets that the slot has not begun to read, and take them from it."""

    @abstractmethod
    def overheard(self, slot: Slot) -> list[Outcome]:
        """Return what has finished in a slot that runs something slow now, and says it only after that. It will be said again."""

    @abstractmethod
    def kill(self) -> None:
        """End what runs, at once; children are replaced, their jobs are not reported."""

    @abstractmethod
    def end(self) -> None:
        """End what runs, at once and for good; what had finished before is still reported, and then `finish` returns."""

    @abstractmethod
    async def finish(self) -> None:
        """Take no more jobs, wait until what runs has ended and was reported, and end the children."""

    @abstractmethod
    def close(self) -> None:
        """End everything at once. Safe twice."""
