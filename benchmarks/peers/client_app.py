"""No queue: a Redis client that pushes the very bytes that umbel sent (BENCH_BYTES names the file), as a floor for every queue."""

import os
from pathlib import Path

import redis
from settings import URL

client = redis.Redis.from_url(URL)
raw = Path(os.environ["BENCH_BYTES"]).read_bytes()
STEP = 500  # messages in one command of the bulk run, and in one pipeline, as in umbel's bulk call


def loop(numbers):
    for _ in numbers:
        client.lpush("bench-bare", raw)


def bulk(numbers):
    for start in range(0, len(numbers), STEP):
        client.lpush("bench-bare", *[raw] * len(numbers[start : start + STEP]))


def pipeline(numbers):
    for start in range(0, len(numbers), STEP):
        with client.pipeline(transaction=False) as commands:
            for _ in numbers[start : start + STEP]:
                commands.lpush("bench-bare", raw)
            commands.execute()
