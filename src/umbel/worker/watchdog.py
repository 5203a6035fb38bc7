"""The watchdog ends a worker that is up and does nothing: its supervisor starts another, and other workers get its messages.

It is a thread of the parent, so it sees an event loop that hangs. What it counts is time in which it ran itself: a machine
that was suspended, a process that was stopped, a task of the solo pool that held the interpreter's lock raise no alarm.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from umbel.execution.link import boottime

__all__ = ["HUNG", "Facts", "Watchdog"]

logger = logging.getLogger("celery.worker")
HUNG = 70  # the exit code: EX_SOFTWARE
LAST = 3.0  # seconds for the last words: the log, and giving back what is held
BEAT = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Facts:
    """What the loop knows of its worker at one moment."""

    claimed: int  # messages since the start
    free: bool  # could it start a task now?
    held: bool  # may it write? Not past the end of its lease
    excused: bool  # a server is away, or the worker stops


class Watchdog:
    """Looks several times within *timeout* seconds, and ends the process when nothing has moved for so long.

    Args:
        timeout: seconds; 0: never.
        look: what the loop knows; called on the loop.
        ready: how many messages wait, None if nobody knows; called in the thread, and may raise.
        leave: ends what runs and gives back what is held; called in a thread, as the last thing.
    """

    def __init__(self, timeout: float, *, look: Callable[[], Facts], ready: Callable[[], int | None], leave: Callable[[], None]) -> None:
        self._timeout, self._look, self._ready, self._leave = timeout, look, ready, leave
        self._facts: Facts | None = None
        self._beats = 0
        self._over = threading.Event()

    async def run(self) -> None:
        """Be watched, for ever: say that the loop runs, and what it knows."""
        if self._timeout:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            while True:
                self._facts = self._look()
                self._beats += 1
                await asyncio.sleep(min(BEAT, self._timeout / 20 or BEAT))
        finally:
            self._over.set()

    def _watch(self) -> None:
        every, last = self._timeout / 10, boottime()
        silent = stuck = 0.0  # seconds
        beats, claimed = -1, -1
        while not self._over.wait(every):
            now = boottime()
            passed, last = min(now - last, 2 * every), now
            silent = silent + passed if self._beats == beats else 0.0
            facts, beats = self._facts, self._beats
            stuck = stuck + passed if facts is not None and facts.claimed == claimed and self._hangs(facts) else 0.0
            claimed = facts.claimed if facts is not None else -1
            if silent >= self._timeout:
                self._end(f"its event loop has not moved for {silent:.0f} s")
            elif stuck >= self._timeout:
                self._end(f"it has a free slot and messages wait, but it has claimed none for {stuck:.0f} s")

    def _hangs(self, facts: Facts) -> bool:
        """Answer whether something should happen now: a renewal that neither succeeds nor fails, or a claim."""
        if facts.excused:
            return False
        return not facts.held or (facts.free and self._messages_wait())

    def _messages_wait(self) -> bool:
        try:
            return bool(self._ready())
        except Exception:  # noqa: BLE001 - then nobody knows, which is no reason to end
            return False

    def _end(self, why: str) -> None:
        """End the process. Whatever hangs may hold the lock of the log, so nothing here waits for long."""
        words = threading.Thread(target=self._last_words, args=(why,), name="last-words", daemon=True)
        words.start()
        words.join(LAST)
        if words.is_alive() and sys.__stderr__ is not None:
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        os._exit(HUNG)

    def _last_words(self, why: str) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()  # noqa: SLF001 - the only way to see what other threads do
        stacks = [f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames.items()]
        logger.critical("The worker hangs: %s. It ends with exit code %d. All threads:\n%s", why, HUNG, "\n".join(stacks))
        self._leave()
