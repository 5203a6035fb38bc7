"""Where children live: what parent and child share was made before the fork, and serves one child after the other.

A *place* is what its slots are to the parent; it always has a child, as far as possible. It has two *berths*, so that the
next child can come up in one while the last still finishes what it has in the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from umbel.exceptions import ImproperlyConfigured
from umbel.execution.outcome import Job, Outcome, decode_jobs, decode_outcomes, encode_jobs
from umbel.pools import frames
from umbel.pools.base import Running, Slot
from umbel.pools.evidence import LastTraceback
from umbel.pools.testimony import Testimony

__all__ = ["Berth", "Place", "make_room"]

logger = logging.getLogger("celery.pool")
LIBC = ctypes.CDLL(None)
LEAVE = encode_jobs([])  # a packet without jobs: the child ends when it has finished what came before
EACH, OTHERS = 6, 256  # descriptors: of one slot, with both berths, and of everything else in the worker


def make_room(slots: int) -> None:
    """See that this process may open as many descriptors as *slots* need.

    Raises:
        ImproperlyConfigured: the system does not allow so many.
    """
    need, (soft, hard) = slots * EACH + OTHERS, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise ImproperlyConfigured(
            f"A concurrency of {slots} needs {need} open files; this process may have {hard}. Lower the concurrency, use -P asyncio, "
            "or raise the limit (`ulimit -Hn`, LimitNOFILE= of systemd)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


@dataclass(slots=True, eq=False)
class Berth:
    """Room for one child: for each slot of its place a socket pair, a testimony, and what was sent through it."""

    number: int  # the zygote's word for it
    ours: list[socket.socket]
    theirs: list[socket.socket]
    testimonies: list[Testimony]
    traceback: LastTraceback
    tags: list[dict[int, float]]  # what has no outcome -> when it was sent (time.monotonic)
    pid: int = 0
    ordered: bool = False  # its child is on the way: not forked yet, or not up
    since: float = 0.0
    expected: bool = False  # we asked for its end
    leaving: bool = False  # we told it to end when it has finished
    served: bool = False  # it has run something
    tired: bool = False  # it is to be replaced
    left: int | None = None  # how many jobs it may still get; None: any number
    unbegun: dict[int, None] = field(default_factory=dict)  # where many run at once: what has not begun, in the order of its sending
    begun: int = 0  # how many were taken out of that as begun
    ending: set[int] = field(default_factory=set)  # tags that are being ended by force
    told: bool = False  # it was logged that nothing can be sent
    stuck: set[int] = field(default_factory=set)  # slots whose thread goes on with what was ended for the parent

    @classmethod
    def build(cls, number: int, slots: int) -> Berth:
        """Make one; the parent's ends do not block."""
        pairs = [frames.pair() for _ in range(slots)]
        for ours, _ in pairs:
            ours.setblocking(False)
        return cls(
            number,
            [ours for ours, _ in pairs],
            [theirs for _, theirs in pairs],
            [Testimony() for _ in pairs],
            LastTraceback(),
            [{} for _ in pairs],
        )

    @property
    def used_up(self) -> bool:
        """Has it got as many jobs as it may?"""
        return self.left is not None and self.left <= 0

    @property
    def has_more_to_do(self) -> bool:
        """May it get more jobs, though the next child is up early?"""
        return bool(self.pid) and not self.used_up and not any(testimony.spent for testimony in self.testimonies)

    def comes(self, pid: int, left: int | None) -> None:
        """Note that a child was forked. It is still to start up."""
        self.pid, self.since, self.left = pid, time.monotonic(), left
        self.expected = self.leaving = self.served = self.tired = False

    def send(self, i: int, jobs: Sequence[Job]) -> bool:
        """Hand jobs to the child. False: it takes none now."""
        try:
            frames.send(self.ours[i], encode_jobs(jobs))
        except (BlockingIOError, frames.Closed):
            return False
        except OSError as exc:  # too few open files or too little memory for a large frame: others may go
            if not self.told:
                logger.error("Nothing large can be sent to a process: %s. It is tried again.", exc)  # noqa: TRY400 - it says all
            self.told = True
            return False
        self.told, now = False, time.monotonic()
        self.tags[i].update((job.tag, now) for job in jobs)
        self.unbegun.update((job.tag, None) for job in jobs)
        if self.left is not None:
            self.left -= len(jobs)
        return True

    def receive(self, i: int) -> list[Outcome]:
        """Return what the child has finished.

        Raises:
            BlockingIOError: nothing more, for now.
            Closed: the parent's own end is closed.
        """
        return self.finished(i, frames.receive(self.ours[i]))

    def finished(self, i: int, frame: bytes) -> list[Outcome]:
        """Return the outcomes in *frame*, but for those that nobody waits for, or that came too late: an end by force is not undone."""
        outcomes = decode_outcomes(frame)
        self.served = self.served or bool(outcomes)
        for outcome in outcomes:
            if outcome.tag in self.unbegun:  # it was over before anybody saw that it had begun
                del self.unbegun[outcome.tag]
                self.begun += 1
        return [o for o in outcomes if o.tag not in self.ending and self.tags[i].pop(o.tag, None) is not None]

    def overheard(self, i: int) -> list[Outcome]:
        """Return what the child has finished and not sent, if it is inside a task: then it writes nothing that is read here."""
        before = self.testimonies[i].running()
        _, unsent = self.testimonies[i].read()
        if not before[0] or self.testimonies[i].running() != before:
            return []
        return [outcome for frame in unsent for outcome in self.finished(i, frame)]

    def take_back(self, i: int) -> list[Job]:
        """Take out what the child has not begun to read."""
        jobs: list[Job] = []
        with contextlib.suppress(BlockingIOError, frames.Closed):
            while True:
                jobs += decode_jobs(frames.receive(self.theirs[i], socket.MSG_DONTWAIT))
        for job in jobs:
            self.tags[i].pop(job.tag, None)
            self.unbegun.pop(job.tag, None)
        if self.left is not None:
            self.left += len(jobs)
        if self.leaving and self.pid:
            self.leave(i)  # it was among what came back
        return jobs

    def leave(self, i: int) -> bool:
        """Tell the child to serve slot *i* no more. False: its socket is full, say it again."""
        self.leaving = True
        try:
            frames.send(self.ours[i], LEAVE)
        except BlockingIOError:
            return False
        except frames.Closed:
            pass
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the child's main thread: in another one it would disturb a task that is not meant, and wake nobody."""
        if not self.pid:
            return
        if hasattr(LIBC, "tgkill"):
            LIBC.tgkill(self.pid, self.pid, number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def let_go(self, i: int) -> set[int]:
        """Count no more on the thread of slot *i*, and return what it had not finished."""
        self.stuck.add(i)
        held, self.tags[i] = set(self.tags[i]), {}
        self.take_back(i)  # or what its thread has not read could be taken back later, when it runs elsewhere
        for tag in held:
            self.unbegun.pop(tag, None)
        return held

    def kill(self) -> None:
        """End the child, as expected."""
        self.expected = True
        self.signal(signal.SIGKILL)

    def runs(self, slots: Sequence[Slot], *, testified: bool) -> list[Running]:
        """Return what has started, as the child has *testified* or, where many run at once, since it was seen to have begun."""
        if not testified:
            self._see_begun()
            return [Running(slots[0], tag, since) for tag, since in self.tags[0].items() if tag not in self.unbegun]
        said = [testimony.running() for testimony in self.testimonies]
        return [Running(slot, tag, at) for slot, (tag, at), tags in zip(slots, said, self.tags, strict=True) if tag in tags]

    def _see_begun(self) -> None:
        """Take note of what has begun; only its number is known, as it begins in the order in which it was sent."""
        now, seen = time.monotonic(), self.testimonies[0].begun
        for tag in list(islice(self.unbegun, max(0, seen - self.begun))):
            del self.unbegun[tag]
            if tag in self.tags[0]:
                self.tags[0][tag] = now
        self.begun = max(self.begun, seen)

    def reset(self) -> None:
        """Make it ready for the next child."""
        self.pid = self.begun = 0
        self.ordered = False
        self.unbegun.clear()
        self.ending.clear()
        self.stuck.clear()
        for testimony, tags in zip(self.testimonies, self.tags, strict=True):
            testimony.reset()
            tags.clear()
        self.traceback.reset()

    def close(self) -> None:
        """Let everything go; safe twice."""
        for end in (*self.ours, *self.theirs):
            end.close()
        for testimony in self.testimonies:
            testimony.close()
        self.traceback.close()


@dataclass(slots=True, eq=False)
class Place:
    """Slots, and the berths of the children that serve them."""

    number: int
    slots: list[Slot]
    berths: tuple[Berth, Berth]
    at: list[Berth]  # whose child serves each slot
    next: Berth | None = None  # its child is up and takes over, slot by slot

    @classmethod
    def build(cls, number: int, slots: int, capacity: int) -> Place:
        """Make one of *slots* slots with *capacity* each."""
        berths = (Berth.build(2 * number - 1, slots), Berth.build(2 * number, slots))
        return cls(number, [Slot(number=number + i, capacity=capacity) for i in range(slots)], berths, [berths[0]] * slots)

    def other(self, berth: Berth) -> Berth:
        """Return the berth beside *berth*."""
        return self.berths[berth is self.berths[0]]

    def arrange(self, *, strict: bool) -> list[tuple[Berth, int]]:
        """Let the next child take over what it can, and say which slots may get jobs. Return who is to leave which slot.

        A slot that runs one job at a time goes over when nothing runs there, so that it never runs two. *strict*: a child
        gets exactly its number of jobs.
        """
        left: list[tuple[Berth, int]] = []
        for i, slot in enumerate(self.slots):
            old, new = self.at[i], self.next or self.at[i]
            goes_on = old is new or (strict and old.has_more_to_do)
            if not goes_on and (not old.pid or slot.capacity > 1 or not old.tags[i]):
                self.at[i] = new
                if old.pid:
                    left.append((old, i))
            serves = (goes_on or self.at[i] is new) and i not in self.at[i].stuck and not self.at[i].ordered
            slot.pid = self.at[i].pid if serves and not (strict and self.at[i].used_up) else 0
        if self.next is not None and all(berth is self.next for berth in self.at):
            self.next = None
        return left
