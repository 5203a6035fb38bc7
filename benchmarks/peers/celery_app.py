"""Celery 5.7 with its defaults. It has no bulk call."""

import ledger
from celery import Celery
from settings import KEEP, URL

app = Celery("bench", broker=URL, backend=URL if KEEP else None)


@app.task
def noop(number):
    ledger.note(number)


def loop(numbers):
    for number in numbers:
        noop.delay(number)
