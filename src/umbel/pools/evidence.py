"""Where a child stood when it died: its last traceback, in a file without a name that outlives it."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys

from umbel.pools.frames import anonymous_file

__all__ = ["ASK", "RSS_UNIT", "LastTraceback"]

# Asks a child where it stands. The handler is C and needs no interpreter's lock, so a task in a blocking call answers, too.
# Programs seldom use the last real-time signal; where there is none, it is SIGUSR2.
ASK = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; what ru_maxrss counts in
RUNS_TASKS = f"{os.sep}umbel{os.sep}execution{os.sep}"
MOST = 16_000  # bytes that are read of it


class LastTraceback:
    """A file that both hold: made before the fork, written by the child's faulthandler, read by the parent."""

    def __init__(self) -> None:
        self._file = anonymous_file()

    def keep(self, *, last: bool) -> None:
        """In the child: write all threads' stacks there at a fatal signal, and at `ASK`; if that is its *last* word, it dies of it.

        It then goes back to no code of the user's, whose interrupted call would look as if it had ended well.
        """
        faulthandler.enable(file=self._file, all_threads=True)
        faulthandler.register(ASK, file=self._file, all_threads=True, chain=last)

    def read(self) -> str:
        """Return what was written; '' if nothing was: SIGKILL and a plain exit leave nothing."""
        return shortened(os.pread(self._file, MOST, 0).decode(errors="replace"))

    def reset(self) -> None:
        """Make it empty for the next child. Both share one position in the file, so it is set back, too."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    def close(self) -> None:
        """Let it go; safe twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def shortened(text: str) -> str:
    """Leave out of a traceback what runs tasks, and threads that run none, if any runs one."""
    head, *threads = re.split(
        r"\n?^(?=(?:Current thread|Thread) 0x)", text.partition("\nExtension modules:")[0].strip(), flags=re.MULTILINE
    )
    tasks = [thread.partition(RUNS_TASKS)[0].rpartition("\n")[0] for thread in threads if RUNS_TASKS in thread]
    return "\n".join(part.strip() for part in (head, *(tasks or threads)) if part.strip())
