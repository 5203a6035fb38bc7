"""Sends calls through one app and says how long it took: python send.py MODULE WAY COUNT WARMUP.

The way is a function of the module (loop, bulk, pipeline); "async" is its from_coroutines, as async cannot be a name.

The warm-up opens connections and fills caches; its calls are numbered from -1 down, so that a ledger can leave them out.
"""

import asyncio
import gc
import importlib
import inspect
import json
import resource
import sys
import time


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run_async(send, warm, numbers):
    if warm:
        await send(warm)
    gc.collect()
    start, used = time.perf_counter(), cpu()
    await send(numbers)
    return time.perf_counter() - start, cpu() - used


def run(send, warm, numbers):
    if warm:
        send(warm)
    gc.collect()
    start, used = time.perf_counter(), cpu()
    send(numbers)
    return time.perf_counter() - start, cpu() - used


def main():
    module, way, count, warmup = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    send = getattr(importlib.import_module(module), {"async": "from_coroutines"}.get(way, way))
    warm, numbers = range(-warmup, 0), range(count)
    seconds, used = asyncio.run(run_async(send, warm, numbers)) if inspect.iscoroutinefunction(send) else run(send, warm, numbers)
    print(json.dumps({"count": count, "seconds": seconds, "cpu_seconds": used}))


main()
