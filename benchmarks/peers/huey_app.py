"""huey; it stores a result unless it is None, so a task that keeps one returns its number. It has no bulk call."""

import ledger
from huey import RedisHuey
from settings import KEEP, URL

huey = RedisHuey("bench", url=URL, results=KEEP)


@huey.task()
def noop(number):
    ledger.note(number)
    return number if KEEP else None


def loop(numbers):
    for number in numbers:
        noop(number)
