"""Pools of child processes: `processes`, `threads` and `asyncio` differ only in how many slots a child serves.

| pool      | children | slots of a child | jobs at once in a slot |
| processes | N        | 1                | 1                      |
| threads   | 1        | N (one thread each) | 1                   |
| asyncio   | 1        | 1                | N                      |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass

from umbel.execution.outcome import Job, decode_jobs, decode_outcomes, encode_jobs
from umbel.pools import frames
from umbel.pools.base import Death, OnDeath, OnOutcomes, Pool, Slot
from umbel.pools.child import ChildSlot, Runner, live
from umbel.pools.evidence import LastTraceback
from umbel.pools.testimony import Testimony
from umbel.pools.zygote import Zygote

__all__ = ["ChildPool"]

logger = logging.getLogger("celery.pool")
TOO_SHORT = 1.0  # seconds: a child that lived less is replaced only after this time, so that a broken start does not spin


@dataclass(slots=True, eq=False)
class Child:
    """One child process and the ends of its slots."""

    number: int
    slots: list[Slot]
    ours: list[socket.socket]
    theirs: list[socket.socket]
    testimonies: list[Testimony]
    traceback: LastTraceback
    pid: int = 0
    since: float = 0.0
    expected: bool = False  # we asked for its end


class ChildPool(Pool):
    """Children of a zygote."""

    def __init__(self, name: str, runner: Runner, *, concurrency: int) -> None:
        children, slots, capacity = {"processes": (concurrency, 1, 1), "threads": (1, concurrency, 1), "asyncio": (1, 1, concurrency)}[name]
        self.name = name
        self._runner = runner
        self._children = [self._child(number, slots, capacity) for number in range(1, children + 1)]
        self.slots = [slot for child in self._children for slot in child.slots]
        self._child_of = {slot: (child, i) for child in self._children for i, slot in enumerate(child.slots)}
        self._zygote: Zygote | None = None
        self._stopping = False
        self._all_ended = asyncio.Event()

    @staticmethod
    def _child(number: int, slots: int, capacity: int) -> Child:
        pairs = [frames.pair() for _ in range(slots)]
        for ours, _ in pairs:
            ours.setblocking(False)
        return Child(
            number=number,
            slots=[Slot(number=number + i, capacity=capacity) for i in range(slots)],
            ours=[ours for ours, _ in pairs],
            theirs=[theirs for _, theirs in pairs],
            testimonies=[Testimony() for _ in pairs],
            traceback=LastTraceback(),
        )

    def fork(self) -> None:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if others:
            logger.warning(
                "Loading the app has started %d thread(s): %s. What they hold at the fork stays locked in the children. "
                "Start them in a receiver of worker_process_init.", len(others), ", ".join(others),
            )  # fmt: skip
        self._zygote = Zygote(self._live, [end for child in self._children for end in child.ours])

    def _live(self, number: int) -> None:
        """Be child *number*; runs in the child."""
        mine = self._children[number - 1]
        mine.traceback.keep()
        slots = [ChildSlot(end, testimony) for end, testimony in zip(mine.theirs, mine.testimonies, strict=True)]
        live(
            self._runner,
            slots,
            name=self._name_of(number),
            concurrency=sum(slot.capacity for slot in mine.slots) if self.name == "asyncio" else 1,
        )

    def _name_of(self, number: int) -> str:
        return f"ForkPoolWorker-{number}" if self.name == "processes" else "MainProcess"

    def start(self, loop: asyncio.AbstractEventLoop, on_outcomes: OnOutcomes, on_death: OnDeath) -> None:
        assert self._zygote is not None, "fork() comes before start()"
        self._loop, self._on_outcomes, self._on_death = loop, on_outcomes, on_death
        self._zygote.control.setblocking(False)
        loop.add_reader(self._zygote.control.fileno(), self._reported)
        for child in self._children:
            for slot, end in zip(child.slots, child.ours, strict=True):
                loop.add_reader(end.fileno(), self._readable, slot, end)
            self._zygote.spawn(child.number)

    def _readable(self, slot: Slot, end: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, frames.Closed):
            while True:
                self._on_outcomes(slot, decode_outcomes(frames.receive(end)))

    def send(self, slot: Slot, jobs: list[Job]) -> bool:
        child, i = self._child_of[slot]
        if not child.pid:
            return False
        try:
            frames.send(child.ours[i], encode_jobs(jobs))
        except (BlockingIOError, frames.Closed):
            return False
        return True

    def take_back(self, slot: Slot) -> list[Job]:
        child, i = self._child_of[slot]
        jobs: list[Job] = []
        with contextlib.suppress(BlockingIOError, frames.Closed):
            while True:
                jobs += decode_jobs(frames.receive(child.theirs[i], socket.MSG_DONTWAIT))
        return jobs

    def _reported(self) -> None:
        assert self._zygote is not None
        try:
            while True:
                number, pid, status, peak = self._zygote.report()
                child = self._children[number - 1]
                if status == -1:
                    self._came(child, pid)
                else:
                    self._went(child, pid, status, peak)
        except BlockingIOError:
            return
        except (EOFError, ConnectionResetError):
            self._lost_zygote(self._zygote)

    def _lost_zygote(self, zygote: Zygote) -> None:
        """End what it has left behind: nothing can take its place, as this process has threads by now."""
        self._loop.remove_reader(zygote.control.fileno())
        told, self._stopping = self._stopping, True
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):  # the kernel kills them too, where it can
                    os.kill(child.pid, signal.SIGKILL)
                self._went(child, child.pid, signal.SIGKILL)
        self._all_ended.set()
        if not told:
            self.on_broken(f"The zygote (pid {zygote.pid}), from which all children are forked, was killed.")

    def _came(self, child: Child, pid: int) -> None:
        child.pid, child.since, child.expected = pid, time.monotonic(), False
        for slot in child.slots:
            slot.pid = pid

    def _went(self, child: Child, pid: int, status: int, peak: int = 0) -> None:
        child.pid = 0
        started: set[int] = set()
        for slot, end, testimony in zip(child.slots, child.ours, child.testimonies, strict=True):
            slot.pid = 0
            self._readable(slot, end)
            tag, unsent = testimony.read()
            for frame in unsent:
                self._on_outcomes(slot, [o for o in decode_outcomes(frame) if o.tag in slot.jobs])
            if tag:
                started.add(tag)
            testimony.reset()
        if not child.expected and (status or not self._stopping):
            self._on_death(
                Death(
                    self._name_of(child.number), child.slots, pid, status, frozenset(started), vague=child.slots[0].capacity > 1,
                    peak_memory=peak, traceback=child.traceback.read(),
                )
            )  # fmt: skip
        child.traceback.reset()
        if self._stopping:
            if not any(other.pid for other in self._children):
                self._all_ended.set()
            return
        wait = max(0.0, TOO_SHORT - (time.monotonic() - child.since)) if not child.expected else 0.0
        self._loop.call_later(wait, self._respawn, child)

    def _respawn(self, child: Child) -> None:
        if not self._stopping and self._zygote is not None:
            with contextlib.suppress(OSError):
                self._zygote.spawn(child.number)

    def kill(self) -> None:
        for child in self._children:
            for slot in child.slots:
                self.take_back(slot)
                slot.jobs.clear()
            self._kill(child)

    def end(self) -> None:
        self._stopping = True
        for child in self._children:
            self._kill(child)

    @staticmethod
    def _kill(child: Child) -> None:
        if child.pid:
            child.expected = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    async def finish(self) -> None:
        self._stopping = True
        for child in self._children:
            for end in child.ours:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_WR)
        if any(child.pid for child in self._children):
            await self._all_ended.wait()

    def close(self) -> None:
        self._stopping = True
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        for child in self._children:
            for end in (*child.ours, *child.theirs):
                end.close()  # safe twice
            for testimony in child.testimonies:
                testimony.close()
            child.traceback.close()
        self._children = []
