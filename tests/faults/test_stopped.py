"""A worker, or only its parent, is stopped for longer than its lease and goes on: what it then says changes nothing."""

import contextlib
import json
import os
import signal

import pytest
from tests.faults.conftest import faults_on
from tests.process.test_killed import children_of
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(300)

EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"
BY_SECOND = ["celery@second", "celery@second"]
RESULTS = "import json; print(json.dumps([app.AsyncResult(id).get(timeout=60) for id in ('1', '2')]))"


def a_place(store, request, tmp_path):
    """Messages and results in one store; and, as `apart`, in two databases of one Redis, which is two stores."""
    if store == "sqlite":
        return request.getfixturevalue("on_file")
    url = request.getfixturevalue("private_redis").url
    return faults_on(url, url if store == "redis" else url.removesuffix("/0") + "/1", tmp_path)


CASES = [
    ("sqlite", "its parent"),
    pytest.param("redis", "all of it", marks=pytest.mark.redis),
    pytest.param("apart", "its parent", marks=pytest.mark.redis),
]


@pytest.mark.parametrize(("store", "who"), CASES)
def test_a_worker_stopped_past_its_lease_stores_no_result_and_sends_no_retry(store, who, request, tmp_path):
    anywhere = a_place(store, request, tmp_path)
    with anywhere.worker("-n", "first", "-c", "2") as first:
        first.waits_to_print("ready.")
        anywhere.send("begins_and_tells.apply_async((1, 2.0), task_id='1'); begins_and_retries.apply_async((2, 2.0), task_id='2')")
        wait_for(lambda: sum(line.startswith("begins") for line in anywhere.lines()) == 2, 20, anywhere.logs)
        stopped = [first.pid, *(children_of(first.pid) if who == "all of it" else [])]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with anywhere.worker("-n", "second", "-c", "2") as second:
            # The first parent's children may end their runs, but nobody carries their outcomes out.
            wait_for(lambda: anywhere.depth() == EMPTY, 30, anywhere.logs)
            assert json.loads(anywhere.send(RESULTS)) == BY_SECOND
            before = anywhere.lines()
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):  # its parent, which goes on already, may have ended it
                    os.kill(pid, signal.SIGCONT)
            first.waits_to_print("lapsed and its tasks were given to others")
            second.send(signal.SIGTERM)
            assert second.exit_code() == 0, second.tail()
        # What the first had to say would be said by now: it claims and settles again.
        anywhere.send("work.delay(7).get(timeout=60)")
        wait_for(lambda: anywhere.depth() == EMPTY, 10, anywhere.logs)
        assert json.loads(anywhere.send(RESULTS)) == BY_SECOND
        assert "Traceback" not in first.log(), first.tail()
    after = [line for line in anywhere.lines()[len(before) :] if line not in {"7", "1"}]  # a child may write its line after SIGCONT
    assert after == [], "a retry of the stopped worker was sent"
    assert before.count("2") == 1
