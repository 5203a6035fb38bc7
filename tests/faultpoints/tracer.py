"""Kills this process, or a child of it, at the n-th line that it executes in certain files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import umbel

SOURCE = Path(umbel.__file__).parent
Kill = Callable[[], None]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Tracer:
    """Counts line events, from the moment that `begins` says so; at number *at* the process is killed.

    Args:
        parts: files or folders below src/umbel whose lines count.
        begins: asked at each return of a function of these parts, with the name of the function and what it returns;
            None: it counts at once.
        at: which line kills; 0 or less: none, and `count` is how many there were.
    """

    def __init__(self, parts: list[str], begins: Callable[[str, Any], bool] | None, at: int, kill: Kill = killed) -> None:
        self._paths = tuple(str(SOURCE / part) for part in parts)
        self._begins, self._at, self._kill = begins, at, kill
        self._lock = threading.Lock()
        self.counting = begins is None
        self.count = 0
        self.last = ""

    def start(self) -> None:
        """Trace this thread and those that it starts."""
        threading.settrace(self._enters)
        sys.settrace(self._enters)

    @staticmethod
    def stop() -> None:
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(None)

    def _enters(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._steps if frame.f_code.co_filename.startswith(self._paths) else None

    def _steps(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and self.counting:
            with self._lock:
                self.count += 1
                if self.count == self._at:
                    self.last = f"{Path(frame.f_code.co_filename).relative_to(SOURCE)}:{frame.f_lineno}"
                    self._kill()
        elif event == "return" and not self.counting and self._begins is not None and self._begins(frame.f_code.co_name, arg):
            self.counting = True
        return self._steps
