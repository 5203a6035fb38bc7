"""ardiq; it has no way to keep no result, so "off" shortens the time it keeps them."""

import ledger
from ardiq import Ardiq
from settings import KEEP, URL

app = Ardiq(URL, **({} if KEEP else {"result_ttl_ms": 1}))


@app.task
async def noop(number: int) -> None:
    ledger.note(number)


async def loop(numbers):
    for number in numbers:
        await noop.enqueue(number)


async def bulk(numbers):
    await app.enqueue_many([noop.prepare(number) for number in numbers])
