"""The worker, as a page: options, start, services, fetch until told to stop, drain, give the rest back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

from umbel import __version__, signals
from umbel.app import Umbel
from umbel.backend import ResultBackend
from umbel.beat.service import beside
from umbel.connections import base_dir, broker_options
from umbel.exceptions import ImproperlyConfigured, NotSupported, OperationalError
from umbel.execution.report import Reporter, named
from umbel.execution.runner import TaskRunner
from umbel.execution.settle import Settler
from umbel.ids import nodename
from umbel.pools.base import Pool
from umbel.pools.children import ChildPool
from umbel.pools.solo import SoloPool
from umbel.wire.size import limit_of
from umbel.worker.banner import banner
from umbel.worker.copies import copies_of
from umbel.worker.dispatcher import Dispatcher
from umbel.worker.fetcher import WAIT, Fetcher
from umbel.worker.keeper import Keeper
from umbel.worker.lease import Lease
from umbel.worker.rate_limits import RateLimits
from umbel.worker.recovery import find_parked, promote_delayed, recover_dead
from umbel.worker.releases import follower_of, release_joins
from umbel.worker.revoked import RevokedTasks
from umbel.worker.shutdown import Shutdown
from umbel.worker.start import check_settings, open_log, warn_of_root, warn_of_what_is_not_built
from umbel.worker.watchdog import Facts, Watchdog

__all__ = ["Worker"]

logger = logging.getLogger("celery.worker")
consumer = logging.getLogger("celery.worker.consumer")

POOLS = {"prefork": "processes", "processes": "processes", "threads": "threads", "asyncio": "asyncio", "solo": "solo"}
SELDOM = 20_000  # new objects between two collections in the parent: its own objects make no cycles
TRIES = 100  # connections at the start, if `broker_connection_retry_on_startup`


class Worker:
    """A worker of one app.

    Args:
        app: whose tasks it runs.
        hostname: its node name; `celery@<host>` by default.
        pool: `processes` (or `prefork`), `threads`, `asyncio`, `solo`; `worker_pool` by default.
        concurrency: how many tasks run at once; the number of CPUs by default.
        queues: names of the queues to consume; all of `task_queues` by default.
        exclude_queues: names of those not to consume.
        loglevel: as in `logging`.
        logfile: a path; `%n`, `%h` and `%d` stand for the name of the node, its host, its domain. Standard error by default.
        index: of this worker among those of one supervisor, for `%i` and `%I`; 0: there is none.
        quiet: print no banner.
        prefetch_multiplier: how many messages to hold per slot at most; as run times say by default.
        purge: delete what waits before the start.
        include: modules to import before.
        time_limit: seconds after which a task is ended; `task_time_limit` by default.
        soft_time_limit: seconds after which SoftTimeLimitExceeded is raised in it; `task_soft_time_limit` by default.
        max_tasks_per_child: tasks after which a process is replaced; `worker_max_tasks_per_child` by default.
        max_memory_per_child: KiB of memory above which it is replaced; `worker_max_memory_per_child` by default.
        beat: send periodic tasks, too, if no other scheduler does.
        scheduler: a class of Celery's kind that does so, or where it is; `beat_scheduler`, or umbel's own, by default.
        schedule_filename: the file of `PersistentScheduler`.
        program: how a shell calls umbel with this app, for the commands that the log proposes.
    """

    fetch_wait = WAIT  # how long a stop may wait for an idle worker

    def __init__(
        self, app: Umbel, *, hostname: str | None = None, pool: str | None = None, concurrency: int | str | None = None,
        queues: Sequence[str] | str | None = None, exclude_queues: Sequence[str] | str | None = None,
        loglevel: int | str = "WARNING", logfile: str | None = None, index: int = 0, quiet: bool = False, no_color: bool | None = None,
        prefetch_multiplier: int | None = None, purge: bool = False, include: Sequence[str] | None = None,
        time_limit: float | None = None, soft_time_limit: float | None = None, max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None, beat: bool = False, scheduler: Any = None, schedule_filename: str | None = None,
        program: str = "umbel", **other: Any,
    ) -> None:  # fmt: skip
        self.app, self.hostname, self.program, self.options = app, nodename(hostname, index=index), program, other
        self.index = index
        self.loglevel, self.logfile, self.quiet, self.no_color, self.purge = loglevel, logfile, quiet, no_color, purge
        self._beat = {"wanted": beat, "scheduler": scheduler, "schedule_filename": schedule_filename}
        self._wants = {"pool": pool, "concurrency": concurrency, "prefetch_multiplier": prefetch_multiplier}
        self._settings = {
            "task_time_limit": time_limit, "task_soft_time_limit": soft_time_limit,
            "worker_max_tasks_per_child": max_tasks_per_child, "worker_max_memory_per_child": max_memory_per_child,
        }  # fmt: skip
        self._queues, self._exclude, self._include = queues, exclude_queues, include
        self.shutdown = Shutdown(self.hostname)

    # Start

    def run(self) -> int:
        """Run until told to stop; return the exit code."""
        self._set_up()
        if self.purge:
            for queue in self.queues:
                self.app.broker.purge(queue)
        self._say_hello()
        self.app.broker.close()  # no connection may be open over the fork
        self.app.backend.close()
        with self.shutdown.seen_by_tasks():
            gc.freeze()  # what is there now lives as long as the worker: no collection walks over it again, here or in a child
            self.pool.fork()
            if not isinstance(self.pool, SoloPool):  # which runs the user's code here
                gc.set_threshold(SELDOM)
            try:
                with self.shutdown.handled_signals(), beside(self.app, holder=self.hostname, **self._beat):
                    if isinstance(self.pool, SoloPool):
                        self._run_beside(self.pool)
                    else:
                        asyncio.run(self._serve())
            finally:
                self.pool.close()
        signals.worker_shutdown.send(sender=self)
        return self.shutdown.exitcode

    def _set_up(self) -> None:
        """Load the app and read its settings once: the order in which Celery's users may rely on signals."""
        app = self.app
        app.set_current()
        app.set_default()
        for module in self._include or ():
            app.include_module(module)
        app.import_default_modules()
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=app.conf, options=self.options)
        signals.worker_init.send(sender=self)
        app.conf.update({name: value for name, value in self._settings.items() if value is not None})
        conf = self.conf = app.conf.snapshot()
        check_settings(app, conf)
        self.shutdown.patience = conf.worker_soft_shutdown_timeout
        self._prepare_process()
        app.finalize()
        self.queues = app.consumed_queues(self._queues, self._exclude)
        self.concurrency = self._concurrency()
        self.pool = self._make_pool()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=app.conf)
        warn_of_what_is_not_built(app.conf, self.options)

    def _prepare_process(self) -> None:
        """Do what concerns this process as a whole; a worker inside another program leaves it out."""
        open_log(self.conf, self.loglevel, self.logfile, node=self.hostname, index=self.index, color=False if self.no_color else None)
        warn_of_root()

    def _concurrency(self) -> int:
        wanted = self._wants["concurrency"] or self.conf.worker_concurrency
        if wanted in {None, 0, "0", "auto"}:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return int(wanted)

    def _make_pool(self) -> Pool:
        name = str(self._wants["pool"] or self.conf.worker_pool)
        if name in {"gevent", "eventlet"}:
            raise NotSupported(f"There is no {name} pool. Use -P asyncio for coroutines, or -P threads for blocking I/O.")
        if name not in POOLS:
            raise ImproperlyConfigured(f"Unknown pool {name!r}. Known: {', '.join(sorted(POOLS))}.")
        if POOLS[name] != "solo" and not self.app.broker.features.shared:
            raise ImproperlyConfigured(f"{self.app.broker_address()} lives in one process, which the pool {name!r} is not. Use -P solo.")
        runner = TaskRunner(self.app, node=self.hostname)
        if POOLS[name] == "solo":
            self.concurrency = 1
            return SoloPool(runner)
        return ChildPool(
            POOLS[name], runner, concurrency=self.concurrency, most_tasks=self.conf.worker_max_tasks_per_child or None,
            most_memory=self.conf.worker_max_memory_per_child or None, starts_within=self.conf.worker_proc_alive_timeout,
        )  # fmt: skip

    def _say_hello(self) -> None:
        if self.quiet:
            return
        level = logging.getLevelNamesMapping().get(str(self.loglevel).upper(), self.loglevel)
        print(
            banner(
                node=self.hostname, version=__version__, app_name=self.app.main or "__main__", app_id=id(self.app),
                transport=self.app.broker_address(), results=self.app.backend_address(), concurrency=self.concurrency,
                pool=self.pool.name if self.pool.name != "processes" else "prefork", queues=self.app.describe_queues(self.queues),
                tasks=sorted(name for name in self.app.tasks if not name.startswith("celery.")),
                show_tasks=isinstance(level, int) and level <= logging.INFO, color=not self.no_color and on_terminal(),
                notes=self.app.conf.set_with("accepted"), platform=platform.platform(), base_dir=base_dir(),
                now=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),  # noqa: DTZ005 - for people, in their own time
            ),
            file=sys.__stdout__, flush=True,
        )  # fmt: skip

    def _run_beside(self, pool: SoloPool) -> None:
        """Run the loop in a second thread, and tasks here."""
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                asyncio.run(self._serve())
            except BaseException as exc:  # noqa: BLE001 - raised again in the main thread
                failed.append(exc)
            finally:
                pool.close()
            if self.shutdown.asked and pool.running:  # a task that was given back: only the end of the process ends it
                os._exit(1 if failed else self.shutdown.exitcode)

        thread = threading.Thread(target=serve, name="worker")
        thread.start()
        pool.run_here()
        thread.join()
        if failed:
            raise failed[0]

    # Serve

    async def _serve(self) -> None:
        conf, app = self.conf, self.app
        loop = asyncio.get_running_loop()
        self.shutdown.watch(loop)
        broker, backend = app.broker, app.backend
        with (
            ThreadPoolExecutor(1, "fetch") as fetch_io, ThreadPoolExecutor(1, "settle") as settle_io,
            ThreadPoolExecutor(1, "lease") as lease_io, ThreadPoolExecutor(1, "care") as care_io,
        ):  # fmt: skip
            lease = Lease(
                broker, lease_io, node=self.hostname, queues=self.queues, lease=conf.worker_lease,
                renewal=conf.worker_lease_renewal, on_lost=self._lost,
            )  # fmt: skip
            follower = follower_of(app, conf, may_write=lease.held)
            settler = Settler(broker, backend, settle_io, may_write=lease.held, link=lease.link, follower=follower)
            revoked = RevokedTasks(broker)
            dispatcher = Dispatcher(
                broker, self.pool, settler, care_io, Reporter(app, conf, node=self.hostname, program=self.program),
                tasks=app.tasks, most_deliveries=conf.task_max_deliveries, prefetch=self._prefetch(), revoked=revoked,
                largest=limit_of(conf.task_message_max_size), counters=conf.task_counters,
                rates=RateLimits(app.tasks, disabled=conf.worker_disable_rate_limits),
            )  # fmt: skip
            fetcher = Fetcher(
                broker, fetch_io, settler, lease, revoked, room=dispatcher.room, deliver=dispatcher.deliver, wait=self.fetch_wait
            )  # fmt: skip
            copies = dispatcher.copies = copies_of(app, conf, care_io, settler, dispatcher.on_bound)
            dispatcher.on_room, revoked.on_news = fetcher.wake.set, dispatcher.on_revoked
            self._parts = (dispatcher, settler, fetcher)
            if not await self._connect(lease, backend, settle_io):
                return
            keeper = self._keeper(lease)
            self.pool.on_broken = self._broken
            loop.set_exception_handler(self._unforeseen)
            self.pool.start(loop, dispatcher)
            async with asyncio.TaskGroup() as services:
                running = [
                    services.create_task(lease.run(), name="lease"),
                    services.create_task(settler.run(), name="settler"),
                    services.create_task(dispatcher.look_after(), name="dispatcher"),
                    services.create_task(recover_dead(broker, care_io, lease, dispatcher.recovered), name="recovery"),
                    services.create_task(promote_delayed(broker, care_io, lease), name="delays"),
                    services.create_task(find_parked(broker, care_io, lease, app.tasks, fetcher), name="parked"),
                    services.create_task(copies.run(), name="copies"),
                    services.create_task(release_joins(backend, care_io, lease, settler), name="releases"),
                    services.create_task(revoked.watch(care_io, lease.link), name="revoked"),
                ]
                if keeper is not None:
                    running.append(services.create_task(keeper.watch(), name="keeper"))
                watchdog = Watchdog(
                    conf.worker_watchdog_timeout, look=lambda: Facts(
                        claimed=fetcher.claimed, free=dispatcher.free, held=lease.held(), excused=fetcher.stopped or settler.held_up,
                    ), ready=self._messages_ready, leave=lambda: self._leave_hung(lease),
                )  # fmt: skip
                running.append(services.create_task(watchdog.run(), name="watchdog"))
                fetching = services.create_task(fetcher.run(), name="fetcher")
                consumer.info("%s ready.", self.hostname)
                signals.worker_ready.send(sender=self)
                self.shutdown.on_cold = lambda: loop.call_soon_threadsafe(self._cold, fetching)
                await self.shutdown.wait()
                if self.shutdown.patience:
                    loop.call_later(self.shutdown.patience, dispatcher.end)
                fetcher.stopped = True
                fetcher.wake.set()
                await asyncio.wait([fetching])
                await dispatcher.drain()
                # After one lease without the broker others may have our claims, and what is not written yet runs again there.
                if not await settler.drained(lease.lease):
                    logger.error("What became of %d task(s) cannot be written: they run again.", max(1, settler.unwritten))
                for service in running:  # first: a renewal after the leaving would be refused, and join again
                    service.cancel()
                with contextlib.suppress(OperationalError):
                    await lease.leave()
            if keeper is not None:
                keeper.close()
            self.pool.close()
        broker.close()
        backend.close()
        copies.close()

    def _prefetch(self) -> int | None:
        wanted = self._wants["prefetch_multiplier"]
        value = self.conf.worker_prefetch_multiplier if wanted is None else wanted
        return int(value) if value else None

    async def _connect(self, lease: Lease, backend: ResultBackend, io: Executor) -> bool:
        """Ask whether the result backend answers, and join the tables of owners. False: told to stop meanwhile."""
        if self.conf.result_backend and not self.app.broker.settles_with(backend):  # else it is the broker
            there = partial(asyncio.get_running_loop().run_in_executor, io, backend.open)
            if not await self._reach(self.app.backend_address(), there):
                return False
        return await self._reach(self.app.broker_address(), lease.join)

    async def _reach(self, address: str, connect: Callable[[], Awaitable[None]]) -> bool:
        """Await *connect*; wait for a server that is not there yet only if the user says so."""
        wait = self.conf.broker_connection_retry_on_startup
        for attempt in range(1, TRIES + 1):
            try:
                await connect()
            except OperationalError as exc:
                if self.shutdown.asked:
                    return False
                if not wait or attempt == TRIES:
                    raise
                pause = min(2.0 * attempt, 30.0)
                consumer.error(
                    "consumer: Cannot connect to %s: %s.\nTrying again in %.2f seconds... (%d/%d)\n", address, exc, pause, attempt, TRIES
                )
                await self.shutdown.wait(pause)
            else:
                consumer.info("Connected to %s", address)
                return True
        return False

    def _keeper(self, lease: Lease) -> Keeper | None:
        """Start the keeper that a solo worker needs, as its tasks may hold the interpreter's lock; not for a connection."""
        features = self.app.broker.features
        if not isinstance(self.pool, SoloPool) or not features.shared or not features.leases:
            return None
        keeper = Keeper(
            self.app.broker_url(), broker_options(self.conf), self.queues,
            lease=lease.lease, renewal=self.conf.worker_lease_renewal, base_dir=base_dir(),
        )  # fmt: skip
        keeper.keep(lease.owner)
        lease.kept = True
        lease.on_joined = lambda: keeper.keep(lease.owner)
        return keeper

    def _lost(self) -> None:
        """Stop what runs and forget what was claimed: it is others' now."""
        dispatcher, settler, fetcher = self._parts
        if ran := dispatcher.running:
            logger.error("Stopped, with the lease: %s.", named(ran))
        settler.drop()  # before the dispatcher says what must be written even so
        dispatcher.forget()
        fetcher.forget()

    def _messages_ready(self) -> int:
        return sum(depth.ready or 0 for depth in self.app.broker.depth(self.queues).values())

    def _leave_hung(self, lease: Lease) -> None:
        """Give back what a worker holds whose loop may not run any more."""
        self.pool.end()
        self.app.broker.leave(lease.owner, self.queues)

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that nobody awaits. One in a callback may leave messages claimed that nobody looks after any more."""
        loop.default_exception_handler(context)
        if "handle" in context:
            self._broken("An unforeseen error of the worker itself, which the log of asyncio shows.")

    def _broken(self, why: str) -> None:
        """Give everything back and end with an error, so that a supervisor starts a whole worker in our place."""
        consumer.critical("%s The worker gives its messages back and ends.", why)
        self.shutdown.exitcode = 1
        self.stop()

    # Stop

    def stop(self) -> None:
        """Ask for a warm stop, from any thread."""
        self.shutdown.warm()

    def _cold(self, fetching: asyncio.Task[None]) -> None:
        """End what runs and wait for nobody: what cannot be given back comes back when the lease ends."""
        dispatcher, settler, _ = self._parts
        settler.hurry()
        fetching.cancel()
        dispatcher.end()


def on_terminal() -> bool:
    """Answer whether somebody looks at what is printed."""
    return sys.__stdout__ is not None and sys.__stdout__.isatty()
