"""Children are killed again and again, by us and by their tasks."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter

import pytest
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)


def below(pid: int) -> list[int]:
    """The children of one process, the oldest first."""
    rows = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid=", "--sort=start_time"], text=True).splitlines()]
    return [int(child) for child, parent in rows if int(parent) == pid]


def stop(worker, code=0):
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == code, worker.tail()


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 4), ("threads", 4), ("asyncio", 4)])
def test_children_killed_in_a_loop_lose_no_task(on_file, pool, concurrency):
    name = "work" if pool != "asyncio" else "begins_async"
    on_file.send(f"{name}.delay_many([((n, 0.02), {{}}) for n in range(300)])")
    with on_file.worker("-P", pool, "-c", str(concurrency)) as worker:
        worker.waits_to_print("ready.")
        zygote = below(worker.pid)[0]
        kills, last = 0, time.monotonic()
        most = 24 if pool == "prefork" else 3  # of the one child of the others: the fourth could bury the task that runs alone

        def done() -> bool:
            nonlocal kills, last
            if time.monotonic() - last > 0.1 and kills < most:
                for child in below(zygote)[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                    kills += 1
                last = time.monotonic()
            return len(on_file.numbers()) == 300

        wait_for(done, 30, on_file.logs)
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert on_file.numbers() == set(range(300))
    assert kills >= 3
    repeated = sum(times - 1 for line, times in Counter(on_file.lines()).items() if line.isdigit())
    assert repeated <= kills * concurrency, "what was noted and not yet told may run again; nothing else"


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_a_task_that_always_kills_its_child_is_buried_though_others_share_the_child(on_file, pool):
    on_file.send("dies.delay(1); work.delay_many([((n,), {}) for n in range(20)])")
    with on_file.worker("-P", pool, "-c", "4") as worker:
        wait_for(lambda: "dead=1" in on_file.depth() and on_file.numbers() == set(range(20)), 25, on_file.logs)
        stop(worker)
    assert on_file.times("dies 1") <= 4, "one death that names nobody, and three that are counted"
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=1" in on_file.depth()
