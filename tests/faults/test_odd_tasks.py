"""Tasks that fork, start threads, or run for longer than a lease."""

import signal

import pytest
from tests.process.test_worker import alive_in_session
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


def stop(worker, code=0):
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == code, worker.tail()


FORKS = [(pool, task) for pool in ("prefork", "threads", "solo") for task in ("forks", "forks_and_returns", "has_a_handler_that_forks")]
FORKS += [(pool, task) for pool in ("prefork", "asyncio", "solo") for task in ("forks_and_returns_from_a_coroutine", "forks_and_awaits")]


@pytest.mark.parametrize(("pool", "task"), [*FORKS, ("asyncio", "forks_and_returns")])
def test_the_copy_that_a_task_forks_tells_nothing_and_runs_nothing(on_file, pool, task):
    with on_file.worker("-P", pool, "-c", "1") as worker:
        said = on_file.send(
            f"print([{task}.delay(n).get(timeout=60) for n in range(5)], [work.delay(n).get(timeout=60) for n in range(5, 20)])"
        )
        stop(worker)
        left = [pid for pid in alive_in_session(worker.pid) if pid]
    assert said.strip() == f"{list(range(5))} {list(range(5, 20))}"
    assert on_file.depth() == EMPTY
    assert left == []


def test_the_copy_that_a_coroutine_forks_runs_nothing_of_those_beside_it(on_file):
    with on_file.worker("-P", "asyncio", "-c", "4") as worker:
        said = on_file.send(
            "beside = [ticks.delay(n, 20_000) for n in range(3)]\n"
            "print([forks_and_awaits.delay(n).get(timeout=60) for n in range(5)], [r.get(timeout=60) for r in beside])"
        )
        stop(worker)
    assert said.strip() == "[0, 1, 2, 3, 4] [0, 1, 2]"
    assert on_file.times("ticks in a copy") == on_file.times("-1") == 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_task_may_start_processes_and_end_them(on_file, pool):
    with on_file.worker("-P", pool, "-c", "2") as worker:
        assert on_file.send("print(starts_processes.delay(1).get(timeout=60))").strip() == "[1, -15, 1, 2, 3, 4]"
        assert on_file.send("print(work.delay(2).get(timeout=60))").strip() == "2"
        stop(worker)


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_signal_that_reaches_a_copy_before_anything_of_it_has_run_still_ends_it(on_file, pool):
    with on_file.worker("-P", pool, "-c", "2") as worker:
        said = on_file.send(
            "print([forks_what_is_told_to_end_at_once.delay(n).get(timeout=60) for n in (15, 2)], work.delay(2).get(timeout=60))"
        )
        stop(worker)
    assert said.strip() == "[-15, -2] 2"


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])  # solo is a program like any other: it waits for its threads
def test_a_task_may_start_threads_and_programs_and_the_worker_still_stops(on_file, pool):
    with on_file.worker("-P", pool, "-c", "1") as worker:
        assert on_file.send("print(starts_things.delay(1).get(timeout=60))").strip() == "from a program"
        worker.send(signal.SIGTERM)
        assert worker.exit_code(5) == 0, worker.tail()


@pytest.mark.parametrize(("pool", "task"), [("prefork", "begins"), ("asyncio", "begins_async"), ("asyncio", "begins"), ("solo", "begins")])
def test_a_task_of_three_leases_runs_once_though_another_worker_waits(on_file, pool, task):
    on_file.send(f"{task}.delay(1, 4.5)")
    with on_file.worker("-P", pool, "-c", "1") as first:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        with on_file.worker("-c", "1") as second:
            wait_for(lambda: on_file.numbers() == {1}, 20, on_file.logs)
            wait_for(lambda: on_file.depth() == EMPTY, 5)
            stop(second)
        stop(first)
    assert on_file.times("begins 1") == 1


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_whatever_a_coroutine_raises_is_a_failure_and_its_slot_goes_on(on_file, pool):
    with on_file.worker("-P", pool, "-c", "1") as worker:
        said = on_file.send(
            "for what in ('exit', 'interrupt', 'odd', 'group'):\n"
            "    r = raises_async.delay(what); r.get(timeout=60, propagate=False)\n"
            "    print(r.state, type(r.result).__name__)\n"
            "for options in ({}, {'time_limit': 30}):\n"
            "    r = cancels_itself.apply_async((), **options); r.get(timeout=60, propagate=False)\n"
            "    print(r.state, type(r.result).__name__)\n"
            "print(begins_async.delay(1, 0).get(timeout=60))"
        )
        stop(worker)
    names = ["SystemExit", "KeyboardInterrupt", "OddError", "BaseExceptionGroup", "CancelledError", "CancelledError"]
    assert said.splitlines() == [*(f"FAILURE {name}" for name in names), "1"]
    assert on_file.depth() == EMPTY


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_a_coroutine_leaves_on_the_loop_and_then_exits_does_not_stop_the_loop(on_file, pool):
    with on_file.worker("-P", pool, "-c", "1") as worker:
        said = on_file.send("print([leaves_behind_what_exits.delay(n).get(timeout=60) for n in range(3)])")
        worker.waits_to_print("The loop goes on.")
        stop(worker)
    assert said.strip() == "[0, 1, 2]"
    assert on_file.depth() == EMPTY


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_a_handler_that_exits_ends_no_process_and_the_log_says_where_it_was(on_file, pool):
    with on_file.worker("-P", pool, "-c", "1") as worker:
        said = on_file.send(
            "for number in (0, 1):\n"
            "    r = has_handlers_that_exit.delay(number); r.get(timeout=60, propagate=False)\n"
            "    print(r.state, repr(r.result))\n"
            "has_handlers_that_exit.delay(2); print(work.delay(3).get(timeout=60))"
        )
        wait_for(lambda: on_file.depth() == EMPTY.replace("dead=0", "dead=1"), 20, on_file.logs)
        for handler in ("on_success", "on_failure", "on_retry"):
            worker.waits_to_print(f"SystemExit: {handler} exits")
        stop(worker)
    assert said.splitlines() == ["SUCCESS 0", "FAILURE ValueError(1)", "3"]
    assert "exited with" not in worker.log(), worker.tail()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_an_error_whose_text_no_file_can_hold_is_kept_and_ends_no_process(on_file, pool):
    with on_file.worker("-P", pool, "-c", "3") as worker:
        on_file.send("fails_with_half_a_surrogate_pair.delay(); print([work.delay(n).get(timeout=60) for n in range(8)])")
        wait_for(lambda: on_file.depth() == EMPTY.replace("dead=0", "dead=1"), 10, on_file.depth)
        stop(worker)
    assert "unforeseen" not in worker.log(), worker.tail()
    assert "Exception in callback" not in worker.log(), worker.tail()
    assert sorted(on_file.numbers()) == list(range(8))
    assert "\\udc80" in on_file.send("print(app.broker.dead('celery')[0].evidence.traceback)")
