"""Results in a store of their own, and files that others lock."""

import json
import signal
import sqlite3

import pytest
from tests.faults.conftest import faults_on, goes_by, running_redis
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


@pytest.fixture
def second_redis(tmp_path):
    with running_redis(tmp_path / "second") as server:
        yield server


@pytest.fixture
def apart(private_redis, second_redis, tmp_path):
    return faults_on(private_redis.url, second_redis.url, tmp_path)


@pytest.mark.redis
def test_a_result_store_that_is_down_for_a_while_loses_no_result_and_no_task_is_acknowledged_before(apart, second_redis):
    with apart.worker("-c", "2") as worker:
        apart.send("work.delay(1000).get(timeout=60)")
        second_redis.kill()
        apart.send("for n in range(50): work.apply_async((n,), task_id=f'id-{n}')")
        wait_for(lambda: len(apart.numbers()) == 51, 20, apart.logs)
        assert "ready=0, delayed=0, claimed=50, parked=0, dead=0" in apart.depth()
        goes_by(3)
        assert "ready=0, delayed=0, claimed=50, parked=0, dead=0" in apart.depth()
        second_redis.start()
        wait_for(lambda: apart.depth() == EMPTY, 10, apart.logs)
        said = apart.send("print([app.AsyncResult(f'id-{n}').get(timeout=60) for n in range(50)])")
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert json.loads(said) == list(range(50))
    assert len(apart.lines()) == 52
    warned = [line for line in worker.log().splitlines() if ": WARNING/" in line]
    assert 1 <= len(warned) <= 2, "\n".join(warned)


@pytest.mark.redis
def test_a_result_store_that_is_down_holds_up_no_task_without_a_result(apart, second_redis):
    with apart.worker("-c", "1") as worker:
        worker.waits_to_print("ready.")
        second_redis.kill()
        apart.send("work.delay(1)")
        wait_for(lambda: apart.numbers() == {1}, 20, apart.logs)
        apart.send("quiet.delay_many([((n,), {}) for n in range(2, 30)])")
        wait_for(lambda: "ready=0, delayed=0, claimed=1," in apart.depth(), 10, apart.logs)
        second_redis.start()
        wait_for(lambda: apart.depth() == EMPTY, 10, apart.logs)


@pytest.mark.redis
def test_a_broker_that_freezes_while_results_are_stored_keeps_the_acknowledgements_for_later(apart, private_redis, second_redis):
    """The deadline of the lease passes between the two steps: the message must be acknowledged after the outage, not forgotten."""
    apart.send("begins.delay(1, 1.0)")
    with apart.worker("-c", "1") as worker:
        wait_for(lambda: "begins 1" in apart.lines(), 20, apart.logs)
        second_redis.send(signal.SIGSTOP)
        wait_for(lambda: "1" in apart.lines(), 20, apart.logs)
        private_redis.send(signal.SIGSTOP)
        second_redis.send(signal.SIGCONT)
        goes_by(3)
        private_redis.send(signal.SIGCONT)
        wait_for(lambda: apart.depth() == EMPTY, 10, apart.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert apart.times("begins 1") == 1


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_file_that_another_process_locks_for_a_second_is_waited_for(on_file, tmp_path, pool):
    on_file.send("work.delay_many([((n, 0.01), {}) for n in range(200)])")
    with on_file.worker("-P", pool, "-c", "2") as worker:
        for done in (20, 100):
            wait_for(lambda done=done: len(on_file.numbers()) >= done, 20, on_file.logs)
            with sqlite3.connect(tmp_path / "umbel.sqlite3", isolation_level=None) as other:
                other.execute("BEGIN EXCLUSIVE")
                goes_by(1)
                other.execute("COMMIT")
            other.close()
        wait_for(lambda: len(on_file.numbers()) == 200, 20, on_file.logs)
        wait_for(lambda: on_file.depth() == EMPTY, 5, on_file.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert len(on_file.lines()) == 201
