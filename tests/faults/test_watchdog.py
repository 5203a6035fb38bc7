"""A worker that hangs ends itself, and one that only has nothing to do, or cannot do it now, goes on."""

import os
import signal

import pytest
from tests.faults.conftest import goes_by
from tests.process.test_worker import alive_in_session
from tests.processes import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

WATCHED = ["--", "worker_watchdog_timeout=2", "worker_lease=30"]


@pytest.mark.parametrize(("pool", "where"), [("prefork", "claim"), ("threads", "loop"), ("solo", "loop")])
def test_a_worker_that_hangs_says_where_gives_back_and_exits_with_70(direct, pool, where):
    """The lease is long: what runs in the next worker at once was given back."""
    direct.send(f"begins.delay(1, 0); begins.delay(2, {0 if pool == 'solo' else 60})")
    with direct.worker("-P", pool, "-c", "2", *WATCHED, FAULTS_HANG=where) as worker:
        wait_for(lambda: "begins 2" in direct.lines(), 20, direct.logs)
        (direct.folder / "hang").touch()
        direct.send("begins.delay(3, 0)")
        assert worker.exit_code(20) == 70, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    log = worker.log()
    assert "The worker hangs" in log
    assert ("in hang_in_the_loop" if where == "loop" else "in hang\n") in log, worker.tail()
    (direct.folder / "hang").unlink()
    assert "claimed=0" in direct.depth()
    with direct.worker("-c", "2") as second:
        wait_for(lambda: direct.times("begins 2") == (1 if pool == "solo" else 2) and "3" in direct.lines(), 20, direct.logs)
        second.kill()


def test_a_worker_whose_own_code_fails_gives_back_what_it_can_settle_no_more_and_exits_with_an_error(direct):
    """The lease is long: what runs in the next worker at once was given back."""
    with direct.worker("-c", "2", *WATCHED, FAULTS_BREAK="outcome") as worker:
        worker.waits_to_print("ready.")
        (direct.folder / "break").touch()
        direct.send("begins.delay(1, 0)")
        assert worker.exit_code(20) == 1, worker.tail()
    assert "a fault of ours" in worker.log()
    assert "gives its messages back and ends" in worker.log()
    (direct.folder / "break").unlink()
    assert "claimed=0" in direct.depth()
    with direct.worker("-c", "2") as second:
        wait_for(lambda: direct.times("begins 1") == 2, 20, direct.logs)
        second.kill()


def test_a_worker_that_cannot_or_need_not_claim_is_left_alone(direct, behind, proxy):
    with behind.worker("-c", "2", *WATCHED) as worker:
        worker.waits_to_print("ready.")
        direct.send("[begins.delay(n, 4) for n in range(4)]")  # all slots are busy, and messages wait
        wait_for(lambda: "begins 1" in direct.lines(), 20, direct.logs)
        goes_by(3.5)
        proxy.refuse(True)  # the broker is away
        proxy.cut()
        goes_by(3.5)
        proxy.refuse(False)
        os.killpg(worker.pid, signal.SIGSTOP)
        goes_by(3.5)
        os.killpg(worker.pid, signal.SIGCONT)
        proxy.freeze()  # the broker is silent
        goes_by(3.5)
        proxy.thaw()
        wait_for(lambda: len(direct.numbers()) == 4, 30, direct.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(20) == 0, worker.tail()
    assert "hangs" not in worker.log()


def test_the_watchdog_can_be_turned_off(direct):
    with direct.worker("-c", "1", "--", "worker_watchdog_timeout=0", FAULTS_HANG="claim") as worker:
        worker.waits_to_print("ready.")
        (direct.folder / "hang").touch()
        direct.send("work.delay(1)")
        goes_by(2)
        worker.kill()
    assert "hangs" not in worker.log()
