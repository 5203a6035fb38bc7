"""How soon what was killed runs again. The promises are 1 s and lease + 2 s: benchmarks/recovery.py measures them; here bounds are wide."""

import os
import signal
import time

import pytest
from tests.faults.conftest import faults_on
from tests.process.conftest import POSTGRES, REDIS
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(300)

LEASE = 1.5
PATIENCE = 10  # seconds beside the promise: the machine may be busy


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def anywhere(request, tmp_path):
    if request.param == "sqlite":
        return request.getfixturevalue("on_file")
    if request.param == "postgresql":
        return request.getfixturevalue("on_postgres")
    url = request.getfixturevalue("private_redis").url
    return faults_on(url, url, tmp_path)


def begun(faults, number):
    """The pids of the children that began it."""
    return [int(line.split()[2]) for line in faults.lines() if line.startswith(f"begins {number} ")]


def test_what_a_killed_child_ran_and_what_a_killed_node_ran_begin_again_in_time_though_all_are_busy(anywhere):
    with anywhere.worker("-c", "1") as first:
        first.waits_to_print("ready.")
        anywhere.send("begins_and_tells.delay(1, 30)")
        wait_for(lambda: len(begun(anywhere, 1)) == 1, 20, anywhere.logs)
        os.kill(begun(anywhere, 1)[0], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: len(begun(anywhere, 1)) == 2, 1 + PATIENCE, anywhere.logs)
        print(f"a child: {time.monotonic() - killed:.2f} s")
        with anywhere.worker("-c", "1") as second:
            second.waits_to_print("ready.")
            anywhere.send(
                "quiet.delay_many([((n,), {}) for n in range(100, 150)]); work.delay_many([((n, 0.05), {}) for n in range(200, 1200)])"
            )
            wait_for(lambda: len(anywhere.numbers()) > 60, 20, anywhere.logs)  # by then it has had a lease of its own
            os.killpg(first.pid, signal.SIGKILL)
            killed = time.monotonic()
            wait_for(lambda: len(begun(anywhere, 1)) == 3, LEASE + 2 + PATIENCE, anywhere.logs)
            print(f"a node: {time.monotonic() - killed:.2f} s, with a lease of {LEASE:g} s")
            waiting = anywhere.send("print(app.broker.depth(['celery'])['celery'].ready)")
            assert int(waiting) > 0, "the queue was empty, so this shows nothing about a busy worker"
            second.kill()
