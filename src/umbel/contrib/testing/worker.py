"""A worker in a thread of the program that runs the tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

from umbel import signals
from umbel.app import Umbel
from umbel.contrib.testing.pool import ThreadsHere
from umbel.current import standing_in
from umbel.exceptions import ImproperlyConfigured
from umbel.execution.runner import TaskRunner
from umbel.joining import allow_join_result
from umbel.pools.base import Pool
from umbel.signals import Signal
from umbel.worker.keeper import Keeper
from umbel.worker.lease import Lease
from umbel.worker.shutdown import Shutdown
from umbel.worker.worker import Worker

__all__ = ["TestWorkController", "start_worker", "test_worker_started", "test_worker_starting", "test_worker_stopped"]

test_worker_starting = Signal(name="test_worker_starting")
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})
for _signal in (test_worker_starting, test_worker_started, test_worker_stopped):
    _signal.__test__ = False  # type: ignore[attr-defined]  # pytest takes them for tests

POOLS = ("solo", "threads")
_numbers = itertools.count(1)


class _Shutdown(Shutdown):
    """A stop that never ends the process."""

    def _exit_when_over(self) -> None:
        pass


class TestWorkController(Worker):
    """A worker that runs in a thread, with its tasks in threads beside it, and leaves the process as it is."""

    __test__ = False
    fetch_wait = 0.05

    def __init__(
        self, app: Umbel, *, hostname: str | None = None, pool: str = "solo", concurrency: int | str | None = 1, **more: Any
    ) -> None:
        if pool not in POOLS:
            raise ImproperlyConfigured(f"A worker of a test runs tasks in threads of this process: pool is {pool!r}, not one of {POOLS}.")
        super().__init__(app, hostname=hostname or f"celery@test{next(_numbers)}", pool="solo", quiet=True, **more)
        self._pool_name, self._count = pool, 1 if pool == "solo" else int(concurrency or 1)
        self.shutdown = _Shutdown(self.hostname)
        self._ready, self._failed = threading.Event(), list[BaseException]()

    def run(self) -> int:
        """Run until told to stop."""
        try:
            with standing_in(self.app):
                self._set_up()
                self.pool.fork()
                signals.worker_ready.connect(self._on_ready, sender=self)
                asyncio.run(self._serve())
                signals.worker_shutdown.send(sender=self)
        except BaseException as exc:  # noqa: BLE001 - raised in the test's thread
            self._failed.append(exc)
        finally:
            signals.worker_ready.disconnect(self._on_ready, sender=self)
            self._ready.set()
        return self.shutdown.exitcode

    start = run

    def _on_ready(self, **_: Any) -> None:
        self._ready.set()

    def _prepare_process(self) -> None:
        if getattr(self.app, "test_logging", False):
            super()._prepare_process()

    def _make_pool(self) -> Pool:
        self.concurrency = self._count
        runner = TaskRunner(self.app, node=self.hostname)
        return ThreadsHere(
            runner, self._count, name=self._pool_name, on_start=lambda: signals.worker_process_init.send(sender=self.hostname)
        )

    def _keeper(self, lease: Lease) -> Keeper | None:  # noqa: ARG002 - the loop renews it
        return None

    def ensure_started(self, timeout: float = 10.0) -> None:
        """Wait until it takes tasks.

        Raises:
            RuntimeError: it did not within *timeout* seconds.
            Exception: what it ended with.
        """
        there = self._ready.wait(timeout)
        if self._failed:
            raise self._failed[0]
        if not there:
            raise RuntimeError(f"The worker did not start within {timeout:g} s: is the broker there ({self.app.broker_address()})?")

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Do nothing: a worker sees tasks that are registered after its start."""


@contextlib.contextmanager
def start_worker(
    app: Umbel,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: int | str = os.environ.get("WORKER_LOGLEVEL", "error"),
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[TestWorkController]:
    """Run a worker of *app* in a thread while the block runs.

    Args:
        app: any app; its broker may be in memory.
        concurrency: how many tasks run at once, with the pool `threads`.
        pool: `solo` or `threads`.
        loglevel: of a log, if the app has one set up.
        logfile: of the same.
        perform_ping_check: send a task and wait for its result first, if the app has a result backend.
        ping_task_timeout: seconds that this may take.
        shutdown_timeout: seconds that a task may take to end when the block is left.
        kwargs: as for the worker.

    Raises:
        RuntimeError: it did not start, or did not end.
    """
    from umbel.contrib.testing import tasks as _registers_ping  # noqa: F401

    test_worker_starting.send(sender=app)
    worker = TestWorkController(app, concurrency=concurrency, pool=pool, loglevel=str(loglevel).upper(), logfile=logfile, **kwargs)
    thread = threading.Thread(target=worker.run, name="test-worker", daemon=True)
    thread.start()
    try:
        worker.ensure_started()
        test_worker_started.send(sender=app, worker=worker, consumer=worker)
        if perform_ping_check and app.conf.result_backend and not app.conf.task_always_eager:
            with allow_join_result():
                answer = app.send_task("celery.ping").get(timeout=ping_task_timeout)
            assert answer == "pong", answer
        yield worker
    finally:
        worker.stop()
        thread.join(shutdown_timeout)
        test_worker_stopped.send(sender=app, worker=worker)
        if thread.is_alive():
            raise RuntimeError(
                f"The worker did not end within {shutdown_timeout:g} s: a task still runs. Make it end, or raise shutdown_timeout."
            )
