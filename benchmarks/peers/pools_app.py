"""umbel's tasks of pools.py; results are off."""

import pools_work
from settings import URL

from umbel import Umbel

app = Umbel("bench", broker=URL)


@app.task(ignore_result=True)
async def wait(number):
    await pools_work.wait(number)


@app.task(ignore_result=True)
def sleep(number):
    pools_work.sleep(number)


@app.task(ignore_result=True)
def compute(number):
    pools_work.compute(number)


def asyncio(numbers):
    wait.delay_many(((number,), {}) for number in numbers)


def threads(numbers):
    sleep.delay_many(((number,), {}) for number in numbers)


def prefork(numbers):
    compute.delay_many(((number,), {}) for number in numbers)
