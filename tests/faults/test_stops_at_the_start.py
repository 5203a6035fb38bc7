"""A worker is told to stop before it is ready."""

import signal

import pytest
from tests.faults.conftest import goes_by
from tests.process.test_worker import alive_in_session
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)

POOLS = ["prefork", "threads", "asyncio", "solo"]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_the_app_is_loaded_ends_the_worker(on_file, pool, number):
    with on_file.worker("-P", pool, FAULTS_SLOW_START="30") as worker:
        wait_for(lambda: "starting" in on_file.lines(), 20, on_file.logs)
        worker.send(number)
        worker.exit_code(5)
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "ready" not in on_file.lines()


@pytest.mark.parametrize("pool", POOLS)
def test_a_signal_at_any_moment_of_the_start_ends_the_worker(on_file, pool):
    """Sent a little later each time: between the first line of the banner and long after `ready`."""
    for delay in range(8):
        with on_file.worker("-P", pool, "-c", "1") as worker:
            worker.waits_to_print("[queues]")
            goes_by(delay * 0.012)
            worker.send(signal.SIGTERM)
            code = worker.exit_code(5)
            wait_for(lambda worker=worker: not alive_in_session(worker.pid), 3)
        assert code in {0, -signal.SIGTERM}, worker.tail()
        assert "Traceback" not in worker.log(), worker.tail()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_that_waits_for_its_broker_at_the_start_can_be_stopped(on_file, pool):
    on_file.env["LEDGER_BROKER"] = "redis://127.0.0.1:1/0"
    with on_file.worker("-P", pool, "-c", "1") as worker:
        worker.waits_to_print("Trying again in")
        worker.send(signal.SIGTERM)
        assert worker.exit_code(5) == 0, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "Traceback" not in worker.log(), worker.tail()


def test_a_worker_that_shall_not_wait_for_its_broker_says_so_and_exits_with_69(on_file):
    on_file.env["LEDGER_BROKER"] = "redis://127.0.0.1:1/0"
    with on_file.worker("-c", "1", FAULTS_RETRY="0") as worker:
        assert worker.exit_code(10) == 69, worker.tail()
    assert "does not answer" in worker.log()
    assert worker.log().count("Traceback") == 0, worker.tail()
