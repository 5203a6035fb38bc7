"""Kills a scheduler at every line of a round in which a run is due; another carries out that round, and both runs are counted.

    python -m tests.faultpoints.rounds '{"broker": ..., "store": ..., "most": 20, "seed": 1}'

Each line has a schedule of its own. Both schedulers lead, as if the second had waited for the end of the first one's lease. At the end all
messages are read, and bound as workers bind them. It prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faultpoints.tracer import Tracer

from umbel import Umbel
from umbel.beat.scheduler import LeaseScheduler
from umbel.drivers import open_backend, open_leases, open_schedule_store
from umbel.ids import uuid
from umbel.wire.message import decode

SENDING = ["beat", "publish.py", "attempts.py", "canvas", "drivers"]
SLOT = 1774753200.0  # 2026-03-29T03:00:00Z


class Rounds:
    """One run."""

    def __init__(self, *, broker: str, store: str, most: int, seed: int) -> None:
        self.store, self.most, self.seed, self.doubled = store, most, seed, 0
        self.app = app = Umbel("rounds", broker=broker, backend=store, set_as_current=True)
        app.conf.task_default_queue = self.queue = f"rounds-{uuid()[:8]}"
        self.report = Path(tempfile.mkdtemp()) / "lines"

        @app.task(name="done")
        def done() -> None: ...

        self.link = done.si()

    def schedule(self, line: int) -> Any:
        return open_schedule_store(self.store, name=f"{self.queue} {line}")

    def round(self, line: int, tracer: Tracer | None = None) -> None:
        """Be a scheduler for one round, in a process of its own."""
        said = {"task": "done", "schedule": 3600, "last_run_at": SLOT - 3600, "max_runs": 1}
        entries = {f"plain {line}": said, f"linked {line}": {**said, "options": {"link": self.link}}}
        leases = open_leases(f"memory://{uuid()}")
        scheduler = LeaseScheduler(self.app, leases=leases, store=self.schedule(line), configured=entries, holder=uuid())
        if tracer is None:
            scheduler.round()
            return
        tracer.start()
        scheduler.round()
        tracer.stop()
        self.report.write_text(str(tracer.count))

    def fork(self, live: Callable[[], None]) -> int:
        """Run *live* in a process, and return how it ended."""
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
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def run(self) -> dict[str, Any]:
        assert self.fork(lambda: self.round(0, Tracer(SENDING, None, 0))) == 0
        total = int(self.report.read_text())
        lines = list(range(1, total + 1))
        lines = sorted(random.Random(self.seed).sample(lines, min(self.most, total)))
        problems, hits = [], 0
        for line in lines:
            hits += self.fork(lambda line=line: self.round(line, Tracer(SENDING, None, line))) == -9
            if self.fork(lambda line=line: self.round(line)) != 0:
                problems.append(f"killed at line event {line}: the second scheduler failed")
        return {"total": total, "points": len(lines), "hits": hits, "problems": problems + self.counted(lines), "doubled": self.doubled}

    def counted(self, lines: list[int]) -> list[str]:
        """Say which runs have not started once."""
        messages: dict[str, list[Any]] = defaultdict(list)
        self.app.broker.join("reader", [self.queue], lease=3600)
        seq = 0
        while self.app.broker.depth([self.queue])[self.queue].ready:
            seq += 1
            for each in self.app.broker.fetch(self.queue, 500, owner="reader", seq=seq):
                headers = decode(each.raw).headers
                messages[headers["umbel_slot"].partition("@")[0]].append(headers)
        self.doubled = sum(len(each) > 1 for each in messages.values())
        with_results = open_backend(self.store)
        problems = []
        for line in lines:
            states = self.schedule(line).states([f"plain {line}", f"linked {line}"])
            for name in (f"plain {line}", f"linked {line}"):
                found = messages[name]
                copies = [tuple(each["umbel_copy"].split(" ")) for each in found if "umbel_copy" in each]
                started = sum(with_results.bind(copies, expires=3600)) if copies else len(found)
                ids = Counter(each["id"] for each in found)
                if started != 1 or len(ids) != 1 or states[name].runs != 1:
                    problems.append(f"killed at line event {line}: {name} has started {started} times, ids {ids}, {states[name]}")
        self.app.close()
        return problems


if __name__ == "__main__":
    print(json.dumps(Rounds(**json.loads(sys.argv[1])).run()))
