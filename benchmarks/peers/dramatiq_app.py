"""dramatiq; it stores results only when asked to. It has no bulk call."""

import dramatiq
import ledger
from dramatiq.brokers.redis import RedisBroker
from settings import KEEP, URL

broker = RedisBroker(url=URL)
if KEEP:
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(**({"store_results": True} if KEEP else {}))
def noop(number):
    ledger.note(number)


def loop(numbers):
    for number in numbers:
        noop.send(number)
