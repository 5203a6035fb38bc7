"""Every way to stop a worker that runs tasks."""

import os
import re
import signal

import pytest
from tests.faults.conftest import goes_by
from tests.process.test_worker import alive_in_session
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)

POOLS = ["prefork", "threads", "asyncio", "solo"]


@pytest.mark.parametrize("pool", POOLS)
def test_one_interrupt_is_a_warm_stop_with_exit_code_1(on_file, pool):
    on_file.send("begins.delay(1, 1.0); work.delay_many([((n, 0.5), {}) for n in range(2, 9)])")
    with on_file.worker("-P", pool, "-c", "1") as worker:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        os.killpg(worker.pid, signal.SIGINT)  # as the terminal does: the whole group hears it
        assert worker.exit_code(10) == 1, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "1" in on_file.lines()
    assert "Hitting Ctrl+C again will initiate cold shutdown" in worker.log()
    assert re.search(r"The stop waits for 1 task\(s\): \w+\.begins\[[-0-9a-f]{36}\]\.\n", worker.log()), worker.tail()
    assert "Traceback" not in worker.log(), worker.tail()
    assert "claimed=0, parked=0, dead=0" in on_file.depth()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGQUIT,)])
def test_a_cold_stop_gives_what_runs_back_and_the_next_worker_runs_it(on_file, pool, signals):
    on_file.send("begins.delay(1, 30)" if pool != "asyncio" else "begins_async.delay(1, 30)")
    with on_file.worker("-P", pool, "-c", "1") as worker:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        for number, said in zip(signals, ("Warm shutdown", "Cold shutdown"), strict=False):
            worker.send(number)
            worker.waits_to_print(said if len(signals) == 2 else "Cold shutdown")
            goes_by(0.3)  # what comes sooner is an echo of the first
        assert worker.exit_code(5) == (1 if len(signals) == 2 else 0), worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "Traceback" not in worker.log(), worker.tail()
    assert re.search(r"1 task\(s\) still ran\. .* no attempt is lost: \w+\.begins\w*\[[-0-9a-f]{36}\]\.\n", worker.log()), worker.tail()
    assert "ready=1, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth()
    with on_file.worker("-P", pool, "-c", "1") as second:
        wait_for(lambda: on_file.times("begins 1") == 2, 20, on_file.logs)
        second.kill()
