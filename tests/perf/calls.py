"""Counts function calls, in a process of its own: python -m tests.perf.calls delay|run URL PREFIX [results].

It prints JSON: for each path the calls per task (of Python's functions and of C's), and which functions are called most. `run` drives the
real parts of a worker in this one process: what the parent sends to a child is read by the child's own code at the other end.

A profiler is set, so nothing here may be interrupted: on Python 3.11, an exception that is raised from outside then crashes.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from umbel import Umbel
from umbel.broker import Delivery
from umbel.execution.link import Link
from umbel.execution.outcome import encode_jobs
from umbel.execution.report import Reporter
from umbel.execution.runner import TaskRunner
from umbel.execution.settle import Settler
from umbel.pools import child, frames
from umbel.pools.children import ChildPool
from umbel.worker import inflight
from umbel.worker.dispatcher import Dispatcher
from umbel.worker.rate_limits import RateLimits

CALLS = 200  # of delay()
BATCH, BATCHES = 64, 4
WARM_UP = 3  # batches: the first task is not known to be short, and plans, encoders and connections are made
MOST_SHOWN = 10
OURS = ("Calls.__exit__", "setprofile")  # the end of what is counted


class Calls:
    """Counts the calls that are made inside the block."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def _note(self, frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            code = frame.f_code
            self.counts[f"{code.co_filename.rpartition('/umbel/')[2]}:{code.co_qualname}"] += 1
        elif event == "c_call":
            self.counts[f"C {getattr(arg, '__qualname__', arg)}"] += 1

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.counts = Counter({name: count for name, count in self.counts.items() if not name.endswith(OURS)})

    def figures(self, tasks: int) -> dict[str, Any]:
        """Per task: how many in all, and the functions that are called most."""
        most = {name: round(count / tasks, 2) for name, count in self.counts.most_common(MOST_SHOWN)}
        return {"calls": round(self.counts.total() / tasks, 2), "most": most}


def make_app(url: str, prefix: str, *, results: bool) -> Umbel:
    app = Umbel("perf", broker=url, backend=url if results else None)
    options = {"global_keyprefix": prefix} if prefix else {}
    app.conf.update(broker_transport_options=options, result_backend_transport_options=options)

    @app.task(name="perf.noop")
    def noop(number: int) -> int:
        return number

    return app


def delay(app: Umbel) -> dict[str, Any]:
    """One call after the other, on a connection that is open."""
    noop = app.tasks["perf.noop"]
    for number in range(CALLS):
        noop.delay(number)
    counted, numbers = Calls(), range(CALLS)
    with counted:
        for number in numbers:
            noop.delay(number)
    return {"delay": counted.figures(CALLS)}


class Worker:
    """The parts of a worker that a message passes through, without their services, threads and processes."""

    def __init__(self, app: Umbel) -> None:
        app.finalize()
        self.broker = app.broker
        self.pool = ChildPool("processes", TaskRunner(app, node="perf@host"), concurrency=1)
        self.slot, (self.place, self.berth) = self.pool.slots[0], self.pool._berths[1]
        self.slot.pid = self.berth.pid = 1  # as if a child had come up
        self.child = child.ChildSlot(self.berth.theirs[0], self.berth.testimonies[0])
        io = ThreadPoolExecutor(1)
        self.settler = Settler(app.broker, app.backend, io, may_write=lambda: True, link=Link("broker"))
        self.dispatcher = Dispatcher(
            app.broker, self.pool, self.settler, io, Reporter(app, app.conf.snapshot(), node="perf@host"), tasks=app.tasks,
            most_deliveries=3, prefetch=None, rates=RateLimits(app.tasks),
        )  # fmt: skip
        self.pool._listener = self.dispatcher
        self.seq = 0
        self.broker.join("perf", ["celery"], lease=60)

    def claim(self) -> list[Delivery]:
        """Claim a batch; what was settled before rides on it."""
        self.seq += 1
        return self.broker.fetch("celery", BATCH, owner="perf", seq=self.seq, settle=self.settler.ride("celery"))

    def run_packets(self) -> None:
        """Be the child, until it has read all that it was sent."""
        frames.send(self.berth.ours[0], encode_jobs([]))
        child.serve(self.pool._runner, self.child)

    def receive(self) -> None:
        """Read what the child has sent."""
        self.pool._readable(self.place, self.berth, 0)


def run(app: Umbel) -> dict[str, Any]:
    """Claim, hand over, run and settle batch after batch."""
    # A count must not depend on how fast the machine is: all is taken to be quick, and one packet holds a batch.
    child.FLUSH_AFTER = inflight.HORIZON = inflight.SHORT = inflight.PACKET_SECONDS = 1e6
    worker = Worker(app)
    app.tasks["perf.noop"].delay_many(((number,), {}) for number in range(BATCH * (WARM_UP + BATCHES)))
    for number in range(WARM_UP + BATCHES):
        if number in {0, WARM_UP}:
            claiming, parent, tasks = Calls(), Calls(), Calls()
        with claiming:
            deliveries = worker.claim()
        assert len(deliveries) == BATCH
        with parent:
            worker.dispatcher.deliver(deliveries)
        while worker.slot.jobs:
            with tasks:
                worker.run_packets()
            with parent:
                worker.receive()
        assert worker.settler.pending == BATCH
    return {name: calls.figures(BATCH * BATCHES) for name, calls in (("claim", claiming), ("parent", parent), ("child", tasks))}


def main(what: str, url: str, prefix: str = "", results: str = "") -> None:
    app = make_app(url, prefix, results=bool(results))
    print(json.dumps({"delay": delay, "run": run}[what](app)))


if __name__ == "__main__":
    main(*sys.argv[1:])
