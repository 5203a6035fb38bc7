"""Workers restarted one after the other under load: nothing is lost, nothing runs twice, no attempt is lost.

Every 1.5 seconds here; every five seconds for three minutes in the slow tests of `make chaos`.
"""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.faults.conftest import Faults, goes_by
from tests.processes import Running, wait_for

SLOW = [pytest.mark.slow, pytest.mark.timeout(600)]

PRODUCER = """
import random, select, sys
from faults_app import *
sent = 0
while not select.select([sys.stdin], [], [], 0.04)[0]:
    work.delay(sent, random.choice((0.0, 0.002, 0.05, 0.3)))
    sent += 1
print(sent)
"""
LEFT = """
broker, queue = app.broker, "celery"
if hasattr(broker, "keys"):
    keys = broker.keys(queue)
    print(broker._client.call("ZCARD", keys["owners"]))
else:
    with broker._database.read() as connection:
        print(connection.execute("SELECT count(*) FROM umbel_owners").fetchone()[0])
"""


@contextmanager
def producing(faults: Faults) -> Iterator["subprocess.Popen[str]"]:
    producer = subprocess.Popen(
        [sys.executable, "-c", PRODUCER], env=faults.env, cwd=faults.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield producer
    finally:
        producer.kill()
        producer.wait()


@pytest.mark.parametrize(
    ("store", "every", "restarts"),
    [
        pytest.param("direct", 1.5, 6, marks=[pytest.mark.redis, pytest.mark.timeout(300)]),
        pytest.param("direct", 5.0, 36, marks=[pytest.mark.redis, *SLOW]),
        pytest.param("on_file", 5.0, 36, marks=SLOW),
    ],
)
def test_a_rolling_restart_loses_nothing_repeats_nothing_and_costs_no_attempt(request, store, every, restarts):
    faults = request.getfixturevalue(store)
    workers: list[Running] = []
    with producing(faults) as producer:
        try:
            workers += [faults.worker("-c", "2"), faults.worker("-c", "2")]
            for _ in range(restarts):
                goes_by(every)
                leaving = workers.pop(0)
                leaving.waits_to_print("ready.")
                leaving.send(signal.SIGTERM)
                workers.append(faults.worker("-c", "2"))
                assert leaving.exit_code(20) == 0, leaving.tail()
            said, _ = producer.communicate("\n", timeout=20)
            sent = int(said)
            wait_for(lambda: len(faults.numbers()) == sent, 60, faults.logs)
            for worker in workers:
                worker.waits_to_print("ready.")  # the last one may have come when all was done
                worker.send(signal.SIGTERM)
                assert worker.exit_code(20) == 0, worker.tail()
        finally:
            for worker in workers:
                worker.end_group()
    print(f"{restarts} restarts, {sent} tasks")
    assert sent > 100
    assert {line: times for line, times in Counter(faults.lines()).items() if times > 1 and line != "ready"} == {}
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=0" in faults.depth()
    assert faults.send(LEFT).strip() == "0", "the table of owners"
    logs = "".join(path.read_text() for path in faults.folder.glob("worker-*.log"))
    assert [said for said in ("Recovered", "exited with", "runs elsewhere", "Traceback", "ERROR") if said in logs] == []
