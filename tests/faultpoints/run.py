"""Kills a worker at every line between a claim and its acknowledgement, and asks afterwards what has become of the messages.

    python -m tests.faultpoints.run '{"case": "solo", "broker": ..., "backend": ..., "folder": ..., ...}'

This process has no threads: it forks a worker for each line, each with a queue of its own, which kills itself there. After a
batch of such lines a clean worker serves all their queues. It prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faultpoints.tracer import Tracer, killed

from umbel import Umbel
from umbel.worker.worker import Worker

BETWEEN = ["worker", "execution", "drivers", "pools"]
IN_CHILD = ["pools/child.py", "execution/runner.py"]
BATCH = 40  # lines between two clean workers
PATIENCE = 60.0  # seconds
LEASE = 1.5  # seconds


class Points:
    """One run."""

    def __init__(
        self, *, case: str, broker: str, backend: str, prefix: str, folder: str, messages: int, most: int, seed: int, pool: str = "solo"
    ) -> None:  # fmt: skip
        self.case, self.messages, self.most, self.seed, self.pool = case, messages, most, seed, pool
        self.folder, self.ledger = Path(folder), Path(folder) / "ledger"
        self.app = app = Umbel("points", broker=broker, backend=backend, set_as_current=True)
        app.conf.update(
            worker_lease=LEASE, worker_lease_renewal=LEASE / 4, worker_prefetch_multiplier=messages, worker_hijack_root_logger=False,
            broker_transport_options={"global_keyprefix": prefix}, result_backend_transport_options={"global_keyprefix": prefix},
        )  # fmt: skip

        @app.task(name="done")
        def done(queue: str, number: int) -> int:
            self.note(f"{queue} {number}")
            return number

        self.task = done
        self.ids: dict[str, list[str]] = {}

    def note(self, line: str) -> None:
        with self.ledger.open("ab", buffering=0) as ledger:
            ledger.write(f"{line}\n".encode())

    def lines(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines()) if self.ledger.exists() else Counter()

    # Workers, each in a process of its own

    def fork(self, live: Callable[[], None]) -> int:
        self.app.broker.close()
        self.app.backend.close()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                live()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return pid

    def worker(self, queues: list[str], tracer: Tracer | None = None) -> None:
        """Serve *queues* until they are empty."""
        name = f"{queues[0]}@here"
        worker = Worker(self.app, hostname=name, pool=self.pool, concurrency=1, queues=queues, loglevel="CRITICAL", quiet=True)
        worker._keeper = lambda lease: None  # type: ignore[method-assign]  # a process more for each line, and nothing holds the lock here
        threading.Thread(target=self.stop_when_empty, args=(worker, queues, tracer), daemon=True).start()
        if tracer is not None and self.case == "parent":
            os.register_at_fork(after_in_child=Tracer.stop)
            tracer.start()
        worker.run()

    def stop_when_empty(self, worker: Worker, queues: list[str], tracer: Tracer | None) -> None:
        deadline = time.monotonic() + PATIENCE
        broker = type(self.app.broker)(self.app.broker_url(), options=dict(self.app.conf.broker_transport_options))
        while any(d.ready or d.delayed or d.claimed for d in broker.depth(queues).values()):
            if time.monotonic() > deadline:
                os._exit(3)
            time.sleep(0.01)
        if tracer is not None and self.case == "parent":
            (self.folder / "count").write_text(str(tracer.count))
            os._exit(0)
        worker.stop()

    # The lines

    def send(self, queue: str) -> None:
        results = [self.task.apply_async((queue, number), queue=queue) for number in range(self.messages)]
        self.ids[queue] = [result.id for result in results]

    def hit(self, at: int) -> int:
        """Start a worker that is killed at line *at*; 0 or less: none. Return its process."""
        queue = f"line-{at}"
        self.send(queue)
        if self.case == "child":
            return self.fork(lambda: self.with_a_child_that_dies(queue, at))
        tracer = Tracer(BETWEEN, lambda name, value: name == "fetch" and bool(value) and type(value) is list, at)
        return self.fork(lambda: self.worker([queue], tracer))

    def with_a_child_that_dies(self, queue: str, at: int) -> None:
        """The first child that runs a task dies at line *at*, those after it do not."""
        mark, count = self.folder / f"died-{at}", self.folder / "count"
        parent = os.getpid()

        def dies() -> None:
            mark.touch()
            killed()

        def begins_anew() -> None:
            tracer = Tracer(IN_CHILD, None, at, dies)
            if not mark.exists() and os.getppid() != parent:
                tracer.start()
                if at <= 0:
                    threading.Thread(target=counted, args=(tracer,), daemon=True).start()

        def counted(tracer: Tracer) -> None:
            while True:
                new = count.with_suffix(".new")
                new.write_text(str(tracer.count))
                new.rename(count)
                time.sleep(0.01)

        os.register_at_fork(after_in_child=begins_anew)
        self.worker([queue])

    def check(self, at: int) -> list[str]:
        """What is wrong with the messages of one line."""
        queue, problems, lines = f"line-{at}", [], self.lines()
        runs = [lines[f"{queue} {number}"] for number in range(self.messages)]
        if not all(1 <= times <= 2 for times in runs):
            problems.append(f"they ran {runs} times")
        states = [self.app.AsyncResult(each).state for each in self.ids[queue]]
        if states != ["SUCCESS"] * self.messages:
            problems.append(f"their results are {states}")
        depth = self.app.broker.depth([queue])[queue]
        if any((depth.ready, depth.delayed, depth.claimed, depth.parked, depth.dead)):
            problems.append(f"the queue is left with {depth}")
        return [f"{self.case}, killed at line event {at}: {problem}" for problem in problems]

    def run(self) -> dict[str, Any]:
        totals, problems = [], []
        for at in (0, -1, -2):  # of three runs the shortest: what a busy machine adds is lines of waiting
            assert os.waitpid(self.hit(at), 0)[1] == 0, "a worker that nobody kills did not end well"
            problems += self.check(at)
            totals.append(int((self.folder / "count").read_text()))
        total = min(totals)
        stride = max(1, -(-total // self.most))
        points = list(range(1 + self.seed % stride, total + 1, stride))
        hits = 0
        for start in range(0, len(points), BATCH):
            batch = points[start : start + BATCH]
            if self.case == "child":
                statuses = [os.waitpid(pid, 0)[1] for pid in [self.hit(at) for at in batch]]
                hits += sum((self.folder / f"died-{at}").exists() for at in batch)
            else:
                statuses = [os.waitpid(self.hit(at), 0)[1] for at in batch]
                hits += sum(os.WIFSIGNALED(status) for status in statuses)
            assert os.waitpid(self.fork(lambda batch=batch: self.worker([f"line-{at}" for at in batch])), 0)[1] == 0
            problems += [each for at in batch for each in self.check(at)]
        return {"total": total, "points": len(points), "hits": hits, "problems": problems}


class Sending(Points):
    """A producer that is killed at every line of `delay()`."""

    def run(self) -> dict[str, Any]:
        self.app.conf.task_default_queue = "sent"
        total = self.sent(0)
        points = list(range(1 + self.seed % max(1, -(-total // self.most)), total + 1, max(1, -(-total // self.most))))
        problems, hits = [], 0
        for at in points:
            before = self.ready()
            hits += self.sent(at) == 0
            returned, arrived = self.lines()[f"returned {at}"], self.ready() - before
            if arrived not in (0, 1) or (returned and not arrived):
                problems.append(f"delay() killed at line event {at}: returned {returned} times, and {arrived} message(s) arrived")
        known = self.ready()
        assert os.waitpid(self.fork(lambda: self.worker(["sent"])), 0)[1] == 0
        ran = sum(times for line, times in self.lines().items() if line.startswith("sent "))
        if ran != known:
            problems.append(f"{known} messages arrived and {ran} ran")
        return {"total": total, "points": len(points), "hits": hits, "problems": problems}

    def ready(self) -> int:
        return self.app.broker.depth(["sent"])["sent"].ready or 0

    def sent(self, at: int) -> int:
        """Call delay() in a process of its own; return how many lines it had, 0 if it was killed."""
        read, write = os.pipe()

        def produce() -> None:
            tracer = Tracer([""], None, at)
            tracer.start()
            self.task.delay("sent", at)
            tracer.stop()
            self.note(f"returned {at}")
            os.write(write, str(tracer.count).encode())

        pid = self.fork(produce)
        os.close(write)
        with os.fdopen(read) as reader:
            said = reader.read()
        os.waitpid(pid, 0)
        return int(said or 0)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    kind = Sending if arguments["case"] == "delay" else Points
    print(json.dumps(kind(**arguments).run()))
