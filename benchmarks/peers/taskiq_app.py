"""taskiq with the acknowledged broker of taskiq-redis (streams). It has no bulk call."""

import ledger
from settings import KEEP, URL
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(url=URL)
if KEEP:
    broker = broker.with_result_backend(RedisAsyncResultBackend(redis_url=URL))


@broker.task
async def noop(number: int) -> None:
    ledger.note(number)


async def loop(numbers):
    await broker.startup()
    for number in numbers:
        await noop.kiq(number)
    await broker.shutdown()
