"""Old and new workers on one queue: what one does not know waits for the other, and nothing goes round between them."""

import re

import pytest
from tests.faults.conftest import faults_on
from tests.faults.test_children import stop
from tests.faults.test_odd_tasks import EMPTY
from tests.process.conftest import POSTGRES, REDIS
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(300)

MESSAGES = 500  # of each version


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def rolling(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/umbel.sqlite3"
        return faults_on(url, url, tmp_path)
    if request.param == "postgresql":
        return request.getfixturevalue("on_postgres")
    url = request.getfixturevalue("redis_url")
    return faults_on(url, url, tmp_path, LEDGER_PREFIX=request.getfixturevalue("redis_prefix"))


def worker(rolling, version):
    return rolling.worker("-P", "prefork", "-c", "1", app="rolling_app", ROLLING_VERSION=version)


def test_workers_of_two_versions_run_everything_once_and_park_it_once(rolling):
    spans = {"old": (0, MESSAGES), "new": (MESSAGES, 2 * MESSAGES), "both": (2 * MESSAGES, 3 * MESSAGES)}
    sends = "; ".join(f"{name}.delay_many([((n, 0.001), {{}}) for n in range({a}, {b})])" for name, (a, b) in spans.items())
    with worker(rolling, "1") as first, worker(rolling, "2") as second:
        for each in (first, second):
            each.waits_to_print("ready.")
        rolling.script(f"from rolling_app import *\n{sends}")
        wait_for(lambda: len(rolling.numbers()) == 3 * MESSAGES, 60, rolling.logs)
        wait_for(lambda: rolling.depth() == EMPTY, 10, rolling.depth)
        stop(first)
        stop(second)
    ran = [line for line in rolling.lines() if line.isdigit()]
    assert len(ran) == len(set(ran)) == 3 * MESSAGES
    parkings = [task_id for each in (first, second) for task_id in re.findall(r"^Task (\S+) on queue", each.log(), re.MULTILINE)]
    # What was claimed and could not start soon goes back to ready, and may be parked again; nothing else is.
    assert len(parkings) - len(set(parkings)) <= MESSAGES // 20
    assert len(set(parkings)) <= 2 * MESSAGES, "what both know is never parked"


def test_a_worker_that_was_there_all_the_time_finds_what_another_has_parked(rolling):
    with worker(rolling, "1") as old:
        old.waits_to_print("ready.")
        rolling.script("from rolling_app import *\nnew.delay_many([((n,), {}) for n in range(20)])")
        wait_for(lambda: "parked=20" in rolling.depth(), 20, rolling.depth)
        with worker(rolling, "2") as new:
            wait_for(lambda: len(rolling.numbers()) == 20, 20, rolling.logs)
            rolling.script("from rolling_app import *\nnew.delay_many([((n,), {}) for n in range(20, 60)])")
            wait_for(lambda: len(rolling.numbers()) == 60, 20, rolling.logs)
            stop(new)
        stop(old)
    assert sorted(rolling.lines()) == sorted(map(str, range(60)))
    assert rolling.depth() == EMPTY
