"""A scheduler that runs until it is told to stop: a program of its own, or a thread of a worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from umbel import signals
from umbel.beat.scheduler import LeaseScheduler
from umbel.beat.stores import layers, open_stores, store_url
from umbel.clock import Clock
from umbel.config_values import masked
from umbel.exceptions import OperationalError
from umbel.ids import uuid

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["BeatService", "beside", "service_of"]

logger = logging.getLogger("celery.beat")

PAUSE = 1.0  # seconds until a server that did not answer is asked again


class BeatService:
    """The loop around the rounds of one scheduler.

    Args:
        app: whose periodic tasks it sends.
        holder: the name by which it leads.
        clock: for tests.
    """

    is_of_others = False  # does code of others tick? It may wait for long, and has to be interrupted
    patience: float | None = None  # seconds that a stop waits for it

    def __init__(self, app: Umbel, *, holder: str, clock: Clock | None = None) -> None:
        self.app, self.holder = app, holder
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._down = False  # was it said that a server does not answer?

    def run(self, *, embedded: bool = False) -> None:
        """Send what is due until told to stop."""
        logger.info("beat: Starting...")
        signals.beat_init.send(sender=self)
        if embedded:
            signals.beat_embedded_init.send(sender=self)
        leases, store = open_stores(self.app)
        scheduler = LeaseScheduler(
            self.app, leases=leases, store=store, configured=configured(self.app), holder=f"{self.holder}/{uuid()[:8]}", clock=self._clock
        )
        try:
            while not self._stop.is_set():
                self._stop.wait(self._round(scheduler))
        finally:
            logger.info("beat: Shutting down...")
            try:
                scheduler.close()
            except OperationalError as exc:
                logger.warning("beat: The lease could not be released, and lapses: %s", exc)
            leases.close()
            store.close()

    def _round(self, scheduler: LeaseScheduler) -> float:
        try:
            pause = scheduler.round()
        except OperationalError as exc:
            if not self._down:
                logger.error("beat: %s Trying again every %g s.", exc, PAUSE)  # noqa: TRY400 - the sentence says it
            self._down = True
            return PAUSE
        if self._down:
            self._down = False
            logger.info("beat: Connected to %s again.", masked(store_url(self.app.conf)))
        return pause

    def start_thread(self) -> None:
        """Run beside something else."""
        self._thread = threading.Thread(target=self._run_on, name="beat", daemon=True)
        self._thread.start()

    def _run_on(self) -> None:
        """Run, and after an error that nobody foresaw begin anew: a worker whose scheduler is dead would look healthy."""
        while not self._stop.is_set():
            try:
                self.run(embedded=True)
            except Exception:
                logger.critical("beat: An unforeseen error; this scheduler begins anew in %g s.", 5 * PAUSE, exc_info=True)
                self._stop.wait(5 * PAUSE)

    def stop(self, *, wait: bool = False) -> None:
        """Ask it to stop, from any thread or signal handler; *wait* until it has."""
        self._stop.set()
        if wait and self._thread is not None:
            self._thread.join(self.patience)

    def described(self) -> list[str]:
        """Return lines for the banner."""
        return [
            f"    . store -> {masked(store_url(self.app.conf))}",
            *(f"    . entries -> those of {layer.where()}" for layer in layers),
        ]


def service_of(
    app: Umbel, *, holder: str, scheduler: Any = None, max_interval: float | None = None, schedule_filename: str | None = None,
) -> BeatService:  # fmt: skip
    """Make the service of an app: umbel's own, or that of a class of Celery's kind.

    Args:
        app: whose periodic tasks it sends.
        holder: the name by which it leads.
        scheduler: a class of Celery's kind, or where it is; `beat_scheduler` by default, and if that is None, too, umbel's own runs.
        max_interval: of that class.
        schedule_filename: of that class.

    Raises:
        ImproperlyConfigured: what cannot work.
    """
    wanted = scheduler or app.conf.beat_scheduler
    if not wanted:
        store_url(app.conf)
        return BeatService(app, holder=holder)
    from umbel.beat.classic_service import Service
    from umbel.beat.finding import find_scheduler

    return Service(app, max_interval, schedule_filename, find_scheduler(wanted), holder=holder)


@contextmanager
def beside(app: Umbel, *, holder: str, wanted: bool, scheduler: Any = None, schedule_filename: str | None = None) -> Iterator[None]:
    """Let a scheduler run in a thread while the block runs, if *wanted*."""
    if not wanted:
        yield
        return
    service = service_of(app, holder=holder, scheduler=scheduler, schedule_filename=schedule_filename)
    service.start_thread()
    try:
        yield
    finally:
        service.stop(wait=True)


def configured(app: Umbel) -> Mapping[str, Mapping[str, Any]]:
    """Return `beat_schedule`, with what `add_periodic_task` has added."""
    return dict(app.conf.beat_schedule or {})
