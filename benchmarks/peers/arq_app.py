"""arq; keep_result = 0 keeps no result. It has no bulk call."""

import ledger
from arq import create_pool
from arq.connections import RedisSettings
from settings import KEEP, URL

SILENT = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}


async def noop(_context, number):
    ledger.note(number)


class WorkerSettings:
    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(URL)
    if not KEEP:
        keep_result = 0


async def loop(numbers):
    pool = await create_pool(WorkerSettings.redis_settings)
    for number in numbers:
        await pool.enqueue_job("noop", number)
    await pool.aclose()
