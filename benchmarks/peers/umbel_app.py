"""umbel itself; BENCH_URL may be any broker that has results too."""

import asyncio

import ledger
from settings import KEEP, URL

from umbel import Umbel

app = Umbel("bench", broker=URL, backend=URL if KEEP else None)
COROUTINES = 100  # that call at once, where calls are made from coroutines


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


async def from_coroutines(numbers):
    """Make the calls from many coroutines of one loop, which share them."""
    left = iter(numbers)

    async def some():
        for number in left:
            await noop.adelay(number)

    await asyncio.gather(*(some() for _ in range(COROUTINES)))
