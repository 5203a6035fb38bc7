"""What the worker's parent knows of a pool: slots that take jobs and say what became of them."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umbel.execution.outcome import Job, Outcome

__all__ = ["Death", "OnDeath", "OnOutcomes", "Pool", "Slot", "ended", "signal_name"]


@dataclass(slots=True, eq=False)
class Slot:
    """A place that runs one job after the other, or `capacity` of them at once."""

    number: int
    capacity: int
    pid: int = 0  # 0: its process is not up
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
    started: frozenset[int]  # tags that had certainly started
    vague: bool  # several ran at once: any of the others may have started too
    peak_memory: int = 0  # bytes that it held at most, it or a program that it ran; 0: not known
    traceback: str = ""  # the stacks of its threads at a fatal signal; '' if it left none

    def __str__(self) -> str:
        """Say how it ended, with everything that is known of it."""
        said = [ended(self.status)]
        if self.peak_memory:
            said.append(f"peak memory {self.peak_memory / 1e6:.0f} MB")
        if self.traceback:
            said.append(f"last traceback:\n{self.traceback}")
        elif self.status == signal.SIGKILL:
            said.append("killed from outside, no traceback")  # by the kernel for want of memory, or by somebody
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


OnOutcomes = Callable[[Slot, list[Outcome]], None]
OnDeath = Callable[[Death], None]


class Pool(ABC):
    """Slots. All methods but `fork` are called on the parent's loop."""

    name: str
    slots: list[Slot]
    on_broken: Callable[[str], None] = staticmethod(lambda why: None)  # noqa: ARG005 - told why no more children can come

    @abstractmethod
    def fork(self) -> None:
        """Make the processes from which children come; called once, before the parent starts any thread."""

    @abstractmethod
    def start(self, loop: asyncio.AbstractEventLoop, on_outcomes: OnOutcomes, on_death: OnDeath) -> None:
        """Bring the slots up; from now on the callbacks are called on *loop*."""

    @abstractmethod
    def send(self, slot: Slot, jobs: list[Job]) -> bool:
        """Hand a packet of jobs to a slot. False: it takes none now."""

    @abstractmethod
    def take_back(self, slot: Slot) -> list[Job]:
        """Return the jobs of the packets that the slot has not begun to read, and take them from it."""

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
