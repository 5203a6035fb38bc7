"""procrastinate, on Postgres (BENCH_PG_URL), in a schema of its own (procrastinate_store.py). It stores no results."""

import os

import ledger
import procrastinate

SCHEMA = "bench_procrastinate"
PG_URL = os.environ.get("BENCH_PG_URL", "postgresql://postgres@127.0.0.1:5432/test")

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=PG_URL, kwargs={"options": f"-c search_path={SCHEMA}"}))


@app.task
async def noop(number: int) -> None:
    ledger.note(number)


async def loop(numbers):
    async with app.open_async():
        for number in numbers:
            await noop.defer_async(number=number)


async def bulk(numbers):
    async with app.open_async():
        await noop.batch_defer_async(*({"number": number} for number in numbers))
