"""Celery's producers and workers on the same quorum queues of RabbitMQ, at the same time."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.compat.celery_env import celery_python
from tests.processes import Running, wait_for
from tests.rabbitmq import delete_queues

pytestmark = [pytest.mark.amqp, pytest.mark.redis, pytest.mark.timeout(400)]
APPS = Path(__file__).parent / "apps"


class Fleet:
    def __init__(self, broker, backend, prefix, folder):
        self.folder = folder
        self.ledger = folder / "ledger"
        self._env = {
            **os.environ, "FLEET_BROKER": broker, "FLEET_BACKEND": backend, "FLEET_PREFIX": prefix, "FLEET_LEDGER": str(self.ledger),
            "C_FORCE_ROOT": "1",
        }  # fmt: skip

    def _of(self, library):
        python = sys.executable if library == "umbel" else str(celery_python())
        return python, {**self._env, "FLEET_LIBRARY": library}

    @contextlib.contextmanager
    def worker(self, library):
        python, env = self._of(library)
        command = [python, "-m", library, "-A", "rabbit_fleet", "worker", "-l", "INFO", "-c", "2", "-n", f"{library}@here"]
        with Running(command, cwd=APPS, env=env, log=self.folder / f"{library}.log") as worker:
            wait_for(lambda: "ready." in worker.log(), 40, worker.tail)
            yield worker

    def produce(self, library, base):
        python, env = self._of(library)
        return subprocess.Popen([python, "rabbit_fleet.py", str(base)], cwd=APPS, env=env, stderr=subprocess.PIPE, text=True)

    def ran(self):
        return Counter(self.ledger.read_text().splitlines())


@pytest.fixture
def make_fleet(amqp_url, redis_url, redis_prefix, tmp_path):
    delete_queues(amqp_url, "celery")
    yield lambda results: Fleet(amqp_url, results or redis_url, redis_prefix, tmp_path)
    delete_queues(amqp_url, "celery")


@pytest.mark.parametrize(
    ("producers", "workers", "results"),
    [
        pytest.param(["celery"], ["umbel"], "", id="to_us"),
        pytest.param(["umbel"], ["celery"], "", id="from_us"),
        pytest.param(["celery", "umbel"], ["celery", "umbel"], "", id="mixed"),
        pytest.param(["celery"], ["umbel"], "rpc://", id="to_us_rpc", marks=pytest.mark.slow),
        pytest.param(["umbel"], ["celery"], "rpc://", id="from_us_rpc", marks=pytest.mark.slow),
        pytest.param(["celery", "umbel"], ["celery", "umbel"], "rpc://", id="mixed_rpc"),
    ],
)
def test_tasks_retries_delays_and_results_pass_between_celery_and_us(make_fleet, producers, workers, results):
    fleet = make_fleet(results)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(fleet.worker(library)) for library in workers]
        sent = [fleet.produce(library, 1000 * number) for number, library in enumerate(producers, 1)]
        for producer in sent:
            _, errors = producer.communicate(timeout=100)
            assert producer.returncode == 0, errors + "".join(worker.tail() for worker in running)
    ran = fleet.ran()
    assert max(ran.values()) == 1 or "late" in "".join(line for line, times in ran.items() if times > 1)
    assert sum(ran.values()) == len(producers) * (21 + 3 + 1)
