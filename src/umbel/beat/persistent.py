"""Celery's scheduler that remembers the last runs in a file, for one machine. umbel's own remembers them in its store."""

from __future__ import annotations

import contextlib
import errno
import logging
import shelve
from pathlib import Path
from typing import Any, ClassVar

from umbel.beat.classic import Scheduler
from umbel.exceptions import ImproperlyConfigured

__all__ = ["PersistentScheduler"]

logger = logging.getLogger("celery.beat")

VERSION = "5.7.0"  # whose file this is: the format is that of Celery
HELD = (errno.EAGAIN, errno.EACCES)  # of a file that another process has open
STAMPS = ("tz", "utc_enabled")


class PersistentScheduler(Scheduler):
    """A scheduler whose entries, and when they ran, are in a file of `shelve`.

    Args:
        args: of `Scheduler`.
        schedule_filename: the file; `beat_schedule_filename` by default. What is behind its name is added by the engine of the file.
        kwargs: of `Scheduler`.
    """

    persistence: Any = shelve
    known_suffixes: ClassVar[tuple[str, ...]] = ("", ".db", ".dat", ".bak", ".dir")
    _store: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        app = args[0] if args else kwargs["app"]
        self.schedule_filename: str = kwargs.pop("schedule_filename", None) or app.conf.beat_schedule_filename
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Open the file, and bring it up to date: what is not in `beat_schedule` any more is gone, the rest knows when it ran."""
        self._store = self._opened()
        stamps = {"tz": str(self.app.timezone), "utc_enabled": bool(self.app.conf.enable_utc)}
        before = {name: self._store.get(name) for name in STAMPS}
        if "__version__" not in self._store or before != stamps:
            if "entries" in self._store:
                logger.warning("beat: The time zone was %s and is %s: all entries begin anew.", before["tz"], stamps["tz"])
            self._store.clear()
        self._store.setdefault("entries", {})
        self.merge_inplace(self.app.conf.beat_schedule or {})
        self.install_default_entries(self.schedule)
        self._store.update({**stamps, "__version__": VERSION})
        self.sync()
        logger.debug("Current schedule:\n%s", "\n".join(repr(entry) for entry in self.schedule.values()))

    def _opened(self) -> Any:
        """Open the file. One that cannot be read is deleted, and made anew."""
        try:
            store = self._open_schedule()
            _ = store.get("entries"), len(store)
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno in HELD:
                raise ImproperlyConfigured(
                    f"{self.schedule_filename} cannot be opened ({exc.strerror}): another scheduler has it, or it is another user's. "
                    "Give each app a file of its own with -s, or leave -S out: umbel's own scheduler needs no file."
                ) from exc
            return self._destroy_open_corrupted_schedule(exc)
        return store

    def _open_schedule(self) -> Any:
        return self.persistence.open(self.schedule_filename, writeback=True)

    def _destroy_open_corrupted_schedule(self, exc: BaseException) -> Any:
        logger.error("beat: The schedule in %s cannot be read, and begins anew: %r", self.schedule_filename, exc)
        self._remove_db()
        return self._open_schedule()

    def _remove_db(self) -> None:
        for suffix in self.known_suffixes:
            Path(self.schedule_filename + suffix).unlink(missing_ok=True)

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return {} if self._store is None else self._store["entries"]

    def set_schedule(self, schedule: Any) -> None:
        """Replace them."""
        self._store["entries"] = schedule

    schedule: Any = property(lambda self: self.get_schedule(), lambda self, schedule: self.set_schedule(schedule))

    def sync(self) -> None:
        """Write the file."""
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        """Write and close it."""
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(ValueError):  # it is closed
                store.close()

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f"    . db -> {self.schedule_filename}"
