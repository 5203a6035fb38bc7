"""Nothing is lost when processes are killed with -9: an independent ledger says so."""

import ast
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


EMPTY = "ready=0, delayed=0, claimed=0, parked=0, dead=0"


def finish(ledger, count, *options):
    """Let one worker after the other run until nothing is left: what the killed ones had finished may come again, and be given back."""

    def nothing_is_left():
        depth = ledger.script("from ledger_app import app; print(app.broker.depth(['celery'])['celery'])")
        return len(ledger.numbers()) == count and EMPTY in depth.replace("None", "0")  # not known

    for _ in range(3):
        with ledger.worker(*options, "-c", "2") as worker:
            wait_for(nothing_is_left, 60, ledger.logs)
            worker.send(signal.SIGTERM)
            assert worker.exit_code() == 0, worker.tail()
        if nothing_is_left():
            return
    raise AssertionError(f"three workers left something behind\n{ledger.logs()}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_thousand_tasks_all_run_though_workers_are_killed_in_a_loop(ledger, pool):
    ledger.script(SEND.format(n=TASKS))
    chance = random.Random(7)
    for done in range(100, TASKS, 300):
        with ledger.worker("-P", pool, "-c", "2") as worker:
            wait_for(lambda done=done: len(ledger.numbers()) >= done, 40, ledger.logs)
            # The parent, the zygote, a child or the keeper: whichever chance says; then the whole node.
            victim = chance.choice([worker.pid, *children_of(worker.pid)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()
    finish(ledger, TASKS, "-P", pool)
    assert ledger.numbers() == set(range(TASKS))


@pytest.mark.timeout(300)
def test_a_killed_child_costs_nobody_else_anything_and_its_task_is_buried_at_the_third_death(ledger):
    ledger.script("from ledger_app import dies, work; dies.delay(1); work.delay_many([((n,), {}) for n in range(200)])")
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) == 200 and ledger.lines().count("dies 1") == 3, 40, ledger.logs)
        wait_for(lambda: "dead=1" in ledger.script("from ledger_app import app; print(app.broker.depth(['celery']))"), 20, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert ledger.lines().count("dies 1") == 3
    assert len([line for line in ledger.lines() if line.isdigit()]) == 200


@pytest.mark.timeout(300)
def test_a_warm_stop_finishes_what_runs_and_gives_the_rest_back(ledger):
    ledger.script("from ledger_app import work; work.delay_many([((n, 0.3), {}) for n in range(20)])")
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: len(ledger.numbers()) >= 2, 20, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    ran = len(ledger.lines())
    assert ran < 20
    depth = ledger.script("from ledger_app import app; print(app.broker.depth(['celery'])['celery'])")
    assert f"ready={20 - ran}, delayed=0, claimed=0" in depth.replace("None", "0")
    with ledger.worker("-c", "2"):
        wait_for(lambda: len(ledger.numbers()) == 20, 20, ledger.logs)
    assert len(ledger.lines()) == 20


MANY = 3000
COUNTS = """
from collections import Counter
from ledger_app import app
from umbel.tally import rows_of
total = Counter()
for row in rows_of({"celery": app.broker.tallies("celery", since=0)}):
    total.update({f"{row.task} {end}": count for end, count in row.ends.items()})
print(dict(total))
"""


def counted(ledger):
    """How often each task came to which end."""
    found = ast.literal_eval(ledger.script(COUNTS))
    return {name.removeprefix("ledger_app."): count for name, count in found.items()}


@pytest.mark.timeout(400)
def test_what_succeeded_is_counted_once_each_though_workers_are_killed_in_a_loop(ledger):
    ledger.script(SEND.format(n=MANY).replace("0.002", "0.0"))
    for done in range(200, MANY, 700):
        with ledger.worker("-c", "2") as worker:
            wait_for(lambda done=done: len(ledger.numbers()) >= done, 40, ledger.logs)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()
    finish(ledger, MANY)
    counts = counted(ledger)
    succeeded = counts.pop("work SUCCESS")
    # RabbitMQ moves no message in one step: of one whose start was being marked there may be two. And its counts are in another store: what
    # was acknowledged just before a worker was killed is not counted.
    assert succeeded == MANY or ("amqp" in ledger.env["LEDGER_BROKER"] and abs(succeeded - MANY) < MANY * 0.1)
    # RabbitMQ knows no starts; what a dead node had is counted from its next start on, and that one may have been its last.
    assert counts.pop("work LOST", 0) > 0 or "amqp" in ledger.env["LEDGER_BROKER"]
    assert not counts


@pytest.mark.timeout(300)
def test_every_way_to_end_is_counted(ledger):
    ledger.script(
        "from ledger_app import dies, early, flaky, prints, raises, work\n"
        "dies.delay(1); early.delay(2, 0.0); flaky.delay(3, 2); raises.delay('why'); work.delay(4)\n"
        "work.apply_async((5,), expires=-1)"
    )
    wanted = {
        "dies LOST": 2, "dies FAILURE": 1, "early STARTED": 1, "flaky RETRY": 2, "flaky SUCCESS": 1, "raises FAILURE": 1,
        "work SUCCESS": 1, "work REVOKED": 1,
    }  # fmt: skip
    with ledger.worker("-c", "2") as worker:
        wait_for(lambda: counted(ledger) == wanted, 40, lambda: f"{counted(ledger)} {ledger.logs()}")
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert counted(ledger) == wanted


def test_a_worker_that_is_told_so_counts_nothing(ledger):
    ledger.env["UMBEL_TASK_COUNTERS"] = "0"
    ledger.script("from ledger_app import early, work; work.delay(1); early.delay(2, 0.0)")
    with ledger.worker("-c", "1") as worker:
        wait_for(lambda: ledger.numbers() == {1, 2}, 20, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert counted(ledger) == {}
