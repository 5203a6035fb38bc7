"""Children are replaced after so many tasks or so much memory, and nobody who waits for a task notices."""

import os
import signal
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from tests.faults.conftest import Faults
from tests.faults.test_children import below, stop
from tests.faults.test_limits import send, start
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)


def runs(faults: Faults) -> list[tuple[int, int, float, float]]:
    """Number, process, begin and end of each run."""
    rows = [line.split() for line in faults.lines() if not line.startswith("failure")]
    return [(int(number), int(pid), float(began), float(ended)) for number, pid, began, ended in rows]


def finish(faults: Faults, count: int) -> list[tuple[int, int, float, float]]:
    wait_for(lambda: len({number for number, *_ in runs(faults)}) == count, 30, faults.logs)
    wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=0" in faults.depth(), 10, faults.depth)
    return runs(faults)


def assert_each_ran_once(found: list[tuple[int, int, float, float]], count: int) -> None:
    assert Counter(number for number, *_ in found) == dict.fromkeys(range(count), 1)


def test_a_process_runs_exactly_as_many_tasks_as_it_may_and_one_at_a_time(on_file):
    send(on_file, "which_process.delay_many([((n,), {}) for n in range(300)])")
    with start(on_file, "-P", "prefork", "-c", "1", "--max-tasks-per-child", "25") as worker:
        found = finish(on_file, 300)
        stop(worker)
    assert_each_ran_once(found, 300)
    assert set(Counter(pid for _, pid, *_ in found).values()) == {25}
    spans = sorted((began, ended) for *_, began, ended in found)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans)), "two children of one place never run beside each other"
    assert "exited with" not in worker.log()


@pytest.mark.slow
def test_one_task_for_each_process(on_file):
    send(on_file, "which_process.delay_many([((n,), {}) for n in range(20)])")
    with start(on_file, "-P", "prefork", "-c", "2", "--max-tasks-per-child", "1") as worker:
        found = finish(on_file, 20)
        stop(worker)
    assert len({pid for _, pid, *_ in found}) == len(found) == 20


def test_the_next_process_is_up_before_the_last_one_leaves(on_file):
    """All are seen alive together with the one before, and the next task begins at once."""
    send(on_file, "which_process.delay_many([((n, 0.05), {}) for n in range(40)])")
    with start(on_file, "-P", "prefork", "-c", "1", "--max-tasks-per-child", "4") as worker:
        worker.waits_to_print("ready.")
        zygote, seen = below(worker.pid)[0], []

        def done() -> bool:
            seen.append(frozenset(below(zygote)))
            return len(on_file.lines()) == 40

        wait_for(done, 30, on_file.logs)
        found = finish(on_file, 40)
        stop(worker)
    first = next(i for i, pids in enumerate(seen) if pids)
    assert all(seen[first:]), "at every moment there was a child"
    assert any(len(pids) > 1 for pids in seen)
    gaps = {}
    for (_, pid, _, ended), (_, next_pid, began, _) in pairwise(sorted(found, key=lambda run: run[2])):
        gaps.setdefault(pid == next_pid, []).append(began - ended)
    print(f"longest pause between two tasks of one process {max(gaps[True]):.3f} s, between two processes {max(gaps[False]):.3f} s")
    assert min(gaps[False]) < 0.05, "a fork takes longer"


@pytest.mark.parametrize("pool", ["threads", pytest.param("asyncio", marks=pytest.mark.slow)])
def test_the_one_child_of_many_slots_is_replaced_too(on_file, pool):
    send(on_file, "which_process.delay_many([((n, 0.005), {}) for n in range(400)])")
    with start(on_file, "-P", pool, "-c", "4", "--max-tasks-per-child", "50") as worker:
        found = finish(on_file, 400)
        stop(worker)
    assert_each_ran_once(found, 400)
    assert len({pid for _, pid, *_ in found}) >= 4
    assert "exited with" not in worker.log()


@pytest.mark.parametrize(
    "pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow), pytest.param("asyncio", marks=pytest.mark.slow)]
)
def test_a_process_that_has_held_too_much_memory_is_replaced(on_file, pool):
    send(on_file, "which_process.delay_many([((n, 0.0, 300 if n % 10 == 5 else 0), {}) for n in range(40)])")
    with start(on_file, "-P", pool, "-c", "1", "--max-memory-per-child", "250000") as worker:
        found = finish(on_file, 40)
        stop(worker)
    assert_each_ran_once(found, 40)
    of_process = defaultdict(list)
    for number, pid, *_ in sorted(found, key=lambda run: run[2]):
        of_process[pid].append(number)
    assert 2 <= len(of_process) <= 5
    assert "exited with" not in worker.log()


@pytest.mark.slow
def test_a_long_task_is_finished_by_the_process_that_leaves(on_file):
    send(on_file, "which_process.delay(0, 1.5); which_process.delay_many([((n, 0.01), {}) for n in range(1, 101)])")
    with start(on_file, "-P", "threads", "-c", "2", "--max-tasks-per-child", "20") as worker:
        found = finish(on_file, 101)
        stop(worker)
    assert_each_ran_once(found, 101)
    long = next(run for run in found if run[0] == 0)
    beside = {pid for _, pid, began, _ in found if long[2] < began < long[3]}
    assert len(beside) >= 2, "others have run in the next process meanwhile"


def test_a_process_that_is_killed_while_it_leaves_costs_only_what_it_ran(on_file):
    send(on_file, "which_process.apply_async((0, 3.0), task_id='long'); which_process.delay_many([((n, 0.01), {}) for n in range(1, 61)])")
    with start(on_file, "-P", "threads", "-c", "2", "--max-tasks-per-child", "20") as worker:
        worker.waits_to_print("ready.")
        wait_for(lambda: len({pid for _, pid, *_ in runs(on_file)}) > 1, 20, on_file.logs)
        os.kill(below(below(worker.pid)[0])[0], signal.SIGKILL)  # the oldest, which runs the long one
        found = finish(on_file, 61)
        stop(worker)
    assert_each_ran_once(found, 61)
