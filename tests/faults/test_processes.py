"""Every process of a worker is killed, and children that cannot start."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from tests.process.test_killed import children_of
from tests.process.test_worker import alive_in_session
from tests.processes import wait_for

from umbel.pools.zygote import Zygote

pytestmark = pytest.mark.timeout(240)

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


def below(pid: int) -> list[int]:
    """The children of one process, the oldest first."""
    rows = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid=", "--sort=start_time"], text=True).splitlines()]
    return [int(child) for child, parent in rows if int(parent) == pid]


def stop(worker, code=0):
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == code, worker.tail()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_worker_whose_zygote_is_killed_gives_all_back_and_exits_with_an_error(on_file, pool):
    on_file.send("begins.delay(1, 1.0)")
    with on_file.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        os.kill(below(worker.pid)[0], signal.SIGKILL)
        assert worker.exit_code(5) == 1, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "claimed=0" in on_file.depth()
    assert "zygote" in worker.log()
    assert "Traceback" not in worker.log(), worker.tail()
    with on_file.worker("-P", pool, "-c", "2"):
        wait_for(lambda: on_file.numbers() == {1}, 20, on_file.logs)
        wait_for(lambda: on_file.depth() == EMPTY, 5)


def test_a_keeper_that_is_killed_is_started_again(on_file):
    on_file.send("work.delay(1)")
    with on_file.worker("-P", "solo") as worker:
        wait_for(lambda: on_file.numbers() == {1}, 20, on_file.logs)
        old = below(worker.pid)
        assert len(old) == 1
        os.kill(old[0], signal.SIGKILL)
        wait_for(lambda: below(worker.pid) and below(worker.pid) != old, 10, worker.tail)
        on_file.send("holds_the_lock.delay(2, 4)")
        worker.waits_to_print("holds_the_lock")
        with on_file.worker("-c", "1"):  # would take it over if the lease of 1.5 s lapsed
            wait_for(lambda: on_file.numbers() == {1, 2}, 20, on_file.logs)
            wait_for(lambda: on_file.depth() == EMPTY, 5)
        stop(worker)
    assert on_file.times("2") == 1


def test_a_child_killed_while_idle_costs_nothing(on_file):
    with on_file.worker("-c", "1") as worker:
        on_file.send("work.delay(1).get(timeout=60)")
        zygote = below(worker.pid)[0]
        os.kill(below(zygote)[0], signal.SIGKILL)
        assert on_file.send("print(work.delay(2).get(timeout=60))").strip() == "2"
        stop(worker)
    assert on_file.depth() == EMPTY
    assert on_file.lines() == ["ready", "1", "2"]


def test_a_receiver_that_raises_while_a_child_starts_is_logged_and_tasks_run(on_file):
    with on_file.worker("-c", "1", FAULTS_INIT_RAISES="RuntimeError") as worker:
        assert on_file.send("print(work.delay(1).get(timeout=60))").strip() == "1"
        stop(worker)
    assert "the receiver is broken" in worker.log()


def test_children_that_cannot_start_do_not_spin_and_the_worker_still_stops(on_file):
    on_file.send("work.delay(1)")
    with on_file.worker("-c", "1", FAULTS_INIT_RAISES="SystemExit") as worker:
        began = time.monotonic()
        wait_for(lambda: on_file.times("init") >= 3, 20, worker.tail)
        assert time.monotonic() - began > 1.5
        stop(worker)
    assert "exitcode 3" in worker.log()
    assert "died before its first task. Look at what runs at its start: receivers of worker_process_init." in worker.log()
    assert "ready=1, delayed=0, claimed=0" in on_file.depth()


def test_a_child_that_ends_because_of_an_unforeseen_error_leaves_its_traceback_in_the_log(odd):
    odd.send("breaks_the_code_around_it.delay(1)")
    with odd.worker("-c", "1") as worker:
        wait_for(lambda: "dead=1" in odd.depth(), 20, odd.logs)
        stop(worker)
    assert worker.log().count("ends because of an unforeseen error") == odd.times("breaks 1") == 3
    assert worker.log().count("RuntimeError: a fault of ours") == 3


def test_a_zygote_that_does_not_end_is_killed_in_time():
    zygote = Zygote(lambda number: None, [])
    os.kill(zygote.pid, signal.SIGSTOP)
    zygote.close()
    with pytest.raises(ProcessLookupError):
        os.kill(zygote.pid, 0)


def test_two_workers_whose_parents_are_killed_in_turn_lose_nothing(on_file):
    on_file.send("work.delay_many([((n, 0.01), {}) for n in range(400)])")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(on_file.worker("-c", "2")) for _ in range(2)]
        for done in (40, 120, 200, 280):
            wait_for(lambda done=done: len(on_file.numbers()) >= done, 20, on_file.logs)
            running.pop(0).kill()
            running.append(stack.enter_context(on_file.worker("-c", "2")))
        wait_for(lambda: len(on_file.numbers()) == 400, 20, on_file.logs)
        wait_for(lambda: on_file.depth() == EMPTY, 8, on_file.depth)
        for worker in running:
            stop(worker)
    assert [pid for pid in children_of(os.getpid()) if "umbel" in command_of(pid)] == []


def command_of(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_that_holds_the_interpreters_lock_for_a_minute_runs_once(on_file, pool):
    on_file.env["LEDGER_LEASE"] = "10"
    on_file.send("holds_the_lock.delay(1, 60)")
    with on_file.worker("-P", pool, "-c", "2") as first:
        first.waits_to_print("holds_the_lock[")
        with on_file.worker("-c", "1"):  # would take it over if the lease lapsed
            wait_for(lambda: on_file.numbers() == {1}, 100, on_file.logs)
            wait_for(lambda: on_file.depth() == EMPTY, 10, on_file.logs)
        stop(first)
    assert on_file.times("1") == 1
