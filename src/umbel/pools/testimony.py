"""What a child has started and finished, in memory that outlives it.

A child that is killed says nothing more. What it wrote here is read by its parent: the outcomes that it had not yet
sent, and the one message that had started. Only that one may lose an attempt. While the child lives, its parent reads
here for how long that message has run, and writes which one is to be interrupted.

Layout: `since` (seconds, CLOCK_MONOTONIC, which all processes share) and `started` (tag, 0: none); `asked` (by the
parent: the tag to interrupt, and whether that is its hard limit); `spent` (the child wants to be replaced), `let go` (by
the parent: this thread is to begin nothing more), `heard` (the child has looked at what was asked); `length` (bytes of
outcomes), then the outcomes as length-prefixed frames. Numbers are native, so that each is written whole.
Invariants: `since` is written before `started`, so nothing seems to run for longer than it does; `length` grows only
after the frame behind it is written, so a half-written frame is never read.
"""

from __future__ import annotations

import mmap
import struct
import time

__all__ = ["Testimony"]

STARTS = struct.Struct("@dQ")
STARTED, STARTED_AT = struct.Struct("@Q"), 8
SOFT, HARD, TERMINATE = 0, 1, 2
ASKED, ASKED_AT = struct.Struct("@QQ"), 16
SPENT_AT, LET_GO_AT, HEARD_AT = 32, 33, 34
LENGTH, LENGTH_AT = struct.Struct("@Q"), 40
HEAD = 48
FRAME = struct.Struct("@I")
SIZE = 1 << 16


class Testimony:
    """Shared memory of one slot; made by the parent before the fork, written by the child unless said otherwise."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)
        self._end = 0
        self._answered = (0, 0)

    # The child

    def start(self, tag: int) -> None:
        """Say that *tag* starts now."""
        STARTS.pack_into(self._memory, 0, time.monotonic(), tag)

    def rest(self) -> None:
        """Say that nothing runs."""
        STARTED.pack_into(self._memory, STARTED_AT, 0)

    def record(self, frame: bytes) -> bool:
        """Keep the outcome of what had started, and say that nothing runs. False: there is no room, send instead."""
        end = HEAD + self._end + FRAME.size + len(frame)
        if end > SIZE:
            return False
        FRAME.pack_into(self._memory, HEAD + self._end, len(frame))
        self._memory[end - len(frame) : end] = frame
        self._end += FRAME.size + len(frame)
        LENGTH.pack_into(self._memory, LENGTH_AT, self._end)
        STARTED.pack_into(self._memory, STARTED_AT, 0)
        return True

    def clear(self) -> None:
        """Forget the outcomes: they were sent."""
        self._end = 0
        LENGTH.pack_into(self._memory, LENGTH_AT, 0)

    def asked(self) -> tuple[int, int]:
        """Return the tag to interrupt and why: for its soft (0) or hard (1) limit, or to terminate it (2); once. 0: nothing new."""
        self._memory[HEARD_AT] = 1
        asked: tuple[int, int] = ASKED.unpack_from(self._memory, ASKED_AT)
        if asked == self._answered:
            return 0, 0
        self._answered = asked
        return asked

    def doomed(self) -> bool:
        """Is what runs now to be terminated?"""
        tag, why = ASKED.unpack_from(self._memory, ASKED_AT)
        return bool(tag) and why == TERMINATE and tag == self.running()[0]

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
        since, tag = STARTS.unpack_from(self._memory, 0)
        return tag, since

    def ask(self, tag: int, why: int) -> None:
        """Name the tag to interrupt, and why, for the signal that is sent next."""
        self._memory[HEARD_AT] = 0
        ASKED.pack_into(self._memory, ASKED_AT, tag, why)

    @property
    def heard(self) -> bool:
        """Has the child looked at what was asked? One whose interpreter's lock is held cannot."""
        return bool(self._memory[HEARD_AT])

    @property
    def may_ask(self) -> bool:
        """Was the last that was asked heard? There is room for one."""
        return self.heard or not ASKED.unpack_from(self._memory, ASKED_AT)[0]

    @property
    def spent(self) -> bool:
        """Did the child ask to be replaced?"""
        return bool(self._memory[SPENT_AT])

    def read(self) -> tuple[int, list[bytes]]:
        """Return the tag that had started (0: none) and the outcomes that were not sent."""
        (started,) = STARTED.unpack_from(self._memory, STARTED_AT)
        (length,) = LENGTH.unpack_from(self._memory, LENGTH_AT)
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
        self._memory.close()
