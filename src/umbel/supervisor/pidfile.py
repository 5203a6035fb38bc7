"""The file that names a daemon by its process id, for those who start and stop it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from umbel.exceptions import ImproperlyConfigured

__all__ = ["PidFile", "PidFileTakenError", "is_there", "read_pid"]


class PidFileTakenError(ImproperlyConfigured):
    """Another process that is there has this file."""


class PidFile:
    """A file with the id of this process in it, as long as the block lasts."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def take(self) -> None:
        """Write the file.

        Raises:
            PidFileTakenError: the process that it names is there.
            ImproperlyConfigured: it cannot be written.
        """
        for _ in range(3):  # others may come and go between the two steps
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._remove_if_stale()
                continue
            except OSError as exc:
                raise ImproperlyConfigured(
                    f"The file for the process id cannot be written to {self.path} ({exc.strerror}). Make its folder, or give another "
                    "file with --pidfile."
                ) from exc
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{os.getpid()}\n")
            return
        raise PidFileTakenError(f"The file {self.path} was taken by others three times. Is something started twice?")

    def _remove_if_stale(self) -> None:
        pid = read_pid(self.path)
        if pid is not None and pid != os.getpid() and is_there(pid):
            raise PidFileTakenError(
                f"The file {self.path} says that it runs already, as process {pid}. Stop that, or give another file with --pidfile. "
                "If that process is something else, delete the file."
            )
        # Moved aside and looked at again: another one may have removed the same file and written its own meanwhile.
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if read_pid(aside) != pid:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def give_up(self) -> None:
        """Delete the file, if it is ours."""
        if read_pid(self.path) == os.getpid():
            with contextlib.suppress(OSError):
                self.path.unlink()


def read_pid(path: Path) -> int | None:
    """Return the process id in *path*; None if there is no file, or no number in it."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) > 0 else None


def is_there(pid: int) -> bool:
    """Answer whether there is such a process, of whichever user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Answer whether a process has ended and only its parent has not looked yet, where /proc can tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
