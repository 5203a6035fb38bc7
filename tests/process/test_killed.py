"""Nothing is lost when processes are killed with -9: an independent ledger says so."""

import contextlib
import os
import random
import signal
import subprocess

import pytest
from tests.processes import wait_for

TASKS = 1000
SEND = "from ledger_app import work; work.delay_many([((n, 0.002), {{}}) for n in range({n})])"


def children_of(pid: int) -> list[int]:
    """All processes below *pid*."""
    rows = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
    found, below = [], {pid}
    while below:
        below = {int(child) for child, parent in rows if int(parent) in below}
        found += below
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_thousand_tasks_all_run_though_workers_are_killed_in_a_loop(ledger, pool):
    ledger.script(SEND.format(n=TASKS))
    chance = random.Random(7)
    for done in range(100, TASKS, 180):
        with ledger.worker("-P", pool, "-c", "2") as worker:
            wait_for(lambda done=done: len(ledger.numbers()) >= done, 40, ledger.logs)
            # The parent, the zygote, a child or the keeper: whichever chance says; then the whole node.
            victim = chance.choice([worker.pid, *children_of(worker.pid)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()
    with ledger.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) == TASKS, 60, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert ledger.numbers() == set(range(TASKS))
    depth = ledger.script("from ledger_app import app; print(app.broker.depth(['celery'])['celery'])")
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=0" in depth


@pytest.mark.timeout(120)
def test_a_killed_child_costs_nobody_else_anything_and_its_task_is_buried_at_the_third_death(ledger):
    ledger.script("from ledger_app import dies, work; dies.delay(1); work.delay_many([((n,), {}) for n in range(200)])")
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) == 200 and ledger.lines().count("dies 1") == 3, 40, ledger.logs)
        wait_for(lambda: "dead=1" in ledger.script("from ledger_app import app; print(app.broker.depth(['celery']))"), 20, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert ledger.lines().count("dies 1") == 3
    assert len([line for line in ledger.lines() if line.isdigit()]) == 200


@pytest.mark.timeout(120)
def test_a_warm_stop_finishes_what_runs_and_gives_the_rest_back(ledger):
    ledger.script("from ledger_app import work; work.delay_many([((n, 0.3), {}) for n in range(20)])")
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) >= 2, 20, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    ran = len(ledger.lines())
    assert ran < 20
    depth = ledger.script("from ledger_app import app; print(app.broker.depth(['celery'])['celery'])")
    assert f"ready={20 - ran}, delayed=0, claimed=0" in depth
    with ledger.worker("-c", "2"):
        wait_for(lambda: len(ledger.numbers()) == 20, 20, ledger.logs)
    assert len(ledger.lines()) == 20
