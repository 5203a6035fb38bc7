"""The same tasks as an app of umbel and of Celery, on RabbitMQ with quorum queues."""

import os
import sys
import time
from pathlib import Path

if os.environ["FLEET_LIBRARY"] == "umbel":
    from umbel import Celery
else:
    from celery import Celery

LIBRARY = os.environ["FLEET_LIBRARY"]
app = Celery("rabbit_fleet", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    task_default_queue_type="quorum", task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True,
    result_backend_transport_options={"global_keyprefix": os.environ["FLEET_PREFIX"]},
)  # fmt: skip


def note(line):
    with Path(os.environ["FLEET_LEDGER"]).open("ab", buffering=0) as ledger:
        ledger.write(f"{LIBRARY} {line}\n".encode())


@app.task
def add(x, y):
    note(f"add {x}")
    return x + y


@app.task(bind=True)
def again(self, number):
    note(f"again {number} {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return self.request.retries


@app.task
def late(sent):
    note("late")
    return time.time() - sent


def produce():
    """Send some of each, and say what came back."""
    base = int(sys.argv[1])
    sums = [add.delay(base + n, 1) for n in range(20)]
    retried = again.delay(base)
    delayed = late.apply_async((time.time(),), countdown=3)
    limited = add.apply_async((base + 20, 1), soft_time_limit=30.5)  # a float among the headers
    assert [each.get(timeout=60) for each in sums] == [base + n + 1 for n in range(20)]
    assert retried.get(timeout=60) == 2
    assert 3.0 <= delayed.get(timeout=60) < 8.0
    assert limited.get(timeout=60) == base + 21


if __name__ == "__main__":
    produce()
