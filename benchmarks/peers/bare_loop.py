"""No queue: one process that claims, decodes and runs what umbel sent, as a floor for the drain. SIGTERM ends it.

It gives up all that a queue is for (a process of its own for tasks, leases, limits, errors, results) but what nobody can leave out: a
message is claimed in one script that also keeps it in a hash of claims, is decoded, its function is called, and its acknowledgement
rides on the next claim. BENCH_BATCH says how many messages a claim asks for.
"""

import os
import signal
import sys
import time
from base64 import b64decode
from typing import Any

import ledger
import msgspec
import redis
from settings import URL

BATCH = int(os.environ.get("BENCH_BATCH", "64"))
IDLE = 0.001  # seconds until it looks again, when there was nothing

# KEYS: the list and the hash of claims. ARGV: batch, number of this claim, then the tags that are done.
CLAIM = """
if #ARGV > 2 then redis.call('HDEL', KEYS[2], unpack(ARGV, 3)) end
local raws = redis.call('RPOP', KEYS[1], ARGV[1])
if not raws then return {} end
local fields = {}
for at, raw in ipairs(raws) do
  fields[2 * at - 1] = ARGV[2] .. ':' .. at
  fields[2 * at] = raw
end
redis.call('HSET', KEYS[2], unpack(fields))
return raws
"""


class Message(msgspec.Struct):
    """The envelope that kombu writes, with what a worker must look at."""

    body: str
    headers: dict[str, Any]


def noop(number):
    ledger.note(number)


TASKS = {"umbel_app.noop": noop}
message_of = msgspec.json.Decoder(Message).decode
body_of = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any]]).decode


def run():
    """Claim and run until told to stop."""
    client = redis.Redis.from_url(URL)
    claim = client.register_script(CLAIM)
    number, done = 0, []
    while True:
        number += 1
        raws = claim(("celery", "bench-claims"), (BATCH, number, *done))
        done = [f"{number}:{at}" for at in range(1, len(raws) + 1)]
        for raw in raws:
            message = message_of(raw)
            args, kwargs, _ = body_of(b64decode(message.body))
            TASKS[message.headers["task"]](*args, **kwargs)
        if not raws:
            time.sleep(IDLE)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run()


main()
