"""No queue: umbel's own client for Redis pushes the very bytes that umbel sent (BENCH_BYTES names the file), as a floor for its calls."""

import os
from pathlib import Path

from settings import URL

from umbel.drivers.redis.client import Client

client = Client(URL, options={}, timeout=2.0)
raw = Path(os.environ["BENCH_BYTES"]).read_bytes()


def loop(numbers):
    for _ in numbers:
        client.call("LPUSH", "bench-bare", raw)
