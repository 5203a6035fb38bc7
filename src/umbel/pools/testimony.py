"""What a child has started and finished, in memory that outlives it.

A child that is killed says nothing more. What it wrote here is read by its parent: the outcomes that it had not yet
sent, and the one message that had started. Only that one may lose an attempt. While the child lives, its parent reads
here for how long that message has run, and writes which one is to be interrupted.

Layout: `since` (seconds, CLOCK_MONOTONIC, which all processes share) and `started` (tag, 0: none); `asked` (by the
parent: the tag to interrupt, and why); `begun` (where many run at once: how many in all); `spent` (the child wants to be
replaced), `let go` (by the parent: this thread is to begin nothing more), `heard` (the child has looked at what was asked), `up` (the
child has started up and can work);
`length` (bytes of outcomes), then the outcomes as length-prefixed frames.
Invariants: each number is written whole, in one step (`struct` would set it to zero first). `since` is written before
`started`, and `started` is the same before and after it is read, so nothing seems to run for longer than it does; `length`
grows only after the frame behind it is written, so a half-written frame is never read.
"""

from __future__ import annotations

import mmap
import struct
import time

__all__ = ["Testimony"]

SINCE, STARTED, ASKED, BEGUN, LENGTH = 0, 1, 2, 3, 5  # in words of eight bytes
SPENT_AT, LET_GO_AT, HEARD_AT, UP_AT = 32, 33, 34, 35  # in bytes: the fifth word
HEAD = 48
SOFT, HARD, TERMINATE = 0, 1, 2
WHY = 2  # bits
FRAME = struct.Struct("@I")
SIZE = 1 << 16


class Testimony:
    """Shared memory of one slot; made by the parent before the fork, written by the child unless said otherwise."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)
        self._words, self._times = memoryview(self._memory).cast("Q"), memoryview(self._memory).cast("d")
        self._end = 0
        self._answered = 0

    # The child

    def rise(self) -> None:
        """Say that this child can work now."""
        self._memory[UP_AT] = 1

    def start(self, tag: int) -> None:
        """Say that *tag* starts now."""
        self._times[SINCE] = time.monotonic()
        self._words[STARTED] = tag

    def rest(self) -> None:
        """Say that nothing runs."""
        self._words[STARTED] = 0

    def begin(self) -> None:
        """Say that one more has begun, where many run at once."""
        self._words[BEGUN] += 1

    def record(self, frame: bytes) -> bool:
        """Keep the outcome of what had started, and say that nothing runs. False: there is no room, send instead."""
        end = HEAD + self._end + FRAME.size + len(frame)
        if end > SIZE:
            return False
        FRAME.pack_into(self._memory, HEAD + self._end, len(frame))
        self._memory[end - len(frame) : end] = frame
        self._end += FRAME.size + len(frame)
        self._words[LENGTH] = self._end
        self._words[STARTED] = 0
        return True

    def clear(self) -> None:
        """Forget the outcomes: they were sent."""
        self._end = 0
        self._words[LENGTH] = 0

    def asked(self) -> tuple[int, int]:
        """Return the tag to interrupt and why: for its soft (0) or hard (1) limit, or to terminate it (2); once. 0: nothing new."""
        self._memory[HEARD_AT] = 1
        asked = self._words[ASKED]
        if asked == self._answered:
            return 0, 0
        self._answered = asked
        return asked >> WHY, asked & (1 << WHY) - 1

    def doomed(self) -> bool:
        """Is what runs now to be terminated?"""
        return (running := self.running()[0]) != 0 and self._words[ASKED] == running << WHY | TERMINATE

    def tire(self) -> None:
        """Say that this child should be replaced."""
        self._memory[SPENT_AT] = 1

    @property
    def let_go(self) -> bool:
        """Is this thread to begin nothing more?"""
        return bool(self._memory[LET_GO_AT])

    # The parent

    def dismiss(self) -> None:
        """Let the thread begin nothing more, if it ever comes back."""
        self._memory[LET_GO_AT] = 1

    def running(self) -> tuple[int, float]:
        """Return what runs (0: nothing), and since when (time.monotonic)."""
        tag, since = self._words[STARTED], self._times[SINCE]
        return (tag, since) if tag == self._words[STARTED] else (0, 0.0)

    @property
    def up(self) -> bool:
        """Can the child work?"""
        return bool(self._memory[UP_AT])

    @property
    def begun(self) -> int:
        """Return how many have begun, where many run at once."""
        return self._words[BEGUN]

    def ask(self, tag: int, why: int) -> None:
        """Name the tag to interrupt, and why, for the signal that is sent next."""
        self._memory[HEARD_AT] = 0
        self._words[ASKED] = tag << WHY | why

    @property
    def heard(self) -> bool:
        """Has the child looked at what was asked? One whose interpreter's lock is held cannot."""
        return bool(self._memory[HEARD_AT])

    @property
    def may_ask(self) -> bool:
        """Was the last that was asked heard? There is room for one."""
        return self.heard or not self._words[ASKED]

    @property
    def spent(self) -> bool:
        """Did the child ask to be replaced?"""
        return bool(self._memory[SPENT_AT])

    def read(self) -> tuple[int, list[bytes]]:
        """Return the tag that had started (0: none) and the outcomes that were not sent."""
        started, length = self._words[STARTED], self._words[LENGTH]
        frames, at = [], HEAD
        while at < HEAD + length:
            (size,) = FRAME.unpack_from(self._memory, at)
            at += FRAME.size
            frames.append(self._memory[at : at + size])
            at += size
        return started, frames

    def reset(self) -> None:
        """Make it ready for the next child of the same slot."""
        self._end = 0
        self._memory[:HEAD] = bytes(HEAD)

    def close(self) -> None:
        """Unmap the memory."""
        self._words.release()
        self._times.release()
        self._memory.close()
