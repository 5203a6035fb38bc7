"""The broker is gone or frozen for longer than the lease: nothing is lost, and nothing runs twice."""

import contextlib
import signal
from collections import Counter

import pytest
from tests.faults.conftest import goes_by
from tests.processes import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

SEND = "work.delay_many([((n, {seconds}), {{}}) for n in range({count})])"
EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


def warnings_in(log: str) -> list[str]:
    return [line for line in log.splitlines() if ": WARNING/" in line or ": ERROR/" in line]


def test_a_redis_killed_in_the_middle_loses_nothing_and_costs_one_warning(direct, private_redis):
    direct.send(SEND.format(seconds=0.004, count=500))
    with direct.worker("-c", "2") as worker:
        wait_for(lambda: len(direct.numbers()) >= 100, 20, direct.logs)
        private_redis.kill()
        goes_by(4)
        private_redis.start()
        wait_for(lambda: len(direct.numbers()) == 500, 20, direct.logs)
        wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert {n: times for n, times in Counter(direct.lines()).items() if times > 1} == {}
    said = warnings_in(worker.log())
    assert len(said) == 1, "\n".join(said)
    assert "onnected to the broker again" in worker.log()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_outage_longer_than_the_lease_makes_nothing_run_twice(direct, private_redis, workers):
    """The server is stopped, not ended: what was sent to it is carried out late, when it goes on."""
    direct.send("for n in range(4): begins.delay(n, 7.0)")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(direct.worker("-c", str(4 // workers))) for _ in range(workers)]
        wait_for(lambda: sum(line.startswith("begins") for line in direct.lines()) == 4, 20, direct.logs)
        goes_by(2.5)  # from now on each looks for dead owners, once a second
        private_redis.send(signal.SIGSTOP)
        goes_by(3)  # the lease is 1.5 s
        private_redis.send(signal.SIGCONT)
        wait_for(lambda: len(direct.numbers()) == 4, 20, direct.logs)
        wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
        for worker in running:
            worker.send(signal.SIGTERM)
            assert worker.exit_code() == 0, worker.tail()
    assert {n: times for n, times in Counter(direct.lines()).items() if times > 1 and n != "ready"} == {}
    assert "Recovered" not in direct.logs()


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_a_half_open_connection_makes_nothing_run_twice(direct, behind, proxy, direction):
    direct.send("[begins.delay(n, 5.0) for n in range(2)]")
    with behind.worker("-c", "2") as worker:
        wait_for(lambda: len(behind.lines()) == 3, 20, behind.logs)
        proxy.freeze(**{"requests": True, "replies": True, direction: False})
        goes_by(3)
        proxy.thaw()
        wait_for(lambda: len(behind.numbers()) == 2, 20, behind.logs)
        wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert len(behind.lines()) == 5


def test_a_worker_told_to_stop_while_the_broker_is_away_stops(direct, behind, proxy):
    direct.send("begins.delay(1, 1.0)")
    with behind.worker("-c", "1") as worker:
        wait_for(lambda: "begins 1" in behind.lines(), 20, behind.logs)
        proxy.refuse(True)
        proxy.cut()
        wait_for(lambda: "1" in behind.lines(), 20, behind.logs)
        worker.send(signal.SIGTERM)
        worker.exit_code(12)
    assert "Traceback" not in worker.log(), worker.tail()
