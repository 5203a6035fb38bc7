"""No task outlives its limits, whatever it does and wherever it runs."""

import json
import signal
from collections import Counter

import pytest
from tests.faults.conftest import Faults
from tests.faults.test_children import stop
from tests.faults.test_evidence import letters
from tests.processes import Running, wait_for

pytestmark = pytest.mark.timeout(240)

POOLS = ["prefork", "threads", "asyncio", "solo"]
HARD = "TimeLimitExceeded(0.3,)"


def start(faults: Faults, *options: str) -> Running:
    return faults.worker(*options, app="limits_app")


def send(faults: Faults, code: str) -> str:
    return faults.script(f"from limits_app import *\n{code}")


def ended(faults: Faults, *ids: str, deadline: float = 20) -> dict[str, list[str]]:
    """The state and the result of each task, once all are ready."""
    asks = f"""
import json
from umbel import states
found = {{id: app.AsyncResult(id) for id in {ids!r}}}
print(json.dumps({{id: [r.state, str(r.result), r.traceback or ''] for id, r in found.items() if r.state in states.READY_STATES}}))
"""

    def all_of_them() -> dict[str, list[str]] | None:
        found = json.loads(send(faults, asks))
        return found if len(found) == len(ids) else None

    return wait_for(all_of_them, deadline, faults.logs)


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_is_told_of_its_soft_limit_and_ended_at_its_hard_one(on_file, pool):
    step = 0.01 if pool in {"threads", "asyncio"} else 60  # a thread in a blocking call hears it afterwards
    send(
        on_file,
        f"""
naps.apply_async((1, 30), dict(step={step}), soft_time_limit=0.2, task_id='naps')
naps_async.apply_async((2, 30), soft_time_limit=0.2, task_id='naps_async')
runs_on.apply_async((3,), soft_time_limit=0.2, task_id='runs_on')
runs_on_async.apply_async((4,), soft_time_limit=0.2, task_id='runs_on_async')
naps.apply_async((5, 0.01), soft_time_limit=30, time_limit=40, task_id='short')
tries_again.apply_async((6,), soft_time_limit=0.2, task_id='again')
runs_on.apply_async((7,), time_limit=0.3, task_id='ended')
runs_on_async.apply_async((8,), time_limit=0.3, task_id='ended_async')
work.apply_async((9,), task_id='after')
""",
    )
    with start(on_file, "-P", pool, "-c", "2") as worker:
        found = ended(on_file, "naps", "naps_async", "runs_on", "runs_on_async", "short", "again", "ended", "ended_async", "after")
        wait_for(lambda: "claimed=0, parked=0, dead=0" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert found["naps"][:2] == found["naps_async"][:2] == ["SUCCESS", "cleaned"]
    assert found["runs_on"][:2] == found["runs_on_async"][:2] == ["FAILURE", "SoftTimeLimitExceeded()"]
    assert found["short"][:2] == ["SUCCESS", "slept"]
    assert found["again"][:2] == ["SUCCESS", "1"], "it has asked for a retry"
    for name in ("naps", "naps_async", "runs_on", "runs_on_async"):
        assert worker.log().count(f"Soft time limit (0.2s) exceeded for limits_app.{name}[{name}]") == 1, worker.tail()
    assert found["ended"][:2] == found["ended_async"][:2] == ["FAILURE", HARD]
    for name, which in (("runs_on", "ended"), ("runs_on_async", "ended_async")):
        assert worker.log().count(f"Hard time limit (0.3s) exceeded for limits_app.{name}[{which}]") == 1, worker.tail()
        assert on_file.times(f"failure {name} {HARD}") == 1
    assert on_file.times("starts 7") == on_file.times("starts 8") == 1


@pytest.mark.parametrize(
    ("pool", "task"),
    [
        ("prefork", "blocks"),
        ("threads", "blocks"),
        ("asyncio", "holds_the_loop"),
        pytest.param("prefork", "holds", marks=pytest.mark.slow),
        pytest.param("prefork", "holds_the_loop", marks=pytest.mark.slow),
        pytest.param("threads", "holds", marks=pytest.mark.slow),
        pytest.param("asyncio", "blocks", marks=pytest.mark.slow),
        pytest.param("asyncio", "ignores_its_end", marks=pytest.mark.slow),
    ],
)
def test_a_blocking_call_does_not_outlive_its_hard_limit(on_file, pool, task):
    send(on_file, f"{task}.apply_async((1,), time_limit=0.3, task_id='blocked'); work.delay_many([((n,), {{}}) for n in range(20)])")
    with start(on_file, "-P", pool, "-c", "2") as worker:
        found = ended(on_file, "blocked")["blocked"]
        wait_for(lambda: on_file.numbers() == set(range(20)), 20, on_file.logs)
        send(on_file, f"{task}.apply_async((2,), time_limit=0.3, task_id='again')")
        assert ended(on_file, "again")["again"][:2] == ["FAILURE", HARD]
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert found[:2] == ["FAILURE", HARD]
    assert on_file.times("starts 1") == on_file.times(f"failure {task} {HARD}") / 2 == 1, "it is not repeated"
    assert task == "ignores_its_end" or f"in {task}" in found[2] or pool == "asyncio", "the result says where it was"


def test_a_loop_that_runs_one_task_at_a_time_ends_functions_as_any_other(on_file):
    send(on_file, "runs_on.apply_async((1,), time_limit=0.3, task_id='limited'); runs_on.apply_async((2,), task_id='revoked')")
    send(on_file, "dies.delay(3)")
    with start(on_file, "-P", "asyncio", "-c", "1") as worker:
        assert ended(on_file, "limited")["limited"][:2] == ["FAILURE", HARD]
        wait_for(lambda: on_file.times("starts 2") == 1, 10, on_file.logs)
        send(on_file, "app.control.revoke('revoked', terminate=True)")
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=1" in on_file.depth(), 20, on_file.logs)
        stop(worker)
    assert on_file.times("starts 1") == on_file.times("starts 2") == 1
    assert on_file.times("dies 3") == 4, "one death that names nobody, and three that are counted"


def test_functions_that_do_not_end_hold_up_no_other_on_a_loop(on_file):
    """The first has its child replaced; that finishes a long task, so the child of the others cannot be replaced, and goes on."""
    send(on_file, "runs_for.apply_async((30,), task_id='long'); blocks.apply_async((1,), time_limit=0.3, task_id='first')")
    with start(on_file, "-P", "asyncio", "-c", "2") as worker:
        ended(on_file, "first")
        send(on_file, "[blocks.apply_async((n,), time_limit=0.3, task_id=f'b{n}') for n in range(2, 6)]")
        ended(on_file, "b2", "b3", "b4", "b5")
        send(on_file, "[work.delay(n).get(timeout=3) for n in range(10, 14)]")
        worker.send(signal.SIGQUIT)
        worker.exit_code()


@pytest.mark.slow
def test_what_runs_beside_threads_that_do_not_end_is_let_finish(on_file):
    send(on_file, "[blocks.apply_async((n,), time_limit=0.3, task_id=f'b{n}') for n in range(3)]; work.apply_async((7, 3), task_id='long')")
    with start(on_file, "-P", "threads", "-c", "4") as worker:
        found = ended(on_file, "b0", "b1", "b2", "long")
        stop(worker)
    assert found["long"][0] == "SUCCESS"
    assert on_file.times("7") == 1


def test_a_thread_that_was_left_with_what_hangs_has_a_successor_that_runs_the_rest(on_file):
    """The slot is held up twice; each time with others behind the one that hangs."""
    send(on_file, "hangs_at.delay_many([((n, -1), {}) for n in range(200)])")
    with start(on_file, "-P", "threads", "-c", "1", "--time-limit", "0.5") as worker:
        wait_for(lambda: len(on_file.numbers()) == 200, 20, on_file.logs)
        send(on_file, "hangs_at.delay_many([((n, 410), {}) for n in range(400, 450)])")
        wait_for(lambda: len(on_file.numbers()) == 249, 20, on_file.logs)
        send(on_file, "hangs_at.delay_many([((n, 510), {}) for n in range(500, 550)])")
        wait_for(lambda: len(on_file.numbers()) == 298, 20, on_file.logs)
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert {line: times for line, times in Counter(on_file.lines()).items() if times > 1} == {"failure hangs_at TimeLimitExceeded(0.5,)": 2}


def test_neighbours_of_a_task_that_hangs_run_once(on_file):
    send(on_file, "hangs_at.delay_many([((n, -1), {}) for n in range(200)])")
    with start(on_file, "-P", "prefork", "-c", "2", "--time-limit", "0.5") as worker:
        wait_for(lambda: len(on_file.numbers()) == 200, 20, on_file.logs)
        send(on_file, "hangs_at.delay_many([((n, 450), {}) for n in range(400, 600)])")
        wait_for(lambda: len(on_file.numbers()) == 399, 20, on_file.logs)
        wait_for(lambda: "ready=0, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert {line: times for line, times in Counter(on_file.lines()).items() if times > 1} == {}
    assert on_file.times("starts 450") == 1
    assert "Hard time limit (0.5s) exceeded" in worker.log()


def test_a_task_that_wants_its_time_outs_kept_is_kept_as_a_dead_letter(on_file):
    send(on_file, "blocks.apply_async((1,), time_limit=0.3, task_id='kept')")
    with start(on_file, "-P", "prefork", "-c", "1", "--", "task_acks_on_failure_or_timeout=false") as worker:
        assert ended(on_file, "kept")["kept"][:2] == ["FAILURE", HARD]
        wait_for(lambda: "dead=1" in on_file.depth(), 10, on_file.depth)
        stop(worker)
    assert letters(on_file) == ["failed: TimeLimitExceeded(0.3)"]


def test_what_must_not_be_repeated_is_not_when_its_child_is_ended_for_another_task(on_file):
    """Both run in threads of one child. The one with a limit holds the interpreter's lock, so the child must go."""
    send(on_file, "early.apply_async((1, 30), task_id='once'); blocks.delay(2)")
    with start(on_file, "-P", "threads", "-c", "3") as worker:
        wait_for(lambda: on_file.times("started 1") == on_file.times("starts 2") == 1, 20, on_file.logs)
        send(on_file, "holds.apply_async((3,), time_limit=0.3, task_id='holds')")
        found = ended(on_file, "once", "holds")
        wait_for(lambda: on_file.times("starts 2") == 2, 20, on_file.logs)
        worker.send(signal.SIGQUIT)
        worker.exit_code()
    assert found["holds"][:2] == ["FAILURE", HARD]
    assert found["once"][0] == "FAILURE"
    assert "Worker exited prematurely" in found["once"][1]
    assert on_file.times("started 1") == 1


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_a_thread_that_comes_back_after_its_task_was_ended_says_nothing_of_it_any_more(on_file, pool):
    send(on_file, "work.apply_async((1, 2.5), time_limit=0.3, task_id='late'); runs_for.apply_async((4,), task_id='long')")
    with start(on_file, "-P", pool, "-c", "2") as worker:
        found = ended(on_file, "late", "long")  # which keeps the process of the first alive
        stop(worker)
        said = [line for line in worker.log().splitlines() if "late" in line or "TimeLimitExceeded" in line]
    assert (found["late"][:2], found["long"][0]) == (["FAILURE", HARD], "SUCCESS")
    assert "Hard time limit (0.3s) exceeded" in "\n".join(said)
    assert sum("Hard time limit" in line for line in said) == 1, said
    assert "Nones" not in worker.log()
