"""What a child has started and finished, in memory that outlives it.

A child that is killed says nothing more. What it wrote here is read by its parent: the outcomes that it had not yet
sent, and the one message that had started. Only that one may lose an attempt.

Layout: `started` (tag, 0: none), `length` (bytes of outcomes), then the outcomes as length-prefixed frames.
Invariant: `length` grows only after the frame behind it is written, so a half-written frame is never read.
"""

from __future__ import annotations

import mmap
import struct

__all__ = ["Testimony"]

HEAD = struct.Struct("<QQ")
STARTED = struct.Struct("<Q")
LENGTH = struct.Struct("<Q")
FRAME = struct.Struct("<I")
SIZE = 1 << 16


class Testimony:
    """Shared memory of one slot; made by the parent before the fork, written by the child only."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)
        self._end = 0

    def start(self, tag: int) -> None:
        """Say that *tag* starts now."""
        STARTED.pack_into(self._memory, 0, tag)

    def record(self, frame: bytes) -> bool:
        """Keep the outcome of what had started, and say that nothing runs. False: there is no room, send instead."""
        end = HEAD.size + self._end + FRAME.size + len(frame)
        if end > SIZE:
            return False
        FRAME.pack_into(self._memory, HEAD.size + self._end, len(frame))
        self._memory[end - len(frame) : end] = frame
        self._end += FRAME.size + len(frame)
        HEAD.pack_into(self._memory, 0, 0, self._end)
        return True

    def clear(self) -> None:
        """Forget the outcomes: they were sent."""
        self._end = 0
        LENGTH.pack_into(self._memory, STARTED.size, 0)

    def read(self) -> tuple[int, list[bytes]]:
        """Return the tag that had started (0: none) and the outcomes that were not sent."""
        started, length = HEAD.unpack_from(self._memory, 0)
        frames, at = [], HEAD.size
        while at < HEAD.size + length:
            (size,) = FRAME.unpack_from(self._memory, at)
            at += FRAME.size
            frames.append(self._memory[at : at + size])
            at += size
        return started, frames

    def reset(self) -> None:
        """Make it ready for the next child of the same slot (the parent calls this)."""
        self._end = 0
        HEAD.pack_into(self._memory, 0, 0, 0)

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
