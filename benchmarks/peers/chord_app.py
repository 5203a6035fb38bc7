"""A chord of small tasks, with umbel or Celery (`BENCH_QUEUE`): each member and the body write the time; results are stored."""

import os

import ledger
from settings import URL

if os.environ.get("BENCH_QUEUE") == "celery":
    from celery import Celery, chord
else:
    from umbel import Celery, chord

BODY = -1  # the body's number in the ledger
app = Celery("bench", broker=URL, backend=URL)


@app.task
def member(number):
    ledger.note(number)
    return number


@app.task
def body(numbers):
    ledger.note(BODY)
    return len(numbers)


def send(count):
    """Send a chord of *count* members."""
    return chord((member.s(number) for number in range(count)), body.s()).apply_async()
