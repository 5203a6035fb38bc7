"""rq; a result_ttl of 0 keeps no result."""

import ledger
from redis import Redis
from rq import Queue
from settings import KEEP, URL

queue = Queue("default", connection=Redis.from_url(URL))
OPTIONS = {} if KEEP else {"result_ttl": 0}


def noop(number):
    ledger.note(number)


def loop(numbers):
    for number in numbers:
        queue.enqueue("rq_app.noop", number, **OPTIONS)


def bulk(numbers):
    queue.enqueue_many([Queue.prepare_data("rq_app.noop", (number,), **OPTIONS) for number in numbers])
