"""streaq; a ttl of 0 keeps no result."""

import ledger
from settings import KEEP, URL
from streaq import Worker

worker = Worker(redis_url=URL)


@worker.task(**({} if KEEP else {"ttl": 0}))
async def noop(number: int) -> None:
    ledger.note(number)


async def loop(numbers):
    async with worker:
        for number in numbers:
            await noop.enqueue(number)


async def bulk(numbers):
    async with worker:
        await worker.enqueue_many([noop.enqueue(number) for number in numbers])
