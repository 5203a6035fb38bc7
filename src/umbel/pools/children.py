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

from umbel.execution.limits import GRACE
from umbel.execution.outcome import Job, Outcome
from umbel.pools import frames
from umbel.pools.base import Death, Listener, Pool, Running, Slot
from umbel.pools.berths import Berth, Place, make_room
from umbel.pools.child import FAREWELL, INTERRUPT, ChildSlot, Runner, live
from umbel.pools.evidence import ASK
from umbel.pools.testimony import HARD, SOFT, TERMINATE
from umbel.pools.zygote import ENDS_WITHIN, Zygote

__all__ = ["ChildPool"]

logger = logging.getLogger("celery.pool")
TOO_SHORT = 1.0  # seconds: a child that died before it ran anything is replaced only after this time, so that a broken start does not spin
TESTIFIES = 0.2  # seconds that a child gets to say where it stands before it is killed
LOOK_AGAIN = 0.01
FORK_AGAIN = 1.0


class ChildPool(Pool):
    """Children of a zygote."""

    def __init__(
        self, name: str, runner: Runner, *, concurrency: int, most_tasks: int | None = None, most_memory: int | None = None,
        starts_within: float = 60.0,
    ) -> None:  # fmt: skip
        """Prepare the places.

        Args:
            name: `processes`, `threads` or `asyncio`.
            runner: runs messages, in the children.
            concurrency: how many run at once.
            most_tasks: after so many a child is replaced.
            most_memory: a child that has held more, in KiB, is replaced.
            starts_within: seconds after which a child that is not up hangs, on a lock held at the fork or a silent server; 0: never.
        """
        places, slots, capacity = {"processes": (concurrency, 1, 1), "threads": (1, concurrency, 1), "asyncio": (1, 1, concurrency)}[name]
        self.name = name
        self._on_loop = name == "asyncio"  # whatever its concurrency; else a slot has one job at a time, to which its child testifies
        self.grace, self.sees_to_limits = (0.0 if name == "processes" else GRACE), self._on_loop
        self._runner, self._most_tasks, self._most_memory, self._starts_within = runner, most_tasks, most_memory, starts_within
        make_room(places * slots)
        self._places = [Place.build(number, slots, capacity) for number in range(1, places + 1)]
        self._berths = {berth.number: (place, berth) for place in self._places for berth in place.berths}
        self.slots = [slot for place in self._places for slot in place.slots]
        self._where = {slot: (place, i) for place in self._places for i, slot in enumerate(place.slots)}
        self._zygote: Zygote | None = None
        self._stopping = self._told_of_fork = False
        self._all_ended = asyncio.Event()

    def fork(self) -> None:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if others:
            logger.warning(
                "Loading the app has started %d thread(s): %s. What they hold at the fork stays locked in the children. "
                "Start them in a receiver of worker_process_init.", len(others), ", ".join(others),
            )  # fmt: skip
        self._zygote = Zygote(self._live, [end for _, berth in self._berths.values() for end in berth.ours])

    def _live(self, number: int) -> None:
        """Be the child of berth *number*; runs in the child."""
        place, mine = self._berths[number]
        mine.traceback.keep(last=self.name != "threads")
        slots = [ChildSlot(end, testimony, self._most_memory) for end, testimony in zip(mine.theirs, mine.testimonies, strict=True)]
        live(self._runner, slots, name=self._name_of(place), on_loop=place.slots[0].capacity if self._on_loop else None)

    def _name_of(self, place: Place) -> str:
        return f"ForkPoolWorker-{place.number}" if self.name == "processes" else "MainProcess"

    # Children come.

    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        assert self._zygote is not None, "fork() comes before start()"
        self._loop, self._listener = loop, listener
        self._zygote.control.setblocking(False)
        loop.add_reader(self._zygote.control.fileno(), self._reported)
        for place, berth in self._berths.values():
            for i, end in enumerate(berth.ours):
                loop.add_reader(end.fileno(), self._readable, place, berth, i)
        for place in self._places:
            self._order(place.berths[0])

    def _order(self, berth: Berth) -> None:
        """Ask the zygote for a child."""
        if not self._stopping and self._zygote is not None and not (berth.pid or berth.ordered):
            try:
                self._zygote.spawn(berth.number)
            except BlockingIOError:  # it has so many orders that no more fit
                self._loop.call_later(LOOK_AGAIN, self._order, berth)
            except OSError:
                return  # it is gone: its end is told by its socket
            else:
                berth.ordered = True

    def _came(self, place: Place, berth: Berth, pid: int, error: int) -> None:
        if not pid:
            if not self._told_of_fork:
                logger.error("No process can be forked: %s. Tried again every %g s.", os.strerror(error), FORK_AGAIN)
            self._told_of_fork, berth.ordered = True, False
            self._fill(place, berth, FORK_AGAIN)
            return
        self._told_of_fork = False
        berth.comes(pid, self._most_tasks)
        if seconds := FAREWELL if self._stopping else self._starts_within:
            self._loop.call_later(seconds, self._end_late, place, berth, pid)
        self._rise(place, berth)  # it may have been up before this report was read

    def _rise(self, place: Place, berth: Berth) -> None:
        """Count on a child, but not before it says that it can work."""
        if not (berth.pid and berth.ordered and berth.testimonies[0].up):
            return
        berth.ordered = False
        if any(other is not berth for other in place.at):
            place.next = berth
        self._arrange(place)
        self._listener.on_ready()

    def _end_late(self, place: Place, berth: Berth, pid: int) -> None:
        """End a child that does not come up; it has nothing to lose, and another takes its place."""
        if berth.pid == pid and berth.ordered:
            logger.error(
                "Process %r pid:%d has not started up in %.0f s and is ended. What hangs is a receiver of worker_process_init, "
                "or a lock that was held when it was forked. What only takes long needs a larger worker_proc_alive_timeout.",
                self._name_of(place), pid, time.monotonic() - berth.since,
            )  # fmt: skip
            berth.kill()

    def _arrange(self, place: Place) -> None:
        for old, i in place.arrange(strict=self.name == "processes"):
            self._leave(old, i, old.pid)
        for berth in place.berths:
            # A thread that does not end is ended with its process, when nothing else runs there.
            if berth.stuck and not any(berth.tags) and (berth.leaving or self._stopping):
                berth.kill()

    def _leave(self, berth: Berth, i: int, pid: int) -> None:
        if berth.pid == pid and not berth.leave(i):
            self._loop.call_later(LOOK_AGAIN, self._leave, berth, i, pid)

    def _replace(self, place: Place, berth: Berth) -> None:
        """Bring the next child up; this one goes on until that is there. If the other berth is still taken, when it is free."""
        berth.tired = True
        self._order(place.other(berth))

    # Jobs go, outcomes come.

    def send(self, slot: Slot, jobs: list[Job]) -> int:
        place, i = self._where[slot]
        berth = place.at[i]
        if self.name == "processes" and berth.left is not None:
            jobs = jobs[: berth.left]
        if not (slot.pid and jobs and berth.send(i, jobs)):
            return 0
        # Where only so many may be sent, the next child comes up while the last of them run.
        if berth.left is not None and berth.left <= (self._most_tasks or 0) // 10:
            self._replace(place, berth)
            self._arrange(place)
        return len(jobs)

    def _readable(self, place: Place, berth: Berth, i: int) -> None:
        with contextlib.suppress(BlockingIOError, frames.Closed):
            while True:
                outcomes = berth.receive(i)
                if berth.ordered:
                    self._rise(place, berth)
                if berth.testimonies[i].spent and not berth.tired:
                    self._replace(place, berth)
                self._arrange(place)
                self._listener.on_outcomes(place.slots[i], outcomes)

    def take_back(self, slot: Slot) -> list[Job]:
        place, i = self._where[slot]
        jobs = [job for berth in place.berths for job in berth.take_back(i)]
        if jobs:
            self._arrange(place)
        return jobs

    def overheard(self, slot: Slot) -> list[Outcome]:
        place, i = self._where[slot]
        return [outcome for berth in place.berths for outcome in berth.overheard(i)]

    # Children go.

    def _reported(self) -> None:
        assert self._zygote is not None
        try:
            while True:
                number, pid, status, peak = self._zygote.report()
                place, berth = self._berths[number]
                if status == -1:
                    self._came(place, berth, pid, peak)
                else:
                    self._went(place, berth, status, peak)
        except BlockingIOError:
            return
        except (EOFError, ConnectionResetError):
            self._lost_zygote(self._zygote)

    def _lost_zygote(self, zygote: Zygote) -> None:
        """End what it has left behind: nothing can take its place, as this process has threads by now."""
        self._loop.remove_reader(zygote.control.fileno())
        told, self._stopping = self._stopping, True
        for place, berth in self._berths.values():
            berth.ordered = False
            if berth.pid:
                berth.signal(signal.SIGKILL)  # the kernel kills them too, where it can
                self._went(place, berth, signal.SIGKILL, alone=False)
        self._all_ended.set()
        if not told:
            self.on_broken(f"The zygote (pid {zygote.pid}), from which all children are forked, was killed.")

    def _went(self, place: Place, berth: Berth, status: int, peak: int = 0, *, alone: bool = True) -> None:
        """Deal with the end of a child. One that did not die *alone* went with the zygote: nobody can say whose fault that was."""
        pid, traceback, since = berth.pid, berth.traceback.read(), berth.since
        berth.pid = 0
        self._arrange(place)
        started = self._last_outcomes(place, berth)
        by_us = [tag for tag in berth.ending if any(tags.pop(tag, None) is not None for tags in berth.tags)]
        held = frozenset(tag for tags in berth.tags for tag in tags)
        unread = frozenset(job.tag for i in range(len(berth.ours)) for job in berth.take_back(i))
        # One that was told to leave and has not finished what it had was ended by a task, whatever its exit code.
        expected = berth.expected or (status == 0 and (self._stopping or berth.leaving) and held <= unread)
        broken = not (berth.served or started or held - unread or expected)
        berth.reset()
        for tag in by_us:
            self._listener.on_ended(tag, traceback)
        if broken:
            logger.error(
                "The process %d died before its first task. Look at what runs at its start: receivers of worker_process_init.", pid
            )
        if not expected:
            vague, ours = self._on_loop, bool(by_us)
            if not (vague or alone):
                vague, unread = True, held - started  # what had not started is no suspect
            status = int(signal.SIGKILL) if ours else status
            self._listener.on_death(
                Death(self._name_of(place), place.slots, pid, status, held, started, unread, vague, peak, traceback, ended_by_us=ours)
            )
        elif held and not self._stopping:
            self._listener.on_returned(held)  # sent when it was killed already, and its end not yet known
        self._fill(place, berth, max(0.0, TOO_SHORT - (time.monotonic() - since)) if broken else 0.0)

    def _last_outcomes(self, place: Place, berth: Berth) -> frozenset[int]:
        """Tell of what the dead child had finished, and return what it had started."""
        found = set()
        for i, testimony in enumerate(berth.testimonies):
            self._readable(place, berth, i)
            tag, unsent = testimony.read()
            for frame in unsent:
                self._listener.on_outcomes(place.slots[i], berth.finished(i, frame))
            if tag in berth.tags[i]:
                found.add(tag)
        return frozenset(found)

    def _fill(self, place: Place, berth: Berth, wait: float) -> None:
        """See that the place has a child, after *wait* seconds if none is up yet."""
        if place.next is berth:
            place.next = None
        self._arrange(place)
        if self._stopping:
            if not any(other.pid or other.ordered for _, other in self._berths.values()):
                self._all_ended.set()
        elif berth in place.at:
            if not place.other(berth).ordered:
                self._loop.call_later(wait, self._order, berth)
        elif place.at[0].tired:
            self._loop.call_later(wait, self._order, berth)

    # Time limits

    def runs(self) -> list[Running]:
        return [job for place, berth in self._berths.values() if berth.pid for job in berth.runs(place.slots, testified=not self._on_loop)]

    def _holder(self, slot: Slot, tag: int) -> tuple[Place, Berth, int]:
        place, i = self._where[slot]
        return place, next((berth for berth in place.berths if tag in berth.tags[i]), place.at[i]), i

    def interrupt(self, slot: Slot, tag: int, *, hard: bool) -> None:
        _, berth, i = self._holder(slot, tag)
        berth.testimonies[i].ask(tag, HARD if hard else SOFT)
        berth.signal(INTERRUPT)

    def terminate(self, slot: Slot, tag: int, number: int) -> bool:
        _, berth, i = self._holder(slot, tag)
        if self._on_loop and not berth.testimonies[i].may_ask:
            return False
        berth.testimonies[i].ask(tag, TERMINATE)
        berth.signal(number if self.name == "processes" else INTERRUPT)
        return True

    def end_task(self, slot: Slot, tag: int) -> None:
        place, berth, i = self._holder(slot, tag)
        if not berth.ending:
            berth.signal(ASK)
            self._loop.call_soon(self._end_when_said, place, berth, berth.pid, time.monotonic() + TESTIFIES)
        berth.ending.add(tag)
        if self.name == "threads":
            berth.testimonies[i].dismiss()
            self.interrupt(slot, tag, hard=True)  # its answer shows whether anything but this thread still runs there

    def _end_when_said(self, place: Place, berth: Berth, pid: int, latest: float, before: str = "") -> None:
        """End what is to be ended, once the child has said where it stands, or has not said it in time."""
        if berth.pid != pid:
            return  # it was its last word; `_went` tells the rest
        said = berth.traceback.read()
        hears = self.name == "threads" and all(testimony.heard for testimony in berth.testimonies)
        if not (said and said == before and hears) and time.monotonic() < latest:
            if not hears and self.name == "threads":  # the kernel may have given it to a thread that Python does not wake for it
                berth.signal(INTERRUPT)
            self._loop.call_later(LOOK_AGAIN, self._end_when_said, place, berth, pid, latest, said)
            return
        if not hears:
            berth.signal(signal.SIGKILL)
            return
        for i, slot in enumerate(place.slots):
            if berth.tags[i].keys() & berth.ending:
                self._give_up(place, berth, slot, i, said)
        berth.ending.clear()
        berth.traceback.reset()

    def _give_up(self, place: Place, berth: Berth, slot: Slot, i: int, said: str) -> None:
        """Leave a thread that does not end alone. Its child is replaced."""
        for frame in berth.testimonies[i].read()[1]:
            self._listener.on_outcomes(slot, berth.finished(i, frame))
        held = berth.let_go(i)
        self._replace(place, berth)
        self._arrange(place)
        for tag in held & berth.ending:
            self._listener.on_ended(tag, said)
        self._listener.on_returned(held - berth.ending)

    # The end

    def kill(self) -> None:
        for place, berth in self._berths.values():
            for i, slot in enumerate(place.slots):
                berth.take_back(i)
                berth.tags[i].clear()
                slot.jobs.clear()
            if berth.pid:
                berth.kill()

    def end(self) -> None:
        self._stopping = True
        for _, berth in self._berths.values():
            if berth.pid:
                berth.kill()
        self._loop.call_later(ENDS_WITHIN, self._all_ended.set)  # who tells of their ends, the zygote, may be stopped

    async def finish(self) -> None:
        self._stopping = True
        for _, berth in self._berths.values():
            for end in berth.ours:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_WR)
        for place in self._places:
            self._arrange(place)
        for place, berth in self._berths.values():
            if berth.pid and berth.ordered:
                self._loop.call_later(FAREWELL, self._end_late, place, berth, berth.pid)
        if any(berth.pid or berth.ordered for _, berth in self._berths.values()):
            await self._all_ended.wait()

    def close(self) -> None:
        self._stopping = True
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        for _, berth in self._berths.values():
            berth.close()
        self._berths, self._places = {}, []
