"""A node of a cluster dies, and a replica takes its slots."""

import threading
import time

import pytest

pytest.importorskip("redis")

from redis.crc import key_slot
from tests.faults.conftest import faults_on
from tests.processes import wait_for
from tests.redis_family import processes

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

PRODUCE = """
from faults_app import *
from umbel.exceptions import OperationalError
import time
for n in range(600):
    while True:
        try:
            work.delay(n, 0.005)
        except OperationalError:
            time.sleep(0.05)
        else:
            break
    time.sleep(0.01 * (n > 400))
"""


def test_a_node_of_a_cluster_is_killed_under_load_and_every_call_that_returned_is_done(tmp_path):
    with processes.cluster(tmp_path / "cluster", replica_for=b"celery", timeout=1000) as cluster:
        faults = faults_on(cluster.url, cluster.url, tmp_path)
        faults.env["LEDGER_SETTINGS"] = '{"broker_transport_options": {"replicas": 1}}'
        slot = key_slot(b"celery")
        with faults.worker("-c", "2") as worker:
            worker.waits_to_print("ready.")
            producer = threading.Thread(target=faults.script, args=(PRODUCE,))
            producer.start()
            wait_for(lambda: len(faults.numbers()) > 100, 20, worker.tail)
            dead = cluster.owner(slot)
            dead.kill()
            survivor = next(node for node in cluster.nodes if node is not dead)
            wait_for(lambda: cluster.owner(slot, survivor) is not dead, 30)
            agreed, done = time.monotonic(), len(faults.numbers())
            wait_for(lambda: len(faults.numbers()) > done, 10, worker.tail)
            print(f"the next task ran {time.monotonic() - agreed:.2f} s after the cluster agreed")
            producer.join()
            wait_for(lambda: faults.numbers() == set(range(600)), 30, faults.logs)
            wait_for(lambda: faults.depth() == EMPTY, 20, faults.depth)
            worker.send(15)
            assert worker.exit_code() == 0, worker.tail()


EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"
