"""Where a child stood when it died: its last traceback, in a file without a name that outlives it."""

from __future__ import annotations

import faulthandler
import os
import signal

from umbel.pools.frames import anonymous_file

__all__ = ["ASK", "LastTraceback"]

# Asks a child where it stands. The handler is C and needs no interpreter's lock, so a task in a blocking call answers, too.
# Programs seldom use the last real-time signal; where there is none, it is SIGUSR2.
ASK = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
MOST = 16_000  # bytes that are read of it


class LastTraceback:
    """A file that both hold: made before the fork, written by the child's faulthandler, read by the parent."""

    def __init__(self) -> None:
        self._file = anonymous_file()

    def keep(self) -> None:
        """In the child: write all threads' stacks there at a fatal signal, and when asked with `ASK`."""
        faulthandler.enable(file=self._file, all_threads=True)
        faulthandler.register(ASK, file=self._file, all_threads=True, chain=False)

    def read(self) -> str:
        """Return what was written; '' if nothing was: SIGKILL and a plain exit leave nothing."""
        text = os.pread(self._file, MOST, 0).decode(errors="replace")
        return text.partition("\nExtension modules:")[0].strip()

    def reset(self) -> None:
        """Make it empty for the next child. Both share one position in the file, so it is set back, too."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    def close(self) -> None:
        """Let it go; safe twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
