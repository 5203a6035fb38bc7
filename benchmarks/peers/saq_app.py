"""saq; a ttl of -1 keeps no result. Its bulk call, `map`, waits for the results, so it is not measured."""

import ledger
from saq import Queue
from settings import KEEP, URL

queue = Queue.from_url(URL)
OPTIONS = {} if KEEP else {"ttl": -1}


async def noop(_context, *, number):
    ledger.note(number)


settings = {"queue": queue, "functions": [noop]}


async def loop(numbers):
    await queue.connect()
    for number in numbers:
        await queue.enqueue("noop", number=number, **OPTIONS)
    await queue.disconnect()
