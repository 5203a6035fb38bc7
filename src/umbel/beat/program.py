"""The program `umbel beat`: log, banner, signals, and the service until it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from umbel import __version__
from umbel.beat.service import BeatService, service_of
from umbel.ids import nodename
from umbel.worker.start import open_log

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["Beat"]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Beat:
    """A scheduler of one app, as a program.

    Args:
        app: whose periodic tasks it sends.
        loglevel: as in `logging`.
        logfile: a path; standard error by default.
        quiet: print no banner.
        no_color: None: as `worker_log_color` says.
        scheduler: a class of Celery's kind, or where it is; `beat_scheduler`, or umbel's own, by default.
        max_interval: seconds between two of its ticks at most.
        schedule: the file of `PersistentScheduler`.
        other: options of Celery's that have no meaning here.
    """

    def __init__(
        self, app: Umbel, *, loglevel: int | str = "WARNING", logfile: str | None = None, quiet: bool = False, no_color: bool | None = None,
        scheduler: Any = None, max_interval: float | None = None, schedule: str | None = None, **other: Any,
    ) -> None:  # fmt: skip
        self.app, self.loglevel, self.logfile, self.quiet, self.no_color, self.options = app, loglevel, logfile, quiet, no_color, other
        self.hostname = nodename("celerybeat@%h")
        self._wants = {"scheduler": scheduler, "max_interval": max_interval, "schedule_filename": schedule}
        self.service: BeatService | None = None

    def run(self, ready: Callable[[], object] = lambda: None) -> int:
        """Run until told to stop; return the exit code. *ready* is called as it begins."""
        app = self.app
        app.set_current()
        app.set_default()
        app.import_default_modules()
        conf = app.conf.snapshot()
        open_log(conf, self.loglevel, self.logfile, node=self.hostname, index=0, color=False if self.no_color else None)
        app.finalize()
        self.service = service_of(app, holder=self.hostname, **self._wants)
        if not self.quiet:
            print(self.banner(self.service), file=sys.__stdout__, flush=True)
        for number in SIGNALS:
            signal.signal(number, self._told)
        ready()
        self.service.run()
        return 0

    def _told(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        service, self.service = self.service, None
        if service is not None:
            service.stop()
            if service.is_of_others:
                raise SystemExit(0)

    def banner(self, service: BeatService) -> str:
        """Return what is printed at the start."""
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ005 - for people, in their own time
        return "\n".join(
            [
                f"umbel beat v{__version__} is starting.",
                f"LocalTime -> {now}",
                "Configuration ->",
                f"    . broker -> {self.app.broker_address()}",
                *service.described(),
                f"    . entries -> {len(self.app.conf.beat_schedule or {})} in beat_schedule",
                f"    . logfile -> {self.logfile or '[stderr]'}@%{self.loglevel}",
            ]
        )
