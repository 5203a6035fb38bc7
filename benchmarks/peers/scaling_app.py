"""umbel with several queues, and a task that works (sleeps) for a while: BENCH_QUEUES, BENCH_WORK (seconds)."""

import os
import time

import ledger
from settings import KEEP, URL

from umbel import Umbel

QUEUES = int(os.environ.get("BENCH_QUEUES", "1"))
WORK = float(os.environ.get("BENCH_WORK", "0"))
app = Umbel("bench", broker=URL, backend=URL if KEEP else None)


@app.task
def work(number):
    if WORK:
        time.sleep(WORK)
    ledger.note(number)


def bulk(numbers):
    for first in range(QUEUES):
        work.delay_many((((number,), {}) for number in numbers[first::QUEUES]), queue=f"q{first}")
