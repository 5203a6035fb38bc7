"""The loop around a scheduler of Celery's kind: `Service`, and `EmbeddedService` beside something else.

Where a store is there, several may run: they meet at the lease of umbel's own schedulers (`leader.py`), and one of them has a scheduler
and ticks. It is made as its term begins, so it reads from its own store how far the one before had come, writes what it has sent at
once, and is closed as the term ends. A tick takes as long as it takes, so a thread keeps the lease.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from umbel import signals
from umbel.beat.classic import DEFAULT_MAX_INTERVAL
from umbel.beat.finding import find_scheduler
from umbel.beat.leader import ASKS, Leader
from umbel.beat.persistent import PersistentScheduler
from umbel.beat.service import PAUSE, BeatService
from umbel.beat.stores import name_of, open_lease_store, store_url
from umbel.clock import Clock, SystemClock
from umbel.config_values import masked
from umbel.exceptions import ImproperlyConfigured, OperationalError
from umbel.ids import nodename, uuid

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["EmbeddedService", "Service"]

logger = logging.getLogger("celery.beat")

LOOKS = 0.2  # seconds between two looks at who leads: less than a lease is trusted too short


class Service(BeatService):
    """Runs a scheduler of Celery's kind until it is told to stop.

    Args:
        app: whose periodic tasks it sends.
        max_interval: seconds between two ticks at most.
        schedule_filename: of `PersistentScheduler`.
        scheduler_cls: a class, or where it is; `beat_scheduler`, else that of the class, by default.
        holder: the name by which it leads.
        clock: for tests.
    """

    scheduler_cls: Any = PersistentScheduler
    is_of_others = True
    patience = 10.0

    def __init__(
        self, app: Umbel, max_interval: float | None = None, schedule_filename: str | None = None, scheduler_cls: Any = None, *,
        holder: str | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        super().__init__(app, holder=holder or nodename("celerybeat@%h"), clock=clock)
        self.max_interval = max_interval or app.conf.beat_max_loop_interval
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.scheduler_cls = scheduler_cls or app.conf.beat_scheduler or self.scheduler_cls
        self._scheduler: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.app, self.max_interval, self.schedule_filename, self.scheduler_cls)

    @property
    def scheduler(self) -> Any:
        """The scheduler; made when it is first asked for."""
        if self._scheduler is None:
            self._scheduler = self.get_scheduler()
        return self._scheduler

    def get_scheduler(self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers") -> Any:
        """Make a scheduler.

        Raises:
            ImproperlyConfigured: its class cannot be found, or is none of this kind.
        """
        cls = find_scheduler(self.scheduler_cls, group=extension_namespace)
        return cls(app=self.app, schedule_filename=self.schedule_filename, max_interval=self.max_interval, lazy=lazy)

    def start(self, embedded_process: bool = False) -> None:
        """Send what is due until told to stop."""
        self.run(embedded=embedded_process)

    def run(self, *, embedded: bool = False) -> None:
        """Send what is due, while this one leads, until told to stop."""
        with self._candidate() as leads:
            while not self._stop.is_set():
                if leads():
                    self._lead(leads, embedded=embedded)
                else:
                    self._stop.wait(LOOKS)

    def _lead(self, leads: Callable[[], bool], *, embedded: bool) -> None:
        """Have a scheduler, and let it tick, for one term."""
        logger.info("beat: Starting...")
        try:
            scheduler = self.scheduler
            if self._shared:
                scheduler.sync_every_tasks = 1
            signals.beat_init.send(sender=self)
            if embedded:
                signals.beat_embedded_init.send(sender=self)
            while not self._stop.is_set() and leads():
                self._rest(scheduler.tick(), leads)
                if scheduler.should_sync():
                    scheduler._do_sync()  # noqa: SLF001 - Celery's name
        finally:
            logger.info("beat: Shutting down...")
            scheduler, self._scheduler = self._scheduler, None
            if scheduler is not None:
                scheduler.close()

    def _rest(self, seconds: float | None, leads: Callable[[], bool]) -> None:
        """Wait for the next tick: not longer than this one leads."""
        if seconds and seconds > 0:
            logger.debug("beat: Waking up in %.2f seconds.", seconds)
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0 and leads() and not self._stop.wait(min(left, LOOKS)):
                pass

    _shared = False  # is there a store, so that another may go on?

    @contextlib.contextmanager
    def _candidate(self) -> Iterator[Callable[[], bool]]:
        """Ask for the lease while the block runs; without a store, lead always."""
        try:
            leases = open_lease_store(self.app)
        except ImproperlyConfigured:
            logger.warning(
                "beat: No store says which scheduler leads, so start one only: two send everything twice. "
                "Set beat_store_url = 'redis://localhost:6379/0', or a postgresql:// or sqlite:// URL."
            )
            yield lambda: True
            return
        self._shared = True
        leader = Leader(leases, self._clock or SystemClock(), role=name_of(self.app), holder=f"{self.holder}/{uuid()[:8]}")
        keeper = Keeper(leader)
        keeper.start()
        try:
            yield leader.leads
        finally:
            keeper.end()
            leases.close()

    def sync(self) -> None:
        """Let the scheduler write what has run."""
        if self._scheduler is not None:
            self._scheduler._do_sync()  # noqa: SLF001 - Celery's name

    def stop(self, wait: bool = False) -> None:
        """Ask it to stop; *wait* until it has."""
        super().stop(wait=wait)

    def described(self) -> list[str]:
        """Return lines for the banner."""
        cls = find_scheduler(self.scheduler_cls)
        scheduler = self.get_scheduler(lazy=True)
        lines = [f"    . scheduler -> {cls.__module__}.{cls.__qualname__}", *filter(None, str(scheduler.info).splitlines())]
        with contextlib.suppress(ImproperlyConfigured):
            lines.append(f"    . lease -> {masked(store_url(self.app.conf))}")
        return [*lines, f"    . maxinterval -> {scheduler.max_interval:g} s"]


class Keeper(threading.Thread):
    """Keeps a lease, or asks for it, while another thread does what it is for."""

    def __init__(self, leader: Leader) -> None:
        super().__init__(name="beat lease", daemon=True)
        self._leader, self._over = leader, threading.Event()

    def run(self) -> None:
        down, pause = False, 0.0
        while not self._over.wait(pause):
            try:
                self._leader.keep()
                down, pause = False, ASKS / 2
            except OperationalError as exc:
                if not down:
                    logger.error("beat: %s Trying again every %g s.", exc, PAUSE)  # noqa: TRY400 - the sentence says it
                down, pause = True, PAUSE

    def end(self) -> None:
        """Stop, and let another lead at once."""
        self._over.set()
        self.join()
        try:
            self._leader.give_up()
        except OperationalError as exc:
            logger.warning("beat: The lease could not be released, and lapses: %s", exc)


class InThread(threading.Thread):
    """A service in a thread."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="Beat", daemon=True)
        self.service = service

    def run(self) -> None:
        self.service.start()

    def stop(self) -> None:
        """End it, and wait until it has."""
        self.service.stop()
        if self.is_alive():
            self.join()


class InProcess(multiprocessing.Process):
    """A service in a process of its own."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="Beat", daemon=True)
        self.service = service

    def run(self) -> None:
        self.service.start(embedded_process=True)

    def stop(self) -> None:
        """End it, and wait until it has."""
        if self.is_alive():
            self.terminate()
            self.join()


def EmbeddedService(  # noqa: N802 - Celery's name
    app: Umbel, max_interval: float | None = None, *, thread: bool = False, **kwargs: Any
) -> InThread | InProcess:
    """Return a service that begins with `start()` and ends with `stop()`, in a *thread* or in a process. `umbel worker -B` is simpler."""
    if thread:
        return InThread(Service(app, max_interval=max_interval or 1, **kwargs))  # it must see soon that it is to stop
    return InProcess(Service(app, max_interval=max_interval or DEFAULT_MAX_INTERVAL, **kwargs))
