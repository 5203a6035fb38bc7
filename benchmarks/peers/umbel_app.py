"""umbel itself; BENCH_URL may be any broker that has results too."""

import ledger
from settings import KEEP, URL

from umbel import Umbel

app = Umbel("bench", broker=URL, backend=URL if KEEP else None)


@app.task
def noop(number):
    ledger.note(number)


@app.task(ignore_result=True)
def quiet(number):
    ledger.note(number)


def loop(numbers):
    for number in numbers:
        noop.delay(number)


def bulk(numbers):
    noop.delay_many(((number,), {}) for number in numbers)
